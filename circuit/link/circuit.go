package link

import (
	"fmt"
	"sync/atomic"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// Circuit is one circuit's end at one link.
type Circuit struct {
	link    *Link
	id      cell.ID
	answers bool // the other side opened it
	over    atomic.Bool

	handler Handler // set before the reader can see anything of c

	received uint64        // owned by the reader
	allowed  atomic.Uint64 // granted to the other side so far

	// guarded by link.mu
	open      []byte // CREATE or CREATED to send
	grant     uint64 // CREDIT to send, 0: none
	dying     bool   // DESTROY to send
	reason    cell.Reason
	dead      bool // DESTROY was queued: what still comes is dropped
	peerDead  bool // DESTROY came
	wasOpened bool // CREATED came
	signalled bool // in link.control
	queued    uint64
	sent      uint64
	credit    uint64
	slot      slot

	touched bool   // owned by writeLoop, under link.mu
	report  uint64 // owned by writeLoop
}

func newCircuit(l *Link, id cell.ID, source any) *Circuit {
	c := &Circuit{link: l, id: id, credit: Floor}
	c.slot.source = source
	c.slot.circuit = c
	c.allowed.Store(Floor)
	return c
}

// Link returns the link that c is on.
func (c *Circuit) Link() *Link { return c.link }

// SetHandler says who owns c: once, in accept, before it returns.
func (c *Circuit) SetHandler(h Handler) { c.handler = h }

// Create sends the CREATE of a circuit that Open made. The link keeps body.
func (c *Circuit) Create(body []byte) { c.start(body) }

// Created answers the CREATE that opened c. The link keeps body.
func (c *Circuit) Created(body []byte) { c.start(body) }

func (c *Circuit) start(body []byte) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if !c.dead {
		c.open = body
		c.link.signal(c)
	}
}

// Send queues f, which the link owns from here on, and reports whether credit
// and life allowed it; a frame that was not sent is freed too.
func (c *Circuit) Send(f *cell.Frame) bool {
	cell.Header{Circuit: c.id, Command: cell.Data}.Put(f[:])
	l := c.link
	l.mu.Lock()
	if c.dead || l.err != nil || c.queued >= c.credit {
		l.mu.Unlock()
		f.Free()
		return false
	}
	c.queued++
	l.sched.push(&c.slot, f)
	l.mu.Unlock()
	l.wake.Signal()
	return true
}

// Room returns how many more cells may be sent now.
func (c *Circuit) Room() uint64 {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.dead {
		return 0
	}
	return c.credit - c.queued
}

// Grant allows the other side total cells in all. A smaller total than before
// is no change.
func (c *Circuit) Grant(total uint64) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.dead || total <= c.allowed.Load() {
		return
	}
	c.allowed.Store(total)
	c.grant = total
	c.link.signal(c)
}

// Destroy ends c on this side and tells the neighbour why. The handler hears
// nothing more of it. What is queued is dropped.
func (c *Circuit) Destroy(r cell.Reason) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.destroy(r)
}

// destroy is Destroy for a caller that holds link.mu.
func (c *Circuit) destroy(r cell.Reason) {
	if c.dead {
		return
	}
	c.over.Store(true)
	c.dead, c.dying, c.reason, c.grant = true, true, r, 0
	c.link.sched.drop(&c.slot)
	c.link.signal(c)
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
		c.open = nil
	}
	if c.grant != 0 {
		b = cell.AppendCredit(b, c.id, c.grant)
		c.grant = 0
	}
	if c.dying {
		c.dying = false
		b = cell.AppendDestroy(b, c.id, c.reason)
		if c.peerDead {
			c.link.forget(c)
		}
	}
	return b
}

// forget drops the id of a circuit that both sides have ended. Caller holds mu.
func (l *Link) forget(c *Circuit) {
	delete(l.circuits, c.id)
	if len(l.circuits) == 0 {
		l.idleFrom = now()
	}
}

// receive takes a cell on the reader.
func (c *Circuit) receive(f *cell.Frame) error {
	c.received++
	if c.received > c.allowed.Load() {
		f.Free()
		if c.over.Load() {
			return fmt.Errorf("link: circuit %d, already destroyed, sends more than it may", c.id)
		}
		c.abort(cell.Overrun)
		return nil
	}
	if c.over.Load() {
		f.Free()
		return nil
	}
	c.handler.Cell(f)
	return nil
}

// abort ends c for what the neighbour did, and tells the handler.
func (c *Circuit) abort(r cell.Reason) {
	c.link.mu.Lock()
	was := c.dead
	c.destroy(r)
	c.link.mu.Unlock()
	if !was {
		c.handler.Destroyed(r)
	}
}

func (c *Circuit) created(b []byte) error {
	c.link.mu.Lock()
	bad := c.answers || c.wasOpened
	c.wasOpened = true
	dead := c.dead
	c.link.mu.Unlock()
	switch {
	case dead:
	case bad:
		c.abort(cell.Protocol)
	default:
		c.handler.Created(b)
	}
	return nil
}

func (c *Circuit) credited(total uint64) error {
	c.link.mu.Lock()
	bad := total < c.credit
	if !bad {
		c.credit = total
	}
	dead := c.dead
	c.link.mu.Unlock()
	switch {
	case dead:
	case bad:
		c.abort(cell.Protocol)
	default:
		c.handler.Credit(total)
	}
	return nil
}

// destroyed takes the neighbour's DESTROY, and answers it when this side has not sent one.
func (c *Circuit) destroyed(r cell.Reason) {
	c.link.mu.Lock()
	was := c.dead
	c.peerDead = true
	if was {
		if !c.dying {
			c.link.forget(c)
		}
	} else {
		c.destroy(cell.OK)
	}
	c.link.mu.Unlock()
	if !was {
		c.handler.Destroyed(r)
	}
}

// end tells the handler that the link died under c.
func (c *Circuit) end(r cell.Reason) {
	c.link.mu.Lock()
	was := c.dead
	c.dead = true
	c.link.sched.drop(&c.slot)
	c.link.mu.Unlock()
	c.over.Store(true)
	if !was && c.handler != nil {
		c.handler.Destroyed(r)
	}
}
