package stream

import "time"

const (
	windowFloor = 64 << 10

	// windowCeiling carries 14 MB/s and more over a round trip of 300 ms: with
	// WINDOW sent when half is read, half of it is in use at the worst moment.
	windowCeiling = 8 << 20

	// slowReads is how many round trips the reading of half a window may take
	// before the window is found to be larger than its use.
	slowReads = 16
)

// window decides how much the far side may send. It doubles when it was the
// window that held the far side up: everything sent was read, and what was
// sent ends exactly at a limit that the far side was told, because there its
// last record was cut short. That happens at most once for each full window,
// and not when the reader is slow (then something is left to read) nor when
// the circuit is (then nothing was cut). It halves when half of it takes the
// reader many round trips, or when the budget runs short.
//
// Offsets are bytes of data since the stream began.
type window struct {
	size     uint64 // how far beyond read the limit goes
	limit    uint64 // offset up to which the far side may send
	edge     uint64 // the limit before this one
	full     uint64 // no growth before this much was read
	received uint64
	read     uint64

	told    time.Time     // when the far side was told limit
	since   time.Time     // when this half of a window began
	stalled time.Time     // when the far side was told what ends its stall; zero when there is none
	trip    time.Duration // round trip, as the last stall measured it
}

// room is where growth comes from: the Budget.
type room interface {
	grow(from uint64) bool  // from doubles
	shrink(from uint64)     // from halves
	tight(size uint64) bool // a window of this size should halve
}

func newWindow(now time.Time) window {
	return window{size: windowFloor, limit: windowFloor, full: windowFloor, told: now, since: now}
}

// receive counts n bytes that arrived. It reports false, and counts nothing,
// when they go beyond the limit.
func (w *window) receive(n int) bool {
	if uint64(n) > w.limit-w.received {
		return false
	}
	w.received += uint64(n)
	return true
}

// resume notes that the first data after a stall is there.
func (w *window) resume(now time.Time) {
	w.trip, w.stalled = now.Sub(w.stalled), time.Time{}
}

// drain counts n bytes that were read, and reports whether the far side must be told the limit.
func (w *window) drain(n int, now func() time.Time, r room) bool {
	w.read += uint64(n)
	starved := w.read == w.received && (w.read == w.edge || w.read == w.limit)
	half := w.read+w.size >= w.limit+w.size/2
	if !starved && !half {
		return false
	}
	t := now()
	grown := false
	switch {
	case starved:
		w.stalled = t
		if w.read == w.edge {
			w.stalled = w.told
		}
		grown = w.read >= w.full && w.size < windowCeiling && r.grow(w.size)
		if grown {
			w.size *= 2
		}
	case w.size > windowFloor && (r.tight(w.size) || w.slow(t)):
		r.shrink(w.size)
		w.size /= 2
	}
	w.since = t
	return w.tell(t, grown)
}

func (w *window) slow(now time.Time) bool {
	return w.trip > 0 && now.Sub(w.since) > slowReads*w.trip
}

// tell moves the limit, and reports whether it moved.
func (w *window) tell(now time.Time, grown bool) bool {
	limit := w.read + w.size
	if limit <= w.limit {
		return false // a window that halved: the promise made stays
	}
	if grown {
		w.full = limit
	}
	w.edge, w.limit, w.told = w.limit, limit, now
	return true
}
