package inbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/proxy/scrub"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// listener is a client that answers every handshake, and then gives what it
// hears to talk.
func listener(id byte, talk func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		if expectHello(c) != nil {
			return
		}
		c.Write(hello(hash, id))
		talk(c)
	}
}

// TestArrivedStreamIsGivenToTheClient shows the road, the rewritten peer ids,
// both directions, and that an end of file travels while the other direction
// goes on.
func TestArrivedStreamIsGivenToTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{delay: 100 * time.Millisecond}
		heard := make(chan error, 1)
		b := newSidecar(t, n.join(great), func(c net.Conn) {
			defer c.Close()
			first := make([]byte, 68)
			io.ReadFull(c, first)
			if id := scrub.PeerID(small); string(first[48:]) != string(id[:]) {
				heard <- fmt.Errorf("the client sees peer id %q", first[48:])
				return
			}
			c.Write(hello(hash, 'B'))
			c.Write(have(1))
			err := expect(c, have(2))
			if err == nil {
				err = expectEnd(c) // half of the connection
			}
			c.Write(have(3))
			heard <- err
		})
		a := n.join(small)
		stream, err := a.Dial(t.Context(), great)
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(append(hello(hash, 'A'), have(2)...))
		stream.CloseWrite()
		if err := errors.Join(expectHello(stream), expect(stream, have(1)), expect(stream, have(3)), expectEnd(stream), <-heard); err != nil {
			t.Error(err)
		}
		stream.Close()
		synctest.Wait()
		b.idle(t)
	})
}

func TestStreamThatIsNoPeersIsRefused(t *testing.T) {
	wrong := swarm.Hash{9}
	for name, c := range map[string]struct {
		says []byte
		want status.Reason
	}{
		"garbage":          {[]byte("GET / HTTP/1.1\r\n\r\n"), status.NotBitTorrent},
		"wrong swarm":      {hello(wrong, 'A'), status.WrongSwarm},
		"half a handshake": {hello(hash, 'A')[:30], status.Silent},
		"silence":          {nil, status.Silent},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				b := newSidecar(t, n.join(great), func(net.Conn) { t.Error("the client heard of it") })
				stream, err := n.join(small).Dial(t.Context(), great)
				if err != nil {
					t.Fatal(err)
				}
				stream.Write(c.says)
				if err := expectEnd(stream); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if b.count(c.want) != 1 {
					t.Errorf("counted %v, want %v", b.counts, c.want)
				}
				b.idle(t)
			})
		})
	}
}

func TestClientThatIsNoPeerSaysNothingToTheFarSide(t *testing.T) {
	for name, says := range map[string][]byte{"garbage": []byte("hello, this is no peer at all, but long enough to be one. hello, this is no peer"), "wrong swarm": hello(swarm.Hash{9}, 'A'), "half a handshake": hello(hash, 'A')[:60]} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				a, b := newSidecar(t, n.join(small), nil), n.join(great)
				client, err := a.dial(t.Context(), great)
				if err != nil {
					t.Fatal(err)
				}
				client.Write(says)
				_, stream, err := b.Accept(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := expectEnd(stream); err != nil {
					t.Error(err)
				}
				io.Copy(io.Discard, client) // to its end; MSE may have been tried
				synctest.Wait()
				a.idle(t)
			})
		})
	}
}

func TestStreamWaitsForTheClientsOwnDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{delay: 50 * time.Millisecond}
		b := newSidecar(t, n.join(great), nil)
		stream, err := n.join(small).Dial(t.Context(), great)
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(hello(hash, 'A'))
		time.Sleep(5 * time.Second)
		client, err := b.dial(t.Context(), small)
		if err != nil {
			t.Fatal(err)
		}
		client.Write(append(hello(hash, 'B'), have(1)...))
		if err := errors.Join(expectHello(client), expectHello(stream), expect(stream, have(1))); err != nil {
			t.Error(err)
		}
		if b.swarm.dial != 0 {
			t.Error("a second stream was opened")
		}
		stream.Close()
		if err := expectEnd(client); err != nil {
			t.Error(err)
		}
		client.Close()
		synctest.Wait()
		b.idle(t)
	})
}

func TestJoinNeedsTheSwarmsHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		b := newSidecar(t, n.join(great), nil)
		stream, err := n.join(small).Dial(t.Context(), great)
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(hello(hash, 'A'))
		synctest.Wait()
		stranger, err := b.dial(t.Context(), small)
		if err != nil {
			t.Fatal(err)
		}
		stranger.Write(hello(swarm.Hash{9}, 'X'))
		if err := expectEnd(stranger); err != nil {
			t.Error(err)
		}
		client, err := b.dial(t.Context(), small)
		if err != nil {
			t.Fatal(err)
		}
		client.Write(hello(hash, 'B'))
		if err := errors.Join(expectHello(client), expectHello(stream)); err != nil {
			t.Error(err)
		}
		stream.Close()
	})
}

// TestClientThatRefusesAtFirstIsTriedAgain: it may still be looking at its files.
func TestClientThatRefusesAtFirstIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		tries := 0
		newSidecar(t, n.join(great), func(c net.Conn) {
			defer c.Close()
			if tries++; tries > 4 && expectHello(c) == nil { // plain and MSE each
				c.Write(hello(hash, 'B'))
				io.Copy(io.Discard, c)
			}
		})
		stream, err := n.join(small).Dial(t.Context(), great)
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(hello(hash, 'A'))
		if err := expectHello(stream); err != nil {
			t.Error(err)
		}
		stream.Close()
	})
}

func TestStreamNobodyTakesIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		b := newSidecar(t, n.join(great), nil)
		stream, err := n.join(small).Dial(t.Context(), great)
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(hello(hash, 'A'))
		began := time.Now()
		if err := expectEnd(stream); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 21*time.Second {
			t.Errorf("it took %v", took)
		}
		synctest.Wait()
		if b.count(status.NoWayIn) != 1 {
			t.Errorf("counted %v", b.counts)
		}
		b.idle(t)
	})
}

// TestSimultaneousDialsBecomeOneStream has two clients dial each other, the
// second a bit later each time: whatever crosses whatever, both clients end up
// with one connection to each other, and neither hears a handshake twice.
func TestSimultaneousDialsBecomeOneStream(t *testing.T) {
	const delay = 100 * time.Millisecond
	for _, keys := range [][2]swarm.Key{{small, great}, {great, small}} {
		for late := time.Duration(0); late <= 6*delay; late += delay / 4 {
			t.Run(fmt.Sprintf("%x %v", keys[0][0], late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { tie(t, delay, late, keys) })
			})
		}
	}
}

func tie(t *testing.T, delay, late time.Duration, keys [2]swarm.Key) {
	n := &network{delay: delay}
	var roads atomic.Int32
	accept := func(id byte, tell chan<- net.Conn) func(net.Conn) {
		return func(c net.Conn) {
			roads.Add(1)
			if expectHello(c) == nil {
				c.Write(hello(hash, id))
				tell <- c
			}
		}
	}
	talkA, talkB := make(chan net.Conn, 10), make(chan net.Conn, 10)
	a := newSidecar(t, n.join(keys[0]), accept('A', talkA))
	b := newSidecar(t, n.join(keys[1]), accept('B', talkB))
	var wg sync.WaitGroup
	call := func(s *sidecar, peer swarm.Key, id byte, tell chan<- net.Conn) {
		wg.Go(func() {
			c, err := s.dial(t.Context(), peer)
			if err != nil {
				if !errors.Is(err, errBusy) {
					t.Error(err)
				}
				return
			}
			c.Write(hello(hash, id))
			if expectHello(c) == nil {
				tell <- c
			}
		})
	}
	call(a, keys[1], 'A', talkA)
	time.Sleep(late)
	call(b, keys[0], 'B', talkB)
	wg.Wait()
	time.Sleep(time.Minute)
	synctest.Wait()
	openA, openB := stillOpen(talkA), stillOpen(talkB)
	if len(openA) != 1 || len(openB) != 1 {
		t.Fatalf("the clients have %d and %d connections, by %d roads", len(openA), len(openB), roads.Load())
	}
	x, y := openA[0], openB[0]
	x.Write(have(1))
	y.Write(have(2))
	x.SetReadDeadline(time.Now().Add(time.Second))
	y.SetReadDeadline(time.Now().Add(time.Second))
	if err := errors.Join(expect(y, have(1)), expect(x, have(2))); err != nil {
		t.Error(err)
	}
	x.Close()
	y.Close()
	synctest.Wait()
	time.Sleep(time.Minute)
	a.idle(t)
	b.idle(t)
}

// stillOpen returns those of a client's connections that were not closed. A
// client that dials in the very moment in which it is dialled may have seen
// two for that moment.
func stillOpen(conns chan net.Conn) (open []net.Conn) {
	close(conns)
	for c := range conns {
		c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			open = append(open, c)
		} else {
			c.Close()
		}
	}
	return open
}

// TestFailedDialFallsBackToTheStreamHeldForIt: the peer's stream would have
// lost the tie, but mine never comes about.
func TestFailedDialFallsBackToTheStreamHeldForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{delay: time.Second}
		a := newSidecar(t, n.join(small), nil)
		b := n.join(great)
		a.swarm.fail = swarm.ErrUnreachable
		time.AfterFunc(1500*time.Millisecond, func() {
			client, err := a.dial(t.Context(), great) // fails a second later
			if err != nil {
				t.Error(err)
				return
			}
			client.Write(hello(hash, 'A'))
			if err := expectHello(client); err != nil {
				t.Error(err)
			}
			client.Close()
		})
		stream, err := b.Dial(t.Context(), small) // arrives after two
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(hello(hash, 'B'))
		if err := errors.Join(expectHello(stream), expectEnd(stream)); err != nil {
			t.Error(err)
		}
		stream.Close()
	})
}

func TestNewerStreamTakesThePlaceOfAnOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		var older atomic.Value
		newSidecar(t, n.join(great), listener('B', func(c net.Conn) {
			if older := older.Swap(c); older != nil {
				if _, err := older.(net.Conn).Write([]byte{0}); err == nil {
					t.Error("the client has two connections of one peer")
				}
			}
			io.Copy(io.Discard, c)
		}))
		a := n.join(small)
		first, err := a.Dial(t.Context(), great)
		if err != nil {
			t.Fatal(err)
		}
		first.Write(hello(hash, 'A'))
		if err := expectHello(first); err != nil {
			t.Fatal(err)
		}
		second, err := a.Dial(t.Context(), great)
		if err != nil {
			t.Fatal(err)
		}
		second.Write(hello(hash, 'A'))
		if err := errors.Join(expectEnd(first), expectHello(second)); err != nil {
			t.Error(err)
		}
		second.Close()
	})
}

func TestClientThatDialsAgainLosesTheOldConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		a, b := newSidecar(t, n.join(small), nil), newSidecar(t, n.join(great), listener('B', func(c net.Conn) { io.Copy(io.Discard, c) }))
		var last net.Conn
		for range 3 {
			c, err := a.dial(t.Context(), great)
			if err != nil {
				t.Fatal(err)
			}
			c.Write(hello(hash, 'A'))
			if err := expectHello(c); err != nil {
				t.Fatal(err)
			}
			if last != nil {
				if err := expectEnd(last); err != nil {
					t.Error(err)
				}
			}
			last = c
		}
		last.Close()
		synctest.Wait()
		a.idle(t)
		b.idle(t)
	})
}

func TestCallThatWasReplacedIsNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		a, b := newSidecar(t, n.join(small), nil), n.join(great)
		for range 2 { // the second finds a stream that waits for the client
			first, err := a.desk.Dial(t.Context(), a.client, a.swarm, great)
			if err != nil {
				t.Fatal(err)
			}
			second, err := a.desk.Dial(t.Context(), a.client, a.swarm, great)
			if err != nil {
				t.Fatal(err)
			}
			client, conn := pipe(0)
			go first.Serve(t.Context(), conn)
			if err := expectEnd(client); err != nil {
				t.Error(err)
			}
			second.Cancel()
			stream, err := b.Dial(t.Context(), small)
			if err != nil {
				t.Fatal(err)
			}
			stream.Write(hello(hash, 'B'))
			synctest.Wait()
		}
	})
}

func TestErrorsOfADialReachTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		a := newSidecar(t, n.join(small), nil)
		if _, err := a.dial(t.Context(), great); !errors.Is(err, swarm.ErrUnknownPeer) {
			t.Errorf("dial = %v, want %v", err, swarm.ErrUnknownPeer)
		}
		a.swarm.fail = swarm.ErrUnreachable
		if _, err := a.dial(t.Context(), great); !errors.Is(err, swarm.ErrUnreachable) {
			t.Errorf("dial = %v, want %v", err, swarm.ErrUnreachable)
		}
		n.delay = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.dial(ctx, great); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial = %v, want %v", err, context.DeadlineExceeded)
		}
		a.idle(t)
	})
}

func TestCancelledCallLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		a := newSidecar(t, n.join(small), nil)
		b := n.join(great)
		call, err := a.desk.Dial(t.Context(), a.client, a.swarm, great)
		if err != nil {
			t.Fatal(err)
		}
		call.Cancel()
		_, stream, err := b.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := expectEnd(stream); err != nil {
			t.Error(err)
		}
		a.idle(t)
	})
}

func TestWaitingStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		b := newSidecar(t, n.join(great), nil)
		for i := range maxWaiting + 10 {
			k := swarm.Key{3, byte(i), byte(i >> 8)}
			if _, err := n.join(k).Dial(t.Context(), great); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := b.count(status.Full); got != 10 {
			t.Errorf("%d were refused, want 10", got)
		}
		b.stop()
		b.idle(t)
	})
}
