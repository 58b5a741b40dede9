package link

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// The states of a circuit.
const (
	building uint32 = iota // CREATED has not come, or not been queued
	standing
	over
)

// maxQueued is how many cells of one circuit Room lets wait for the link's
// writer: two writes and what is being written.
const maxQueued = 48

// Circuit is one circuit's end at one link. Its methods may be called from any
// goroutine.
type Circuit struct {
	link    *Link
	id      cell.ID // 0 until Open, on a circuit of this side's
	answers bool    // the other side opened it
	state   atomic.Uint32

	handler Handler // guarded by link.mu until c stands, then fixed

	received atomic.Uint64 // cells; only the reader writes it
	allowed  atomic.Uint64 // granted to the other side so far; written under link.mu

	// guarded by link.mu
	open      []byte // CREATE or CREATED to send
	opened    bool   // it has gone: DATA may follow
	grant     uint64 // CREDIT to send, 0: none
	dying     bool   // DESTROY to send
	reason    cell.Reason
	peerDead  bool // DESTROY came
	signalled bool // in link.control
	queued    uint64
	sent      uint64
	credit    uint64
	slot      slot
	source    any   // of a circuit that is not open yet
	early     Queue // cells sent before CREATED has gone

	fed     bool   // in link.fed; owned by readLoop
	meter   meter  // owned by readLoop
	touched bool   // guarded by link.mu
	report  uint64 // owned by whoever writes
}

func newCircuit(l *Link, id cell.ID) *Circuit {
	c := &Circuit{link: l, id: id, credit: Floor}
	c.slot.circuit = c
	c.allowed.Store(Floor)
	return c
}

// Link returns the link that c is on.
func (c *Circuit) Link() *Link { return c.link }

// NewCircuit returns a circuit of this side's that is not open yet. Source says
// what source is.
func (l *Link) NewCircuit(source any) *Circuit {
	c := newCircuit(l, 0)
	c.source = source
	return c
}

// Open sends the CREATE of a circuit that NewCircuit made; h owns it from here
// on, and the link keeps create. After an error h hears nothing.
func (c *Circuit) Open(h Handler, create []byte) error {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil || l.circuits == nil || c.state.Load() == over:
		return ErrClosed
	case l.crowded() || len(l.circuits) >= maxCircuits:
		return fmt.Errorf("link: %d circuits are open, at most %d", len(l.circuits), maxCircuits)
	case !l.dialled:
		return errors.New("link: only who dialled it opens circuits")
	case l.lastID == 1<<32-1:
		return errors.New("link: circuit ids are used up")
	}
	l.lastID++ // under the lock that orders control frames: ids go out ascending
	c.id, c.handler, c.open = l.lastID, h, create
	l.circuits[c.id] = c
	l.sched.join(&c.slot, c.source)
	l.signal(c)
	return nil
}

// Handle says who owns a circuit that the other side opened, once and before
// Created. It reports false when the circuit is over: h hears nothing then.
func (c *Circuit) Handle(h Handler) bool {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.state.Load() == over {
		return false
	}
	c.handler = h
	return true
}

// Source says which neighbour's cells are sent on c: circuits of one source
// share its turns. Nil is a source too. It must not be called once c carries
// cells.
func (c *Circuit) Source(key any) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.state.Load() != over && c.slot.cells.Len() == 0 {
		c.link.sched.leave(&c.slot)
		c.link.sched.join(&c.slot, key)
	}
}

// Created answers the CREATE that opened c, which stands from then on. The
// link keeps body. A failure is answered by Created, too, and then Destroy.
func (c *Circuit) Created(body []byte) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.state.CompareAndSwap(building, standing) {
		c.open = body
		c.link.signal(c)
	}
}

// Send sends f, which the link owns from here on, and reports whether credit
// and life allowed it; a frame that was not sent is freed too.
func (c *Circuit) Send(f *cell.Frame) bool {
	ok := c.Queue(f)
	c.Flush()
	return ok
}

// Queue is Send for whoever has more to send at once: f waits for Flush, on any
// circuit of the link. Cells that go out one by one cost several times more.
func (c *Circuit) Queue(f *cell.Frame) bool {
	cell.Header{Circuit: c.id, Command: cell.Data}.Put(f[:])
	l := c.link
	l.mu.Lock()
	if c.state.Load() == over || l.err != nil || c.queued >= c.credit {
		l.mu.Unlock()
		f.Free()
		return false
	}
	c.queued++
	if !c.opened {
		c.early.Push(f)
		l.mu.Unlock()
		return true
	}
	l.sched.push(&c.slot, f)
	l.mu.Unlock()
	return true
}

// Flush sends what Queue took. It does not block, but takes the time of a
// write, and calls Handler.Sent: the caller holds no lock that this could need.
func (c *Circuit) Flush() { c.link.flushOut() }

// Room returns how many more cells whoever makes them may send now: what the
// other side allows, and not more than the link's writer is about to need.
// Handler.Sent and Handler.Credit say that it has grown. Whoever only passes
// cells on is bounded by his own Window, and asks Send.
func (c *Circuit) Room() int {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.state.Load() == over {
		return 0
	}
	return int(min(c.credit-c.queued, maxQueued-min(c.queued-c.sent, maxQueued)))
}

// Grant allows the other side total cells in all. A smaller total than before
// is no change.
func (c *Circuit) Grant(total uint64) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.state.Load() == over || total <= c.allowed.Load() {
		return
	}
	c.allowed.Store(total)
	c.grant = total
	c.link.signal(c)
}

// Destroy ends c on this side and tells the neighbour why. The handler hears
// nothing more of it but what was under way. What is queued is dropped.
func (c *Circuit) Destroy(r cell.Reason) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.destroy(r)
}

// destroy is Destroy for a caller that holds link.mu. It reports whether c was alive.
func (c *Circuit) destroy(r cell.Reason) bool {
	if c.state.Swap(over) == over {
		return false
	}
	c.release()
	switch {
	case c.id == 0: // never opened
	case !c.answers && !c.opened: // its CREATE need not go either
		c.open = nil
		c.link.forget(c)
	default:
		c.dying, c.reason, c.grant = true, r, 0
		c.link.signal(c)
	}
	return true
}

// release gives back what a circuit that is over holds. Caller holds link.mu.
func (c *Circuit) release() {
	c.link.sched.leave(&c.slot)
	c.early.Clear()
}

// appendControl appends the frames that c wants sent. Caller holds link.mu.
func (c *Circuit) appendControl(b []byte) []byte {
	c.signalled = false
	if c.open != nil {
		command := cell.Create
		if c.answers {
			command = cell.Created
		}
		b = cell.AppendFrame(b, cell.Header{Circuit: c.id, Command: command}, c.open)
		c.open, c.opened = nil, true
		for f := c.early.Pop(); f != nil; f = c.early.Pop() {
			c.link.sched.push(&c.slot, f)
		}
	}
	if c.grant != 0 && c.opened { // what is granted before CREATED follows it
		b = cell.AppendCredit(b, c.id, c.grant)
		c.grant = 0
	}
	if c.dying {
		c.dying = false
		b = cell.AppendDestroy(b, c.id, c.reason)
		c.link.bury(c)
	}
	return b
}

// receive takes a cell on the reader. An error closes the link.
func (c *Circuit) receive(b *[cell.Size]byte) error {
	n := c.received.Load() + 1
	c.received.Store(n)
	state := c.state.Load()
	switch {
	case n > c.allowed.Load():
		if state == over {
			return fmt.Errorf("link: circuit %d, already destroyed, sends more than it may", c.id)
		}
		c.abort(cell.Overrun)
	case state == building:
		c.abort(cell.Protocol)
	case state != over:
		c.handler.Cell(b)
	}
	return nil
}

// abort ends c for what the neighbour did, and tells the handler.
func (c *Circuit) abort(r cell.Reason) {
	c.link.mu.Lock()
	was, h := c.destroy(r), c.handler
	c.link.mu.Unlock()
	if was && h != nil {
		h.Destroyed(r)
	}
}

// created takes CREATED on the reader.
func (c *Circuit) created(b []byte) {
	if c.answers || !c.state.CompareAndSwap(building, standing) {
		c.abort(cell.Protocol)
		return
	}
	c.handler.Created(b)
}

// credited takes CREDIT on the reader.
func (c *Circuit) credited(total uint64) {
	c.link.mu.Lock()
	good := c.state.Load() == standing && total > c.credit
	if good {
		c.credit = total
	}
	c.link.mu.Unlock()
	if good {
		c.handler.Credit(total)
	} else {
		c.abort(cell.Protocol)
	}
}

// destroyed takes the neighbour's DESTROY, which is answered when this side
// has not sent one.
func (c *Circuit) destroyed(r cell.Reason) {
	c.link.mu.Lock()
	c.peerDead = true
	delete(c.link.ghosts, c.id) // should this side's have gone since c was found
	was, h := c.destroy(cell.OK), c.handler
	c.link.mu.Unlock()
	if was && h != nil {
		h.Destroyed(r)
	}
}

// end tells the handler that the link died under c.
func (c *Circuit) end(r cell.Reason) {
	c.link.mu.Lock()
	was := c.state.Swap(over) != over
	h := c.handler
	c.release()
	c.link.mu.Unlock()
	if was && h != nil {
		h.Destroyed(r)
	}
}
