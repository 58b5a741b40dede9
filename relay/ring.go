package relay

// ring is halves that wait for their turn.
type ring struct{ head *entry }

// entry is a half's place in a ring; h is nil while it has none.
type entry struct {
	h          *half
	next, prev *entry
}

func (r *ring) empty() bool { return r.head == nil }

// first returns the half whose turn it is, or nil.
func (r *ring) first() *half {
	if r.head == nil {
		return nil
	}
	return r.head.h
}

// turn makes it the next one's turn.
func (r *ring) turn() { r.head = r.head.next }

// add puts h, whose place is e, at the end, unless it is there.
func (r *ring) add(e *entry, h *half) {
	if e.h != nil {
		return
	}
	e.h = h
	if r.head == nil {
		r.head, e.next, e.prev = e, e, e
		return
	}
	e.next, e.prev = r.head, r.head.prev
	e.prev.next, e.next.prev = e, e
}

// remove takes out whom e is the place of, if it is there.
func (r *ring) remove(e *entry) {
	if e.h == nil {
		return
	}
	if e.next == e {
		r.head = nil
	} else {
		if r.head == e {
			r.head = e.next
		}
		e.prev.next, e.next.prev = e.next, e.prev
	}
	*e = entry{}
}
