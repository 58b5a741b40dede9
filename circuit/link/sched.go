package link

import (
	"sync/atomic"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

const (
	quantum     = 4                       // cells a source, and in it a circuit, sends before the next one's turn
	sparseCells = 64 << 10 / cell.Payload // what a circuit may send ahead of others at once: 64 KiB
	sparseEvery = 4                       // it earns one of these for so many cells of others
	aheadShare  = 4                       // one cell in so many may be sent ahead
	aheadBank   = 64                      // cells sent ahead at once, after a time when none was
)

// scheduler decides whose cell goes next: by turns over the sources that cells
// come from, then over the circuits of a source, quantum cells a turn. All
// cells are of one size, so that turns of cells are turns of bytes. Before
// them, for a part of the link, go circuits that use little of it, as sparse
// flows do in FQ-CoDel (RFC 8290): one that never has more than a fifth of the
// cells waits for none of bulk's.
//
// Each call takes the same time whatever is open, and allocates nothing once
// warm. It is pure; the link's mutex guards it.
type scheduler struct {
	ring    *source // whose turn it is; only those with cells are in it
	sources map[any]*source
	ahead   *slot // the first of those that may go ahead
	own     atomic.Uint64
	shared  *atomic.Uint64 // counts the cells of all links of a limit; nil: own counts this one's
	bank    int            // what may be sent ahead now, in cells times aheadShare
}

// source is a neighbour that cells come from.
type source struct {
	key        any
	circuits   int     // that name it
	slots      *slot   // whose turn it is; only those with cells are in it
	used       int     // cells of the present turn
	next, prev *source // in the ring
}

// slot is a circuit's place in the scheduler. Empty, it holds no memory.
type slot struct {
	circuit    *Circuit
	src        *source
	cells      Queue
	next, prev *slot  // in its source's ring while it has cells
	bonus      int    // cells it may still send ahead
	seen       uint64 // sent, when its last cell went
	isAhead    bool   // it is in the list of those ahead
	after      *slot  // in that list
	before     *slot
}

// sent counts cells: those of the link, or of all that share its limit.
func (s *scheduler) sent() *atomic.Uint64 {
	if s.shared != nil {
		return s.shared
	}
	return &s.own
}

func (s *scheduler) empty() bool { return s.ring == nil }

// join gives c its source; before that it has no cells.
func (s *scheduler) join(c *slot, key any) {
	if s.sources == nil {
		s.sources = make(map[any]*source)
	}
	src := s.sources[key]
	if src == nil {
		src = &source{key: key}
		s.sources[key] = src
	}
	src.circuits++
	c.src, c.bonus = src, sparseCells
}

// leave drops c's cells and its source.
func (s *scheduler) leave(c *slot) {
	if c.src == nil {
		return
	}
	if c.cells.Len() > 0 {
		s.unlist(c)
		c.cells.Clear()
	}
	if c.src.circuits--; c.src.circuits == 0 {
		delete(s.sources, c.src.key)
	}
	c.src = nil
}

// push queues f behind c's other cells.
func (s *scheduler) push(c *slot, f *cell.Frame) {
	c.cells.Push(f)
	if c.cells.Len() == 1 {
		s.list(c)
	}
}

// next takes the cell whose turn it is, or nil.
func (s *scheduler) next() (*cell.Frame, *Circuit) {
	if s.ring == nil {
		return nil, nil
	}
	s.sent().Add(1)
	if s.hurries() {
		return s.first()
	}
	if s.bank < aheadBank*aheadShare {
		s.bank++
	}
	src := s.ring
	c := src.slots
	f := s.take(c)
	if src.used++; src.used < quantum || src.slots == nil {
		return f, c.circuit
	}
	src.used = 0
	if src.slots == c {
		src.slots = c.next
	}
	s.ring = src.next
	return f, c.circuit
}

// hurries reports whether the next cell is one that goes ahead.
func (s *scheduler) hurries() bool {
	return s.ahead != nil && (s.bank >= aheadShare || s.alone())
}

func (s *scheduler) alone() bool {
	return s.ring.next == s.ring && s.ring.slots.next == s.ring.slots
}

// first is next when that goes ahead.
func (s *scheduler) first() (*cell.Frame, *Circuit) {
	if !s.alone() {
		s.bank -= aheadShare
	}
	c := s.ahead
	s.ahead = c.after
	if c.bonus--; c.bonus == 0 {
		s.wait(c)
	}
	return s.take(c), c.circuit
}

// take pops c's first cell and unlists what became empty.
func (s *scheduler) take(c *slot) *cell.Frame {
	f := c.cells.Pop()
	c.seen = s.sent().Load()
	if c.cells.Len() == 0 {
		s.unlist(c)
	}
	return f
}

// list puts c, which has got cells, at the end of its source's ring.
func (s *scheduler) list(c *slot) {
	src := c.src
	if src.slots == nil {
		src.slots, c.next, c.prev = c, c, c
		src.used = 0
		s.listSource(src)
	} else {
		c.next, c.prev = src.slots, src.slots.prev
		c.prev.next, c.next.prev = c, c
	}
	c.bonus = int(min(uint64(c.bonus)+(s.sent().Load()-c.seen)/sparseEvery, sparseCells))
	if c.bonus > 0 {
		s.hurry(c)
	}
}

func (s *scheduler) listSource(src *source) {
	if s.ring == nil {
		s.ring, src.next, src.prev = src, src, src
		return
	}
	src.next, src.prev = s.ring, s.ring.prev
	src.prev.next, src.next.prev = src, src
}

// unlist takes c out of its source's ring, and its source out of the ring of
// sources when it was the last.
func (s *scheduler) unlist(c *slot) {
	s.wait(c)
	src := c.src
	if c.next != c {
		if src.slots == c {
			src.slots = c.next
		}
		c.prev.next, c.next.prev = c.next, c.prev
		c.next, c.prev = nil, nil
		return
	}
	src.slots, c.next, c.prev = nil, nil, nil
	if src.next == src {
		s.ring, src.next, src.prev = nil, nil, nil
		return
	}
	if s.ring == src {
		s.ring = src.next
	}
	src.prev.next, src.next.prev = src.next, src.prev
	src.next, src.prev = nil, nil
}

// hurry puts c at the end of those that may go ahead.
func (s *scheduler) hurry(c *slot) {
	c.isAhead = true
	if s.ahead == nil {
		s.ahead, c.after, c.before = c, c, c
		return
	}
	c.after, c.before = s.ahead, s.ahead.before
	c.before.after, c.after.before = c, c
}

// wait takes c out of those that may go ahead.
func (s *scheduler) wait(c *slot) {
	if !c.isAhead {
		return
	}
	c.isAhead = false
	if c.after == c {
		s.ahead, c.after, c.before = nil, nil, nil
		return
	}
	if s.ahead == c {
		s.ahead = c.after
	}
	c.before.after, c.after.before = c.after, c.before
	c.after, c.before = nil, nil
}
