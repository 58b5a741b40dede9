package link

import (
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

func now() time.Time { return time.Now() }

const (
	quantum    = 4        // cells a circuit sends before the next one's turn
	freshCells = 16       // about 64 KiB: what a quiet circuit may send ahead of others
	freshShare = 10       // one cell in so many may be such
	freshQuiet = 16 << 10 // cells the link sends before a circuit that was silent counts as fresh again
)

// scheduler decides whose cell goes next: by turns over the sources that cells
// come from, then over the circuits of a source, quantum cells a turn; before
// them, for a small share of the link, circuits that were quiet. It is pure;
// the link's mutex guards it.
type scheduler struct {
	ring    []*source
	sources map[any]*source
	fresh   []*slot
	sent    uint64 // cells so far
	early   uint64 // of these, sent ahead of their turn
}

type source struct {
	key   any
	slots []*slot // those with frames, the first one's turn
	used  int     // cells of the present turn
}

// slot is a circuit's place in the scheduler.
type slot struct {
	source  any
	circuit *Circuit
	frames  []*cell.Frame
	head    int
	listed  bool // in its source's slots
	bonus   int  // cells it may still send ahead
	seen    uint64
	inFresh bool
}

func (s *slot) len() int { return len(s.frames) - s.head }

func (s *slot) pop() *cell.Frame {
	f := s.frames[s.head]
	s.frames[s.head] = nil
	s.head++
	if s.head == len(s.frames) {
		s.frames, s.head = s.frames[:0], 0
		if cap(s.frames) > 64 {
			s.frames = nil // an idle circuit holds no memory
		}
	}
	return f
}

func (s *scheduler) empty() bool { return len(s.ring) == 0 }

func (s *scheduler) push(c *slot, f *cell.Frame) {
	if c.head > 32 && c.head*2 > len(c.frames) {
		n := copy(c.frames, c.frames[c.head:])
		clear(c.frames[n:])
		c.frames, c.head = c.frames[:n], 0
	}
	c.frames = append(c.frames, f)
	if c.listed {
		return
	}
	c.listed = true
	if s.sources == nil {
		s.sources = make(map[any]*source)
	}
	src := s.sources[c.source]
	if src == nil {
		src = &source{key: c.source}
		s.sources[c.source] = src
		s.ring = append(s.ring, src)
	}
	src.slots = append(src.slots, c)
	if c.seen == 0 || s.sent-c.seen > freshQuiet {
		c.bonus = freshCells
	}
	if c.bonus > 0 && !c.inFresh {
		c.inFresh = true
		s.fresh = append(s.fresh, c)
	}
}

// next takes the frame whose turn it is, or nil.
func (s *scheduler) next() (*cell.Frame, *Circuit) {
	if len(s.ring) == 0 {
		return nil, nil
	}
	s.sent++
	if s.early*freshShare <= s.sent {
		for len(s.fresh) > 0 {
			c := s.fresh[0]
			if c.len() == 0 || c.bonus == 0 {
				c.inFresh = false
				s.fresh = s.fresh[1:]
				continue
			}
			c.bonus--
			if len(s.ring) > 1 || len(s.ring[0].slots) > 1 {
				s.early++
			}
			return s.take(c), c.circuit
		}
	}
	src := s.ring[0]
	c := src.slots[0]
	f := s.take(c)
	src.used++
	if src.used >= quantum && len(src.slots) > 0 {
		src.used = 0
		if src.slots[0] == c {
			src.slots = append(src.slots[1:], c)
		}
		if s.ring[0] == src {
			s.ring = append(s.ring[1:], src)
		}
	}
	return f, c.circuit
}

// take pops c's first frame and unlists what became empty.
func (s *scheduler) take(c *slot) *cell.Frame {
	f := c.pop()
	c.seen = s.sent
	if c.len() == 0 {
		s.unlist(c)
	}
	return f
}

func (s *scheduler) unlist(c *slot) {
	c.listed = false
	src := s.sources[c.source]
	for i, o := range src.slots {
		if o == c {
			src.slots = append(src.slots[:i], src.slots[i+1:]...)
			break
		}
	}
	if len(src.slots) > 0 {
		return
	}
	delete(s.sources, src.key)
	for i, o := range s.ring {
		if o == src {
			s.ring = append(s.ring[:i], s.ring[i+1:]...)
			return
		}
	}
}

// drop forgets c's frames.
func (s *scheduler) drop(c *slot) {
	for c.len() > 0 {
		c.pop().Free()
	}
	c.frames = nil
	if c.listed {
		s.unlist(c)
	}
}
