package circuit

import (
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/stream"
)

// turnCells is how many records a stream that waited for room sends before
// those that wait behind it.
const turnCells = 4

// waiters are the streams that wait for room on the circuit, in order.
type waiters struct{ first, last *entry }

// place is an entry's place among them.
type place struct {
	in         bool
	next, prev *entry
}

func (w *waiters) add(e *entry) {
	if e.place.in {
		return
	}
	e.place = place{in: true, prev: w.last}
	if w.last == nil {
		w.first = e
	} else {
		w.last.place.next = e
	}
	w.last = e
}

// addFirst is add for a stream whose turn it is still.
func (w *waiters) addFirst(e *entry) {
	if e.place.in {
		return
	}
	e.place = place{in: true, next: w.first}
	if w.first == nil {
		w.last = e
	} else {
		w.first.place.prev = e
	}
	w.first = e
}

func (w *waiters) remove(e *entry) {
	if !e.place.in {
		return
	}
	p := e.place
	if p.prev == nil {
		w.first = p.next
	} else {
		p.prev.place.next = p.next
	}
	if p.next == nil {
		w.last = p.prev
	} else {
		p.next.place.prev = p.prev
	}
	e.place = place{}
}

// roomChanged sends what waited for room and may go now.
func (c *Circuit) roomChanged() {
	c.mu.Lock()
	c.flush()
	c.mu.Unlock()
	c.slot.Flush()
}

// flush sends control messages, then wakes the first stream that waits, which
// once it has sent something wakes the next. Caller holds mu.
func (c *Circuit) flush() {
	for c.pending.Len() > 0 && c.may(0) {
		c.put(c.pending.Pop())
	}
	if e := c.waiters.first; e != nil && c.woken == nil && c.pending.Len() == 0 && c.may(cell.Reserve) {
		c.waiters.remove(e)
		c.woken = e
		if e.turn == 0 {
			e.turn = turnCells
		}
		e.look()
	}
	c.blocked.Store(c.pending.Len() > 0 || c.waiters.first != nil)
}

// may reports whether a cell may go that leaves reserve cells of credit.
// Caller holds mu.
func (c *Circuit) may(reserve int) bool {
	if c.over.Load() || c.layers == nil {
		return false
	}
	if c.room <= reserve {
		c.room = c.slot.Room()
	}
	return c.room > reserve
}

// put seals and queues f. Caller holds mu, knows of room, and has the link flushed.
func (c *Circuit) put(f *cell.Frame) {
	c.layers.Seal(f.Body())
	c.slot.Queue(f)
	c.room--
}

// control sends a message ahead of data, but behind what its stream has sent.
// It does not wait: what can't go yet is kept until there is credit. body
// appends the message's body; when that of a record is empty the stream is
// over, and nothing is sent.
func (c *Circuit) control(id uint32, verb cell.Verb, body func([]byte) []byte) error {
	stuck, err := c.enqueue(id, verb, body)
	c.slot.Flush()
	if stuck {
		c.fail(cell.Overrun)
		return ErrGone
	}
	return err
}

func (c *Circuit) enqueue(id uint32, verb cell.Verb, body func([]byte) []byte) (stuck bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() {
		return false, ErrGone
	}
	if c.pending.Len() >= maxPending {
		return true, nil
	}
	f := cell.NewFrame()
	payload := f.Body()[:cell.Payload]
	b := body(payload[cell.HeaderSize:cell.HeaderSize])
	if len(b) == 0 && verb == cell.Record {
		f.Free()
		return false, nil
	}
	cell.Message{Stream: id, Verb: verb, Body: b}.Put(payload)
	c.pending.Push(f)
	c.blocked.Store(true) // before room is looked at: what comes later is told of
	c.flush()
	return false, nil
}

// message is control for a body that is ready.
func (c *Circuit) message(m cell.Message) error {
	return c.control(m.Stream, m.Verb, func(b []byte) []byte { return append(b, m.Body...) })
}

// sender is the circuit under one stream.
type sender struct {
	c  *Circuit
	id uint32
	e  *entry
}

// Data implements stream.Sender.
func (s sender) Data(seal func([]byte) []byte, cancel <-chan struct{}) error {
	c := s.c
	for {
		c.mu.Lock()
		if c.over.Load() {
			c.mu.Unlock()
			return ErrGone
		}
		if s.ready() {
			s.put(seal)
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		s.Flush()
		select {
		case <-s.e.wake:
			continue
		case <-c.done:
			return ErrGone
		case <-cancel:
		}
		c.mu.Lock()
		c.waiters.remove(s.e)
		s.leave()
		c.mu.Unlock()
		return stream.ErrCancelled
	}
}

// ready reports whether a record may go now; if not, the stream is told when it
// is worth looking again. The caller holds c.mu.
func (s sender) ready() bool {
	c, e := s.c, s.e
	if e.sent >= e.allowed.Load() {
		s.leave()
		return false // ALLOW wakes it
	}
	first := c.waiters.first == nil && c.woken == nil || e.turn > 0
	if c.woken == e {
		c.woken = nil
	}
	if first && c.pending.Len() == 0 && c.may(cell.Reserve) {
		return true
	}
	if e.turn > 0 {
		c.waiters.addFirst(e)
	} else {
		c.waiters.add(e)
	}
	c.blocked.Store(true) // before room is looked at: what comes later is told of
	c.flush()
	return false
}

// leave gives up the stream's turn. The caller holds c.mu.
func (s sender) leave() {
	s.e.turn = 0
	if s.c.woken == s.e {
		s.c.woken = nil
	}
	s.c.flush()
}

// put seals and sends a record. The caller holds c.mu.
func (s sender) put(seal func([]byte) []byte) {
	c, e := s.c, s.e
	f := cell.NewFrame()
	payload := f.Body()[:cell.Payload]
	if b := seal(payload[cell.HeaderSize:cell.HeaderSize]); len(b) > 0 {
		cell.Message{Stream: s.id, Verb: cell.Record, Body: b}.Put(payload)
		c.put(f)
		e.sent++
	} else {
		f.Free() // the stream is over
	}
	e.turn = max(e.turn-1, 0)
	if c.waiters.first != nil {
		c.flush()
	}
}

// Flush implements stream.Sender.
func (s sender) Flush() { s.c.slot.Flush() }

// Control implements stream.Sender.
func (s sender) Control(seal func([]byte) []byte) error {
	return s.c.control(s.id, cell.Record, seal)
}

// Close implements stream.Sender.
func (s sender) Close(r cell.Reason) {
	s.c.control(s.id, cell.Close, func(b []byte) []byte { return append(b, byte(r)) })
	s.c.remove(s.id, straysOfStream)
}

// Go implements stream.Sender.
func (s sender) Go(f func()) { s.c.work.Go(f) }
