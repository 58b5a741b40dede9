// Package window decides how far a sender may be ahead of what has left the
// place it sends to: the promise of memory behind every credit. It is pure: the
// caller brings the clock and holds the lock.
// Not here: how a grant is told (packages link, stream, relay), what is sent.
//
// A window grows to twice the measured rate times the least measured round
// trip (as TCP receivers do: dynamic right-sizing), and while the rate rises to
// rampFactor times: a path has a window at each of its hops and two for its
// streams, and one that is always ahead of its use holds no other one up. It
// halves when the budget runs short, and when it was much larger than its use
// for a while. Should the rate fall with it, then it was no larger than its
// use: the path has become longer than the least round trip.
package window

import "time"

// Kind is what all windows of one sort have in common.
type Kind struct {
	Floor   uint64 // what may be sent before anything was granted
	Opening uint64 // what Widen makes of a smaller window
	Spare   uint64 // part of every window that bulk leaves unused
	Ceiling uint64 // most that may be promised
	Step    uint64 // at most so much, or an eighth of the window, is taken before that is told
}

const (
	// leastTrip is what shorter round trips count as: a neighbour that writes
	// 64 KiB at a time, or waits for a processor, looks slower than its path.
	leastTrip = time.Millisecond

	// slackTrips is for how many round trips a window stays that is half as
	// large again as it should be.
	slackTrips = 8

	// rampFactor is the size of a window whose use rises, over its use.
	rampFactor = 8
)

// Window is one window. Everything is counted from the first that was sent, in
// units that its Kind gives a meaning: cells, records or bytes.
type Window struct {
	kind    *Kind
	size    uint64
	granted uint64 // cumulative, as last told
	budget  *Budget
	floor   uint64 // of size, in the budget: Kind.Floor, or 0 when only growth counts
	closed  bool

	mark   uint64        // what is beyond mark needed the grant of markAt
	markAt time.Duration // 0: no round is being timed
	trip   time.Duration // least seen, 0 before the first

	taken   uint64 // at the last measurement
	takenAt time.Duration
	use     uint64 // in a round trip: the greatest of late

	slack     int // measurements in a row that found the window too large
	slackFrom uint64
	slackAt   time.Duration
	goal      uint64  // what it is shrinking to; 0: it is not
	before    float64 // the rate before it last shrank for slack; 0: it has not
}

// Open returns a window that has granted its kind's floor, out of b; false when
// b is used up. Close gives it back.
func Open(k *Kind, b *Budget) (w Window, ok bool) {
	if !b.open(k.Floor) {
		return Window{kind: k, closed: true}, false
	}
	return Window{kind: k, size: k.Floor, floor: k.Floor, granted: k.Floor, budget: b}, true
}

// OpenFree returns a window of which only the growth is b's.
func OpenFree(k *Kind, b *Budget) Window {
	return Window{kind: k, size: k.Floor, granted: k.Floor, budget: b}
}

// Close gives the window's memory back to its budget. It grants nothing more.
func (w *Window) Close() {
	if !w.closed {
		w.closed = true
		w.budget.give(w.floor, w.size-w.kind.Floor)
	}
}

// Widen makes a window as large as its kind's Opening while its budget is
// ample, and returns the new total to allow at once, as Grant does. It is for a
// window that is about to be used, whose first round trips would be lost; one
// that stays unused costs its floor.
func (w *Window) Widen(taken, limit uint64) (total uint64, ok bool) {
	if w.closed || w.size >= w.kind.Opening || !w.budget.ample() {
		return 0, false
	}
	w.size = w.budget.grow(w.size, w.kind.Opening)
	total = min(taken+w.size, limit)
	if total <= w.granted {
		return 0, false
	}
	w.granted = total // not timed: nobody waits for it yet
	return total, true
}

// Granted returns what was allowed so far.
func (w *Window) Granted() uint64 { return w.granted }

// Size returns how far ahead a sender may be.
func (w *Window) Size() uint64 { return w.size }

// Timed reports whether Received wants to hear of total: so that the clock is
// read only when it matters.
func (w *Window) Timed(total uint64) bool { return w.markAt != 0 && total > w.mark }

// Received notes that the sender has sent so much so far.
func (w *Window) Received(total uint64, now time.Duration) {
	if !w.Timed(total) {
		return
	}
	trip := max(now-w.markAt, leastTrip)
	if w.trip == 0 || trip < w.trip {
		w.trip = trip
	}
	w.markAt = 0
}

// Grant returns the new total to allow, when so much has been taken that this
// is worth telling. No more than limit, what the neighbour behind allows, is
// granted; a limit that rose is passed on at once, since whoever raised it has
// judged what is worth telling.
func (w *Window) Grant(taken, limit uint64, clock func() time.Duration) (total uint64, ok bool) {
	if w.closed || limit <= w.granted {
		return 0, false
	}
	if limit >= taken+w.size && taken+w.size < w.granted+w.step() {
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

// step is how much is worth telling: little enough that the sender may have
// nearly the whole window on its way, and that its use is measured each round
// trip also when the window is rampFactor times larger.
func (w *Window) step() uint64 {
	return max(min((w.size+1)/2, w.kind.Step), w.size/rampFactor)
}

// measure decides the size, once a round trip.
func (w *Window) measure(taken uint64, now time.Duration) {
	if w.takenAt == 0 {
		w.taken, w.takenAt = taken, now
	}
	n, dt := taken-w.taken, now-w.takenAt
	if w.trip == 0 || n == 0 || dt < w.trip-w.trip/8 { // a window that is waited for brings its round once a trip, more or less
		return
	}
	w.taken, w.takenAt = taken, now
	use := uint64(float64(n) * float64(w.trip) / float64(dt))
	factor := uint64(2)
	if use > w.use+w.use/4 {
		factor = rampFactor
	}
	w.use = max(use, w.use-w.use/8)
	want := min(factor*use+w.kind.Spare, w.kind.Ceiling)
	switch {
	case w.size > w.kind.Floor && w.budget.tight(w.size):
		w.shrink(w.size/2, taken)
	case want > w.size:
		w.size = w.budget.grow(w.size, want)
	}
	w.judge(want, taken, now)
}

// judge shrinks a window that is too large for its use.
func (w *Window) judge(want, taken uint64, now time.Duration) {
	switch {
	case w.goal > 0:
		w.shrink(w.goal, taken)
		if w.size > w.goal {
			return
		}
	case 3*want >= 2*w.size:
		w.before = 0
	default:
		if w.slack++; w.slack < slackTrips {
			return
		}
		rate := float64(taken-w.slackFrom) / float64(now-w.slackAt)
		if rate < w.before*3/4 {
			w.trip *= 2
			w.size = w.budget.grow(w.size, min(2*w.size, w.kind.Ceiling))
			w.before = 0
			break
		}
		w.before, w.goal = rate, max(w.size/2, want, w.kind.Floor)
		return
	}
	w.slack, w.slackFrom, w.slackAt, w.goal = 0, taken, now, 0
}

// shrink makes the window as small as size, if what was promised lies within it.
func (w *Window) shrink(size, taken uint64) {
	size = max(size, w.kind.Floor, w.granted-min(taken, w.granted))
	if size < w.size {
		w.budget.give(0, w.size-size)
		w.size = size
	}
}

// clockStart is long before any use, so that Clock never returns 0.
var clockStart = time.Now().Add(-time.Hour)

// Clock is the monotonic time that windows measure by.
func Clock() time.Duration { return time.Since(clockStart) }
