package link

import (
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// The bounds of a window, cells. Floor is what a neighbour may send on a fresh
// circuit without having heard a CREDIT: four, and the reserve that data may
// not touch. Ceiling carries 28 MB/s over a round trip of 300 ms.
const (
	Floor   = 4 + cell.Reserve
	Ceiling = 2048
)

const (
	// leastTrip is what shorter round trips count as: a neighbour that writes
	// 64 KiB at a time, or waits for a processor, looks slower than its path.
	leastTrip = 4 * time.Millisecond

	// slackTrips is for how many round trips a window stays that is four times
	// larger than its use.
	slackTrips = 8
)

// Budget is memory that windows promise together, cells. Half of it is only
// for floors, so that a few large windows never keep a new circuit out; out of
// the other half windows grow, none beyond what is then left for the others.
// Safe for concurrent use. A nil Budget has no end.
type Budget struct {
	total uint64

	mu    sync.Mutex
	used  uint64 // by all windows; guarded by mu
	grown uint64 // part of used that is beyond floors; guarded by mu
}

// NewBudget returns a budget of so many cells.
func NewBudget(cells int64) *Budget {
	return &Budget{total: uint64(max(cells, 0))}
}

// Used returns how many cells are promised now.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(b.used)
}

func (b *Budget) open() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total-b.used < Floor {
		return false
	}
	b.used += Floor
	return true
}

// grow takes n cells more for a window that has as many.
func (b *Budget) grow(n uint64) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left() < 3*n { // n for the growth, as much as then is the window's left
		return false
	}
	b.used += n
	b.grown += n
	return true
}

// give takes back what a window of floor and grown cells had.
func (b *Budget) give(floor, grown uint64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= floor + grown
	b.grown -= grown
}

// tight reports whether a window of this size should halve, for others' sake.
func (b *Budget) tight(size uint64) bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left() < size
}

// left is what growth may still take. mu is held.
func (b *Budget) left() uint64 {
	return min(b.total/2-min(b.grown, b.total/2), b.total-b.used)
}

// Window decides how many cells a sender may be ahead of what has left this
// place. It grows to twice the measured rate times the least measured round
// trip, by doubling, at most once a round trip (as TCP receivers do: dynamic
// right-sizing), and halves when it was far too large for a while or when the
// budget runs short. It is pure: the caller brings the clock and holds the lock.
type Window struct {
	size    uint64
	granted uint64 // cumulative, as last sent
	budget  *Budget
	floor   uint64 // of it, in the budget: Floor, or 0 when only growth counts
	closed  bool

	mark   uint64        // a cell beyond mark needed the grant of markAt
	markAt time.Duration // 0: no round is being timed
	trip   time.Duration // least seen, 0 before the first

	taken   uint64 // at the last measurement
	takenAt time.Duration
	slack   int // measurements in a row that found the window four times too large
}

// OpenWindow returns a window that has granted Floor cells, whose memory is
// b's; false when b is used up. Close gives it back.
func OpenWindow(b *Budget) (w Window, ok bool) {
	if !b.open() {
		return Window{closed: true}, false
	}
	return Window{size: Floor, floor: Floor, granted: Floor, budget: b}, true
}

// newWindow returns a window of whose memory only the growth is b's.
func newWindow(b *Budget) Window {
	return Window{size: Floor, granted: Floor, budget: b}
}

// Close gives the window's memory back to its budget. It grants nothing more.
func (w *Window) Close() {
	if !w.closed {
		w.closed = true
		w.budget.give(w.floor, w.size-Floor)
	}
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
	if !w.Timed(total) {
		return
	}
	if trip := max(now-w.markAt, leastTrip); w.trip == 0 || trip < w.trip {
		w.trip = trip
	}
	w.markAt = 0
}

// Grant returns the new total to allow, when so much has been taken that a
// CREDIT is worth its bytes. No more than limit, what the neighbour behind
// allows, is granted; a limit that rose is passed on at once, since whoever
// raised it has judged what is worth a CREDIT.
func (w *Window) Grant(taken, limit uint64, clock func() time.Duration) (total uint64, ok bool) {
	if w.closed || limit <= w.granted {
		return 0, false
	}
	if limit >= taken+w.size && taken+w.size < w.granted+(w.size+1)/2 {
		return 0, false
	}
	now := clock()
	w.measure(taken, now)
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

// measure decides the size, once a round trip.
func (w *Window) measure(taken uint64, now time.Duration) {
	n, dt := taken-w.taken, now-w.takenAt
	if w.trip == 0 || w.takenAt == 0 {
		w.taken, w.takenAt = taken, now
		return
	}
	if dt < w.trip-w.trip/8 { // a window that is waited for brings its cells once a trip, more or less
		return
	}
	w.taken, w.takenAt = taken, now
	want := uint64(2 * float64(n) * float64(w.trip) / float64(dt))
	if 4*want < w.size {
		w.slack++
	} else {
		w.slack = 0
	}
	switch {
	case w.size > Floor && w.granted <= taken+w.size/2 && (w.slack >= slackTrips || w.budget.tight(w.size)):
		w.size /= 2 // what was promised lies within it
		w.budget.give(0, w.size)
		w.slack = 0
	case 4*want >= 3*w.size && w.size < Ceiling && w.budget.grow(w.size):
		w.size *= 2
	}
}

// Intake grants credit on a circuit whose cells are taken as they come, into
// memory that others account for. Only the link's reader may call Arrived.
type Intake struct {
	mu       sync.Mutex
	win      Window
	received uint64
}

// NewIntake returns an intake whose window grows out of b.
func NewIntake(b *Budget) *Intake { return &Intake{win: newWindow(b)} }

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

// clockStart is long before any use, so that Clock never returns 0.
var clockStart = time.Now().Add(-time.Hour)

// Clock is the monotonic time that windows measure by.
func Clock() time.Duration { return time.Since(clockStart) }
