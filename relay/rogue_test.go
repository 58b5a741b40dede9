package relay

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/stream"
)

// rogue is the owner of a circuit, who sends what it likes.
type rogue struct {
	t      testing.TB
	c      *link.Circuit
	sealed sync.Mutex // held while layers seal

	mu      sync.Mutex
	intake  *link.Intake   // guarded by mu; nil: allows nothing
	pending *onion.Pending // guarded by mu
	layers  *onion.Circuit // guarded by mu; nil before CREATED
	err     error          // guarded by mu: of the handshake
	got     []cell.Message // guarded by mu
	over    bool           // guarded by mu
	reason  cell.Reason    // guarded by mu: of DESTROY
	changed chan struct{}  // guarded by mu
}

// rogue builds a circuit over so many relays and the last.
func (n *network) rogue(t testing.TB, own int, early []byte) *rogue {
	t.Helper()
	r := n.knock(t, append(append([]path.Relay(nil), n.relays[:own]...), n.meet()), early)
	r.waits("CREATED", func() bool { return r.layers != nil })
	return r
}

// knock sends CREATE.
func (n *network) knock(t testing.TB, way []path.Relay, early []byte) *rogue {
	t.Helper()
	hops := make([]onion.Hop, len(way))
	for i, r := range way {
		hops[i] = onion.Hop{ID: r.ID, Key: r.Key, Suite: r.Suite}
	}
	create, pending, err := onion.Wrap(hops, step(), early)
	if err != nil {
		t.Fatal(err)
	}
	r := &rogue{t: t, pending: pending, intake: link.NewIntake(nil), changed: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := n.links(t).Get(ctx, way[0].ID, way[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	r.c = l.NewCircuit(nil)
	if err := r.c.Open(r, create); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rogue) note(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *rogue) Created(b []byte)          { r.note(func() { r.layers, r.err = r.pending.Finish(b) }) }
func (r *rogue) Flush()                    {}
func (r *rogue) Credit(uint64)             { r.note(func() {}) }
func (r *rogue) Sent(uint64)               { r.note(func() {}) }
func (r *rogue) Destroyed(why cell.Reason) { r.note(func() { r.over, r.reason = true, why }) }

func (r *rogue) Cell(b *[cell.Size]byte) {
	var x [cell.Size]byte
	r.note(func() {
		if err := r.layers.Open(&x, b); err != nil {
			r.t.Error(err)
			return
		}
		m, err := cell.ParseMessage(x[:cell.Payload])
		if err != nil {
			r.t.Error(err)
		}
		m.Body = bytes.Clone(m.Body)
		r.got = append(r.got, m)
		if r.intake != nil {
			r.intake.Arrived(r.c)
		}
	})
}

// mute has r allow nothing more.
func (r *rogue) mute() { r.note(func() { r.intake = nil }) }

// waits waits until ok, which is called with r locked.
func (r *rogue) waits(what string, ok func() bool) {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		if ok() {
			r.mu.Unlock()
			return
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-timeout:
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("waited in vain for %s; over: %v (%v), handshake: %v, %d messages", what, r.over, r.reason, r.err, len(r.got))
		}
	}
}

// hears waits for a message that counts, and returns the first.
func (r *rogue) hears(what string, counts func(m cell.Message) bool) (m cell.Message) {
	r.t.Helper()
	r.waits(what, func() bool {
		for _, m = range r.got {
			if counts(m) {
				return true
			}
		}
		return false
	})
	return m
}

func (r *rogue) hearsVerb(v cell.Verb) cell.Message {
	r.t.Helper()
	return r.hears(fmt.Sprint("verb ", v), func(m cell.Message) bool { return m.Verb == v })
}

// ends waits until the circuit is over.
func (r *rogue) ends() {
	r.t.Helper()
	r.waits("the end of the circuit", func() bool { return r.over })
}

// payload sends a whole payload as soon as there is credit.
func (r *rogue) payload(b []byte) {
	r.t.Helper()
	r.waits("credit", func() bool { return r.over || r.c.Room() > 0 })
	r.sealed.Lock()
	defer r.sealed.Unlock()
	f := cell.NewFrame()
	copy(f.Body()[:cell.Payload], b)
	r.layers.Seal(f.Body())
	r.c.Send(f)
}

func (r *rogue) send(stream uint32, v cell.Verb, body []byte) {
	r.t.Helper()
	b := make([]byte, cell.Payload)
	cell.Message{Stream: stream, Verb: v, Body: body}.Put(b)
	r.payload(b)
}

// open sends an OPEN to h and returns what completes the handshake.
func (r *rogue) open(id uint32, h *host) *stream.Initiator {
	r.t.Helper()
	i, body := h.opening(r.t)
	r.send(id, cell.Open, body)
	return i
}

// opening returns the body of an OPEN to h.
func (h *host) opening(t testing.TB) (*stream.Initiator, []byte) {
	t.Helper()
	k := h.call()
	i, m, err := stream.Initiate(k.Static, k.Remote, k.Prologue, k.Counter)
	if err != nil {
		t.Fatal(err)
	}
	return i, append(bytes.Clone(h.token[:]), m...)
}

// echo checks that a stream carries bytes both ways.
func echo(t testing.TB, a, b *stream.Conn) {
	t.Helper()
	for _, way := range [][2]*stream.Conn{{a, b}, {b, a}} {
		go way[0].Write([]byte("still here"))
		got := make([]byte, 10)
		way[1].SetReadDeadline(time.Now().Add(patience))
		for n := 0; n < len(got); {
			k, err := way[1].Read(got[n:])
			if err != nil {
				t.Fatalf("the stream beside is broken: %v", err)
			}
			n += k
		}
		if string(got) != "still here" {
			t.Fatalf("the stream beside brings %q", got)
		}
	}
}
