package relay

import (
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// half is one stream on one side. Records that came on the other side wait
// here for room on this one.
type half struct {
	side    *side
	id      uint32
	far     *half // its other half
	visited bool  // side is the registered one

	// guarded by side.mu
	answered bool      // OPENED has come or gone
	live     bool      // in side.streams
	say      cell.Verb // OPEN or OPENED, to tell the owner; 0: nothing
	body     []byte    // its body
	allow    uint64    // ALLOW to tell the owner: what may come to far; 0: none
	ending   cell.Verb // CLOSE or REFUSED, to tell behind all records; 0: none
	reason   cell.Reason
	queue    link.Queue
	control  int // control records in queue
	inUrgent entry
	inBulk   entry

	// What far's owner may send to queue, guarded by side.mu.
	win      window.Window
	received uint64 // data records
	taken    uint64 // of these, moved on to side's circuit
}

func (h *half) openWindow() (ok bool) {
	h.win, ok = window.Open(&link.Cells, h.side.m.budget)
	return ok
}

// widen returns what the far side's owner may send at once, now that both are
// there; 0: no more than the floor. Caller holds side.mu.
func (h *half) widen() (total uint64) {
	total, _ = h.win.Widen(0, 1<<63)
	return total
}

// drop forgets h and what waits on it.
func (h *half) drop() {
	h.side.mu.Lock()
	defer h.side.mu.Unlock()
	h.dropped()
}

// dropped is drop for a caller that holds side.mu.
func (h *half) dropped() {
	if !h.live {
		return
	}
	s := h.side
	h.live = false
	if !h.visited {
		s.own--
	}
	switch {
	case h.answered:
	case h.visited:
		s.halfOpen--
	default:
		s.opening--
	}
	h.win.Close()
	h.queue.Clear()
	h.body = nil
	s.urgent.remove(&h.inUrgent)
	s.bulk.remove(&h.inBulk)
	delete(s.streams, h.id)
}

// finish has h's owner told that the stream is over, behind what waits.
func (h *half) finish(v cell.Verb, r cell.Reason) {
	s := h.side
	s.mu.Lock()
	if h.ending == 0 {
		h.ending, h.reason, h.allow = v, r, 0
		if h.say == cell.Open { // it has not heard of the stream yet
			h.dropped()
		} else if h.live && h.queue.Len() == 0 {
			s.want(&s.urgent, &h.inUrgent, h)
		}
	}
	s.mu.Unlock()
	s.pump()
}

// take puts a record into h's queue, and reports whether it was allowed to come.
func (h *half) take(f *cell.Frame, control bool) bool {
	s := h.side
	s.mu.Lock()
	defer s.mu.Unlock()
	if !control {
		h.received++
	}
	switch {
	case !control && h.received > h.win.Granted(), control && h.control >= maxControl:
		f.Free()
		return false
	case !h.live || h.ending != 0:
		f.Free()
		return true
	}
	if control {
		h.control++
	} else if h.win.Timed(h.received) {
		h.win.Received(h.received, window.Clock())
	}
	cell.PutStream(f.Body()[:], h.id)
	h.queue.Push(f)
	s.want(&s.bulk, &h.inBulk, h)
	return true
}
