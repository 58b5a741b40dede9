package inbound

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/proxy/scrub"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// message returns a message of BEP 3, or of BEP 10 when body says so itself.
func message(id byte, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(body)))
	return append(append(b, id), body...)
}

// told is what a client hears that is told of the peer behind 198.18.7.7.
var told = message(20, "\x03d5:added6:\xc6\x12\x07\x07\x1a\xe17:added.f1:\x00e")

// ringing makes s's client one that no road but the last leads into, and whose
// bell is answered by answer. It returns how often the last road was taken.
func (s *sidecar) ringing(answer, last func(net.Conn)) *atomic.Int32 {
	road := func(accept func(net.Conn), n *atomic.Int32) Road {
		return func(context.Context, swarm.Client, swarm.Hash, netip.AddrPort) (swarm.Conn, error) {
			n.Add(1)
			a, b := pipe(0)
			go accept(b)
			return a, nil
		}
	}
	var n atomic.Int32
	s.desk.config.Bell, s.desk.config.Last = road(answer, new(atomic.Int32)), road(last, &n)
	return &n
}

// TestClientThatIsToldOfAPeerDialsHim shows what the client is told, by whom,
// and that its connection and the stream are joined.
func TestClientThatIsToldOfAPeerDialsHim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		b := newSidecar(t, n.join(great), nil)
		heard := make(chan error, 1)
		last := b.ringing(func(c net.Conn) {
			defer c.Close()
			first := make([]byte, 68)
			io.ReadFull(c, first)
			if id := scrub.PeerID(great); first[25]&0x10 == 0 || string(first[48:]) != string(id[:]) {
				heard <- fmt.Errorf("the client hears %q", first)
				return
			}
			c.Write(hello(hash, 'B'))
			c.Write(have(1))
			c.Write(message(20, "\x00d1:md11:ut_metadatai2e6:ut_pexi3eee"))
			err := errors.Join(expect(c, message(20, "\x00d1:md6:ut_pexi1eee")), expect(c, told))
			client, e := b.dial(t.Context(), small)
			if e != nil {
				heard <- e
				return
			}
			client.Write(append(hello(hash, 'B'), have(2)...))
			heard <- errors.Join(err, expectHello(client), expect(client, have(3)), client.Close())
		}, func(net.Conn) {})
		start := time.Now()
		stream, err := n.join(small).Dial(t.Context(), great)
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(append(hello(hash, 'A'), have(3)...))
		if err := errors.Join(expectHello(stream), expect(stream, have(2)), <-heard); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("that took %v", took)
		}
		stream.Close()
		synctest.Wait()
		if last.Load() != 0 {
			t.Errorf("the client was dialled %d times", last.Load())
		}
		b.idle(t)
	})
}

// TestClientThatDoesNotDialIsDialled: at once when it can't be told, and after
// a moment when it could.
func TestClientThatDoesNotDialIsDialled(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(net.Conn)
		after  time.Duration
	}{
		"does not listen": {func(c net.Conn) { c.Close() }, 0},
		"takes no addresses": {listener('B', func(c net.Conn) {
			c.Write(message(20, "\x00d1:mdee"))
			io.Copy(io.Discard, c)
		}), 0},
		"does not heed them": {listener('B', func(c net.Conn) {
			c.Write(message(20, "\x00d1:md6:ut_pexi3eee"))
			io.Copy(io.Discard, c)
		}), bellWait},
		"says nothing": {func(c net.Conn) { io.Copy(io.Discard, c) }, bellWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				b := newSidecar(t, n.join(great), nil)
				last := b.ringing(c.answer, listener('B', func(c net.Conn) { c.Write(have(1)) }))
				start := time.Now()
				stream, err := n.join(small).Dial(t.Context(), great)
				if err != nil {
					t.Fatal(err)
				}
				stream.Write(hello(hash, 'A'))
				if err := errors.Join(expectHello(stream), expect(stream, have(1))); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took != c.after || last.Load() != 1 {
					t.Errorf("dialled %d times, after %v, want %v", last.Load(), took, c.after)
				}
				stream.Close()
				synctest.Wait()
				b.idle(t)
			})
		})
	}
}

// added returns what a client hears that is told of the peers behind
// 198.18.7.N.
func added(numbers ...byte) []byte {
	body := fmt.Sprintf("\x03d5:added%d:", 6*len(numbers))
	for _, n := range numbers {
		body += "\xc6\x12\x07" + string(n) + "\x1a\xe1"
	}
	return message(20, fmt.Sprintf("%s7:added.f%d:%se", body, len(numbers), make([]byte, len(numbers))))
}

// TestClientIsToldOfPeersThatWereLearnedOfLate: again when it can't be reached,
// of many at once, not of whom it has, and not too often.
func TestClientIsToldOfPeersThatWereLearnedOfLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		m := n.join(great)
		b := newSidecar(t, m, nil)
		start := time.Now()
		type ring struct {
			after time.Duration
			err   error
		}
		rings := make(chan ring, 10)
		want := [][]byte{nil, nil, added(5, 6), added(8, 9)}
		b.ringing(func(c net.Conn) {
			defer c.Close()
			after := time.Since(start)
			if want[0] == nil { // it looks at its files, and refuses MSE as well
				want = want[1:]
				return
			}
			first := make([]byte, 68)
			io.ReadFull(c, first)
			c.Write(hello(hash, 'B'))
			c.Write(message(20, "\x00d1:md6:ut_pexi3eee"))
			err := errors.Join(expect(c, message(20, "\x00d1:md6:ut_pexi1eee")), expect(c, want[0]))
			want = want[1:]
			rings <- ring{after, err}
			io.Copy(io.Discard, c)
		}, func(net.Conn) {})
		n.join(small)
		has, err := b.dial(t.Context(), small)
		if err != nil {
			t.Fatal(err)
		}
		defer has.Close()
		m.later <- []swarm.Key{{5}, small, {6}}
		first := <-rings
		m.later <- []swarm.Key{{8}, {9}}
		second := <-rings
		if err := errors.Join(first.err, second.err); err != nil {
			t.Error(err)
		}
		if first.after > 10*time.Second || second.after-first.after < laterPause {
			t.Errorf("told after %v and %v", first.after, second.after)
		}
	})
}

// TestClientThatTakesNoAddressesIsToldOfNoLatePeers, and asked once only.
func TestClientThatTakesNoAddressesIsToldOfNoLatePeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(network).join(great)
		b := newSidecar(t, m, nil)
		var rings atomic.Int32
		b.ringing(listener('B', func(c net.Conn) {
			rings.Add(1)
			c.Write(message(20, "\x00d1:mdee"))
			if heard, _ := io.ReadAll(c); !bytes.Equal(heard, message(20, "\x00d1:md6:ut_pexi1eee")) {
				t.Errorf("the client hears %q", heard)
			}
		}), func(net.Conn) {})
		m.later <- []swarm.Key{{5}}
		time.Sleep(time.Minute)
		if n := rings.Load(); n != 1 {
			t.Errorf("the bell rang %d times", n)
		}
	})
}

func TestPEXNumber(t *testing.T) {
	long := binary.BigEndian.AppendUint32(nil, 1<<32-1)
	for name, c := range map[string]struct {
		said string
		want byte
	}{
		"at once":              {string(message(20, "\x00d1:md6:ut_pexi7eee")), 7},
		"after other messages": {string(make([]byte, 4)) + string(message(5, "bits")) + string(message(20, "\x01x")) + string(message(1, "")) + string(message(20, "\x00d1:md6:ut_pexi255eee")), 255},
		"zero":                 {string(message(20, "\x00d1:md6:ut_pexi0eee")), 0},
		"no byte":              {string(message(20, "\x00d1:md6:ut_pexi256eee")), 0},
		"a word":               {string(message(20, "\x00d1:md6:ut_pex1:7ee")), 0},
		"no m":                 {string(message(20, "\x00de")), 0},
		"no bencoding":         {string(message(20, "\x00hello")), 0},
		"the end":              {"", 0},
		"too long a handshake": {string(message(20, "\x00d1:md6:ut_pexi7ee1:v70000:"+string(make([]byte, 70000))+"e")), 0},
		"too long a message":   {string(long) + string(make([]byte, 1<<20)), 0},
	} {
		got, err := pexNumber(bytes.NewReader([]byte(c.said)))
		if got != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%s: pexNumber = %d, %v, want %d", name, got, err, c.want)
		}
	}
}

// TestPEXNumberReadsOnlySoMuch: a client that never says it is left.
func TestPEXNumberReadsOnlySoMuch(t *testing.T) {
	r := &endless{message: message(5, string(make([]byte, 1<<20)))}
	if _, err := pexNumber(r); err != errNoPEX || r.read > 2*maxSaidBefore {
		t.Errorf("%v after %d bytes", err, r.read)
	}
}

type endless struct {
	message []byte
	read    int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.message[e.read%len(e.message):])
	e.read += n
	return n, nil
}
