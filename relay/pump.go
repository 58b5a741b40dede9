package relay

import (
	"encoding/binary"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/stream"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// want has pump look at h. Caller holds mu.
func (s *side) want(r *ring, e *entry, h *half) {
	r.add(e, h)
	s.waits.Store(true)
}

// allowance is an ALLOW to tell a half's owner.
type allowance struct {
	to    *half
	total uint64
}

// pump sends what waits and may go now: messages first, then a record of each
// stream in turn.
func (s *side) pump() {
	for {
		var allow [16]allowance
		s.mu.Lock()
		s.tell()
		n := s.send(allow[:])
		s.waits.Store(!s.urgent.empty() || !s.bulk.empty())
		s.mu.Unlock()
		for _, a := range allow[:n] {
			a.to.allowed(a.total)
		}
		if n < len(allow) {
			s.c.Flush()
			return
		}
	}
}

// allowed has h's owner told how many records may come.
func (h *half) allowed(total uint64) {
	s := h.side
	s.mu.Lock()
	if h.live && h.ending == 0 {
		h.allow = max(h.allow, total)
		s.want(&s.urgent, &h.inUrgent, h)
		s.tell()
	}
	s.mu.Unlock()
	s.c.Flush()
}

// tell sends messages while there is room. Caller holds mu.
func (s *side) tell() {
	for h := s.urgent.first(); h != nil; h = s.urgent.first() {
		if !h.tell() {
			return
		}
		s.urgent.remove(&h.inUrgent)
	}
}

// tell sends what h's owner is to hear, and reports whether there was room for
// all of it. Caller holds side.mu.
func (h *half) tell() bool {
	c := h.side.c
	if h.say != 0 {
		if !c.SendControl(cell.Message{Stream: h.id, Verb: h.say, Body: h.body}) {
			return false
		}
		h.say, h.body = 0, nil
	}
	if h.allow != 0 {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], h.allow)
		if !c.SendControl(cell.Message{Stream: h.id, Verb: cell.Allow, Body: b[:]}) {
			return false
		}
		h.allow = 0
	}
	if h.ending != 0 && h.queue.Len() == 0 {
		if !c.SendControl(cell.Message{Stream: h.id, Verb: h.ending, Body: []byte{byte(h.reason)}}) {
			return false
		}
		h.side.strays += maxStrays
		h.dropped()
	}
	return true
}

// send sends records while there is room, and notes in allow what their
// senders may send on. Caller holds mu.
func (s *side) send(allow []allowance) (n int) {
	for n < len(allow) {
		h := s.bulk.first()
		if h == nil {
			break
		}
		f := h.queue.Front()
		m, _ := cell.ParseMessage(f.Body()[:cell.Payload])
		control, reserve := len(m.Body) == stream.ControlSize, cell.Reserve
		if control {
			reserve = 0
		}
		if !s.c.Send(f, reserve) {
			break
		}
		h.queue.Pop()
		s.bulk.turn()
		if control {
			h.control--
		} else {
			h.taken++
			if total, ok := h.win.Grant(h.taken, 1<<63, window.Clock); ok {
				allow[n] = allowance{h.far, total}
				n++
			}
		}
		if h.queue.Len() == 0 {
			s.bulk.remove(&h.inBulk)
			if h.ending != 0 {
				s.want(&s.urgent, &h.inUrgent, h)
				s.tell()
			}
		}
	}
	return n
}

// Room implements hop.Last.
func (s *side) Room() {
	if s.waits.Load() {
		s.pump()
	}
}
