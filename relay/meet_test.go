package relay

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
	"github.com/shoal-p2p/shoal/circuit/stream"
)

// inMemory runs f with a network in memory whose wires have 1 ms, in virtual
// time. What f leaves behind must end: the bubble waits for every goroutine.
func inMemory(t *testing.T, relays int, f func(t *testing.T, n *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, startNetwork(t, relays, linktest.NewNet(linktest.Shape{Delay: time.Millisecond})))
	})
}

// Whatever a visitor does, it ends its own circuit and nobody else's.
func TestAVisitorThatBreaksTheProtocolHurtsItselfAlone(t *testing.T) {
	record := func(n int) []byte { return make([]byte, n) }
	opened := func(r *rogue, h *host) {
		r.open(1, h)
		r.hearsVerb(cell.Opened)
	}
	for name, attack := range map[string]func(r *rogue, h *host){
		"an OPEN that is too short":   func(r *rogue, h *host) { _, b := h.opening(r.t); r.send(1, cell.Open, b[:len(b)-1]) },
		"an OPEN that is too long":    func(r *rogue, h *host) { _, b := h.opening(r.t); r.send(1, cell.Open, append(b, 0)) },
		"an OPEN of a token alone":    func(r *rogue, h *host) { r.send(1, cell.Open, h.token[:]) },
		"an OPEN with an even number": func(r *rogue, h *host) { r.open(2, h) },
		"an OPEN with number 0":       func(r *rogue, h *host) { r.open(0, h) },
		"an OPEN with a number used before": func(r *rogue, h *host) {
			r.open(3, h)
			r.open(1, h)
		},
		"a record before OPENED": func(r *rogue, h *host) {
			r.open(1, h)
			r.send(1, cell.Record, record(stream.DataSize))
		},
		"a record of another length": func(r *rogue, h *host) { opened(r, h); r.send(1, cell.Record, record(100)) },
		"a record on no stream":      func(r *rogue, h *host) { r.send(1, cell.Record, record(stream.DataSize)) },
		"a record on stream 0":       func(r *rogue, h *host) { r.send(0, cell.Record, record(stream.DataSize)) },
		"a record after its own CLOSE": func(r *rogue, h *host) {
			opened(r, h)
			r.send(1, cell.Close, []byte{0})
			r.send(1, cell.Record, record(stream.DataSize))
		},
		"OPENED on its own stream":  func(r *rogue, h *host) { opened(r, h); r.send(1, cell.Opened, record(stream.Message2Size)) },
		"CLOSE on no stream":        func(r *rogue, h *host) { r.send(7, cell.Close, []byte{0}) },
		"ALLOW":                     func(r *rogue, h *host) { opened(r, h); r.send(1, cell.Allow, record(8)) },
		"ANSWER":                    func(r *rogue, h *host) { r.send(1, cell.Answer, record(8)) },
		"REGISTERED":                func(r *rogue, h *host) { r.send(0, cell.Registered, record(32)) },
		"an unknown verb":           func(r *rogue, h *host) { r.payload([]byte{0, 0, 0, 1, 99, 0, 0, 0}) },
		"a message that is no such": func(r *rogue, h *host) { r.payload(bytes.Repeat([]byte{0xff}, cell.Payload)) },
		"OPENs for nobody, again and again": func(r *rogue, h *host) {
			_, b := h.opening(r.t)
			clear(b[:cell.TokenSize])
			for i := range uint32(maxUnknown + 1) {
				r.send(1+2*i, cell.Open, b)
			}
		},
		"REGISTERs, again and again": func(r *rogue, h *host) {
			for i := range maxTokens + 1 {
				r.send(0, cell.Register, []byte{byte(i), 1})
			}
		},
		"a REGISTER on a stream": func(r *rogue, h *host) { r.send(1, cell.Register, []byte{1}) },
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, 3, func(t *testing.T, n *network) {
				h := n.host(t, 1)
				there, here := n.visit(t, h, 1)
				r := n.rogue(t, 1, nil)
				attack(r, h)
				r.ends()
				echo(t, there, here)
			})
		})
	}
}

// A visitor's records beyond what it was allowed end their stream; the second
// such stream ends its circuit.
func TestAVisitorThatSendsTooMuchLosesItsStreamThenItsCircuit(t *testing.T) {
	for name, size := range map[string]int{"data": stream.DataSize, "control": stream.ControlSize} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, 3, func(t *testing.T, n *network) {
				r := n.rogue(t, 1, nil)
				var hosts []*rogue
				flood := func(id uint32) {
					b := n.rogue(t, 1, nil) // registered, and allows nothing: all that comes waits at the relay
					hosts = append(hosts, b)
					b.mute()
					h := &host{token: [32]byte{byte(id)}}
					h.key, _ = stream.GenerateKey()
					b.send(0, cell.Register, h.token[:])
					b.hearsVerb(cell.Registered)
					r.open(id, h)
					b.send(b.hearsVerb(cell.Open).Stream, cell.Opened, make([]byte, stream.Message2Size))
					r.hears("OPENED", func(m cell.Message) bool { return m.Verb == cell.Opened && m.Stream == id })
					for range 200 {
						r.send(id, cell.Record, make([]byte, size))
					}
				}
				flood(1)
				r.hears("CLOSE", func(m cell.Message) bool {
					return m.Verb == cell.Close && m.Stream == 1 && m.Body[0] == byte(cell.Overrun)
				})
				if held := n.meets[len(n.meets)-1].budget.Used(); held > 100 {
					t.Errorf("%d records are promised for a stream that is over", held)
				}
				flood(3)
				r.ends()
				for _, b := range hosts {
					b.mu.Lock()
					if b.over {
						t.Error("a registered circuit is over, too")
					}
					b.mu.Unlock()
				}
			})
		})
	}
}

// Whoever is registered can be as bad.
func TestARegisteredCircuitThatBreaksTheProtocolEnds(t *testing.T) {
	for name, attack := range map[string]func(b *rogue, id uint32){
		"OPENED of another length": func(b *rogue, id uint32) { b.send(id, cell.Opened, make([]byte, 10)) },
		"OPENED twice": func(b *rogue, id uint32) {
			b.send(id, cell.Opened, make([]byte, stream.Message2Size))
			b.send(id, cell.Opened, make([]byte, stream.Message2Size))
		},
		"OPENED on no stream":    func(b *rogue, id uint32) { b.send(id+2, cell.Opened, make([]byte, stream.Message2Size)) },
		"a record before OPENED": func(b *rogue, id uint32) { b.send(id, cell.Record, make([]byte, stream.DataSize)) },
		"ALLOW":                  func(b *rogue, id uint32) { b.send(id, cell.Allow, make([]byte, 8)) },
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, 3, func(t *testing.T, n *network) {
				b := n.rogue(t, 1, nil)
				h := &host{token: [32]byte{1}}
				h.key, _ = stream.GenerateKey()
				b.send(0, cell.Register, h.token[:])
				b.hearsVerb(cell.Registered)
				r := n.rogue(t, 1, nil)
				r.open(1, h)
				attack(b, b.hearsVerb(cell.Open).Stream)
				b.ends()
				r.hears("the end of the stream", func(m cell.Message) bool { return m.Verb == cell.Close && m.Stream == 1 })
				r.open(3, h) // and its token leads nowhere
				if m := r.hearsVerb(cell.Refused); m.Body[0] != byte(cell.UnknownToken) {
					t.Errorf("refused with %v", cell.Reason(m.Body[0]))
				}
			})
		})
	}
}

func TestVisitorsWhoAreNotAnsweredAreBounded(t *testing.T) {
	inMemory(t, 3, func(t *testing.T, n *network) {
		b := n.rogue(t, 1, nil) // never answers
		h := &host{token: [32]byte{1}}
		h.key, _ = stream.GenerateKey()
		b.send(0, cell.Register, h.token[:])
		b.hearsVerb(cell.Registered)
		refused := 0
		var all []*rogue
		for range 3 {
			r := n.rogue(t, 1, nil)
			all = append(all, r)
			for i := range uint32(maxOpening + 1) {
				r.open(1+2*i, h)
			}
			synctest.Wait()
			time.Sleep(time.Second)
			r.mu.Lock()
			for _, m := range r.got {
				if m.Verb == cell.Refused && m.Body[0] == byte(cell.Busy) {
					refused++
				}
			}
			r.mu.Unlock()
		}
		if want := 3*(maxOpening+1) - maxHalfOpen; refused != want {
			t.Errorf("%d were refused, want %d", refused, want)
		}
		b.mu.Lock()
		opens := len(b.got) - 1
		b.mu.Unlock()
		if opens != maxHalfOpen {
			t.Errorf("the registered circuit heard %d OPENs, want %d", opens, maxHalfOpen)
		}
		for i := range maxHalfOpen { // once it answers, there is room again
			b.send(uint32(2+2*i), cell.Refused, []byte{byte(cell.Gone)})
		}
		all[2].send(1001, cell.Open, func() []byte { _, b := h.opening(t); return b }())
		b.waits("one OPEN more", func() bool { return len(b.got) == maxHalfOpen+2 })
	})
}

// A visitor who stops reading, or allows nothing, costs its relay a known
// amount, and the streams beside it on the registered circuit nothing.
func TestAStalledVisitorStallsNobodyBesideIt(t *testing.T) {
	inMemory(t, 3, func(t *testing.T, n *network) {
		h := n.host(t, 1)
		there, here := n.visit(t, h, 1)
		_, unread := n.visit(t, h, 1) // its client never reads
		r := n.rogue(t, 1, nil)       // its circuit allows nothing
		i := r.open(1, h)
		if _, err := i.Finish(r.hearsVerb(cell.Opened).Body); err != nil {
			t.Fatal(err)
		}
		r.mute()
		go unread.Write(make([]byte, 4<<20))
		go func() {
			for range 64 {
				here.Write(make([]byte, 64<<10))
			}
			here.CloseWrite()
		}()
		got, err := io.Copy(io.Discard, there)
		if err != nil || got != 64*64<<10 {
			t.Fatalf("read %d bytes: %v", got, err)
		}
		there.Close()
		here.Close()
		time.Sleep(time.Second)
		if promised := n.meets[len(n.meets)-1].budget.Used(); promised > 8*int64(link.Cells.Opening) || promised < 4*cell.StreamFloor {
			t.Errorf("the relay has promised %d records to those who stand still", promised)
		}
		unread.SetWriteDeadline(time.Now())
	})
}

// A registered circuit whose owner allows nothing more holds its visitors'
// records, each stream's within its window.
func TestWhatWaitsAtAMeetingRelayIsBounded(t *testing.T) {
	inMemory(t, 3, func(t *testing.T, n *network) {
		b := n.rogue(t, 1, nil)
		h := &host{token: [32]byte{1}}
		h.key, _ = stream.GenerateKey()
		b.send(0, cell.Register, h.token[:])
		b.hearsVerb(cell.Registered)
		b.mute()
		var all []*rogue
		for i := range 5 {
			r := n.rogue(t, 1, nil)
			all = append(all, r)
			r.open(1, h)
			id := uint32(2 + 2*i)
			if i >= 3 { // the circuit's first credit is used up
				continue
			}
			b.hears("OPEN", func(m cell.Message) bool { return m.Verb == cell.Open && m.Stream == id })
			b.send(id, cell.Opened, make([]byte, stream.Message2Size))
			r.hearsVerb(cell.Opened)
			for range cell.StreamFloor {
				r.send(1, cell.Record, make([]byte, stream.DataSize))
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		side := n.meets[len(n.meets)-1].known[h.token]
		side.mu.Lock()
		waiting := 0
		for _, half := range side.streams {
			waiting += half.queue.Len()
		}
		side.mu.Unlock()
		if most := 3 * cell.StreamFloor; waiting > most || waiting == 0 {
			t.Errorf("%d records wait, at most %d", waiting, most)
		}
		for _, r := range all {
			r.mu.Lock()
			if r.over {
				t.Error("a visitor that kept to its allowance lost its circuit")
			}
			r.mu.Unlock()
		}
	})
}

func TestCloseComesBehindAllThatWasWritten(t *testing.T) {
	inMemory(t, 4, func(t *testing.T, n *network) {
		h := n.host(t, 2)
		for i := range 6 {
			from, to := n.visit(t, h, 2)
			if i%2 == 1 {
				from, to = to, from
			}
			data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
			go func() {
				from.Write(data)
				from.Close()
			}()
			if i >= 3 { // all that can be there is, before anybody reads
				time.Sleep(time.Second)
			}
			got, err := io.ReadAll(to)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("read %d bytes of %d: %v", len(got), len(data), err)
			}
			to.Close()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n, _ := h.circuit.Streams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

func TestStreamsEndWithEitherCircuit(t *testing.T) {
	for name, end := range map[string]func(h *host, n *network){
		"the host's": func(h *host, n *network) { h.circuit.Close() },
		"all at the meeting relay": func(h *host, n *network) {
			m := n.meets[len(n.meets)-1]
			m.mu.Lock()
			side := m.known[h.token]
			m.mu.Unlock()
			side.c.Destroy(cell.Busy)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, 3, func(t *testing.T, n *network) {
				h := n.host(t, 1)
				there, here := n.visit(t, h, 1)
				echo(t, there, here)
				end(h, n)
				for _, c := range []*stream.Conn{there, here} {
					if _, err := c.Read(make([]byte, 1)); err == nil {
						t.Error("read something from a stream whose circuit is over")
					}
				}
				time.Sleep(time.Second)
				synctest.Wait()
				m := n.meets[len(n.meets)-1]
				if len(m.known) != 0 || m.budget.Used() != 0 {
					t.Errorf("%d tokens and %d records are left", len(m.known), m.budget.Used())
				}
			})
		})
	}
}

func TestTheNewestRegistrationWins(t *testing.T) {
	inMemory(t, 3, func(t *testing.T, n *network) {
		old := n.host(t, 1)
		young := n.host(t, 1)
		if err := young.circuit.Register(t.Context(), old.token[:]); err != nil {
			t.Fatal(err)
		}
		young.token, young.key = old.token, old.key
		there, here := n.visit(t, young, 1)
		echo(t, there, here)
		old.circuit.Close() // takes nothing away from the newer one
		time.Sleep(time.Second)
		there, here = n.visit(t, young, 1)
		echo(t, there, here)
	})
}

// TestACircuitStandsForAsLongAsItsOwnerRegisters: what has lapsed is forgotten,
// and makes room.
func TestACircuitStandsForAsLongAsItsOwnerRegisters(t *testing.T) {
	inMemory(t, 3, func(t *testing.T, n *network) {
		h := n.host(t, 1)
		there, here := n.visit(t, h, 1)
		for i := range 3 * maxTokens {
			time.Sleep(registered / 2)
			h.token = [cell.TokenSize]byte{1, byte(i)}
			if err := h.circuit.Register(t.Context(), h.token[:]); err != nil {
				t.Fatalf("REGISTER %d: %v", i, err)
			}
		}
		echo(t, there, here) // the stream of the first day
		there, here = n.visit(t, h, 1)
		echo(t, there, here)
		m := n.meets[len(n.meets)-1]
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.known) > 3 {
			t.Errorf("%d tokens are known", len(m.known))
		}
	})
}

func TestAnEmptyRegistrationIsRefusedAndTheCircuitStands(t *testing.T) {
	inMemory(t, 3, func(t *testing.T, n *network) {
		h := n.host(t, 1)
		if err := h.circuit.Register(t.Context(), nil); err == nil {
			t.Error("registered nothing")
		}
		there, here := n.visit(t, h, 1)
		echo(t, there, here)
	})
}
