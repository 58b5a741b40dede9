package link

import (
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of a window, cells. Floor is what a neighbour may send on a fresh
// circuit without having heard a CREDIT; Ceiling covers 16 MiB in flight.
const (
	Floor   = 8
	Ceiling = 4096
)

// Budget is memory that windows share, cells: what they may hold above Floor.
// A nil Budget has no end.
type Budget struct{ left atomic.Int64 }

// NewBudget returns a budget of so many cells.
func NewBudget(cells int64) *Budget {
	b := new(Budget)
	b.left.Store(cells)
	return b
}

func (b *Budget) take(n uint64) bool {
	if b == nil {
		return true
	}
	if b.left.Add(-int64(n)) < 0 {
		b.left.Add(int64(n))
		return false
	}
	return true
}

func (b *Budget) give(n uint64) {
	if b != nil {
		b.left.Add(int64(n))
	}
}

// Window decides how many cells a sender may be ahead of what has left this
// place. It grows to twice the measured rate times the measured round trip
// (dynamic right-sizing, as TCP receivers do) and shrinks when far too large.
// It is pure: the caller brings the clock and holds the lock.
type Window struct {
	size    uint64
	granted uint64 // cumulative, as last sent
	ceiling uint64
	budget  *Budget

	mark   uint64        // a cell beyond mark needed the grant of markAt
	markAt time.Duration // 0: no round is being timed
	rtt    time.Duration // least seen, 0 before the first

	taken   uint64 // at the last grant
	takenAt time.Duration
	slack   int // grants in a row that found the window four times too large
}

// NewWindow returns a window that has granted Floor cells, and that grows out
// of b. Close gives back what it took.
func NewWindow(b *Budget) Window {
	return Window{size: Floor, granted: Floor, ceiling: Ceiling, budget: b}
}

// Close gives the window's memory back to its budget. It grants nothing more.
func (w *Window) Close() {
	w.budget.give(w.size - Floor)
	w.size, w.ceiling = Floor, 0
}

// Granted returns the cumulative number of cells allowed so far.
func (w *Window) Granted() uint64 { return w.granted }

// Size returns how far ahead a sender may be, cells.
func (w *Window) Size() uint64 { return w.size }

// Timed reports whether Received wants to hear of total: so that the clock is
// read only when it matters.
func (w *Window) Timed(total uint64) bool { return w.markAt != 0 && total > w.mark }

// Received notes that the sender has sent total cells so far.
func (w *Window) Received(total uint64, now time.Duration) {
	if w.markAt == 0 || total <= w.mark {
		return
	}
	if rtt := now - w.markAt; w.rtt == 0 || rtt < w.rtt {
		w.rtt = max(rtt, 20*time.Microsecond)
	}
	w.markAt = 0
}

// Grant returns the new total to allow, when so much has been taken that a
// CREDIT is worth its bytes. No more than limit, what the neighbour behind
// allows, is granted; a limit that rose is passed on at once, since whoever
// raised it has judged what is worth a CREDIT.
func (w *Window) Grant(taken, limit uint64, clock func() time.Duration) (total uint64, ok bool) {
	if w.ceiling == 0 || limit <= w.granted {
		return 0, false
	}
	if limit >= taken+w.size && taken+w.size < w.granted+(w.size+1)/2 {
		return 0, false
	}
	now := clock()
	w.resize(taken, now)
	total = min(taken+w.size, limit)
	if total <= w.granted {
		return 0, false
	}
	if w.markAt == 0 {
		w.mark, w.markAt = w.granted, now
	}
	w.granted = total
	return total, true
}

func (w *Window) resize(taken uint64, now time.Duration) {
	n, dt := taken-w.taken, now-w.takenAt
	w.taken, w.takenAt = taken, now
	if w.rtt == 0 || dt <= 0 {
		return
	}
	want := uint64(2 * float64(n) * float64(w.rtt) / float64(dt))
	switch {
	case want >= w.size:
		w.slack = 0
		if to := min(2*w.size, w.ceiling); to > w.size && w.budget.take(to-w.size) {
			w.size = to
		}
	case 4*want < w.size:
		if w.slack++; w.slack >= 8 {
			to := max(w.size/2, Floor)
			w.budget.give(w.size - to)
			w.size, w.slack = to, 0
		}
	default:
		w.slack = 0
	}
}

// Intake grants credit on a circuit whose cells are taken as they come. Only
// the link's reader may call Arrived.
type Intake struct {
	mu       sync.Mutex
	win      Window
	received uint64
}

// NewIntake returns an intake whose window grows out of b.
func NewIntake(b *Budget) *Intake { return &Intake{win: NewWindow(b)} }

// Arrived notes a cell and allows the neighbour more where that is worth a CREDIT.
func (i *Intake) Arrived(from *Circuit) {
	i.mu.Lock()
	i.received++
	if i.win.Timed(i.received) {
		i.win.Received(i.received, Clock())
	}
	total, ok := i.win.Grant(i.received, 1<<63, Clock)
	i.mu.Unlock()
	if ok {
		from.Grant(total)
	}
}

// Close gives the intake's memory back.
func (i *Intake) Close() {
	i.mu.Lock()
	i.win.Close()
	i.mu.Unlock()
}

var start0 = time.Now()

// Clock is the monotonic time that windows measure by.
func Clock() time.Duration { return time.Since(start0) }
