package window

import "sync"

// Budget is memory that windows promise together. Half of it is only for
// floors, so that a few large windows never keep a new one out; out of the
// other half windows grow, none beyond what is then left for the others. Safe
// for concurrent use. A nil Budget has no end.
type Budget struct {
	total uint64

	mu    sync.Mutex
	used  uint64 // by all windows; guarded by mu
	grown uint64 // part of used that is beyond floors; guarded by mu
}

// NewBudget returns a budget of so much, in the units of its windows.
func NewBudget(total int64) *Budget {
	return &Budget{total: uint64(max(total, 0))}
}

// Used returns how much is promised now.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(b.used)
}

func (b *Budget) open(floor uint64) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total-b.used < floor {
		return false
	}
	b.used += floor
	return true
}

// grow has a window go from size to as much of want as leaves as much again to
// others, and returns what it has then.
func (b *Budget) grow(size, want uint64) uint64 {
	if b == nil {
		return want
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	want = min(want, (b.left()+size)/2)
	if want <= size {
		return size
	}
	b.used += want - size
	b.grown += want - size
	return want
}

// give takes back what a window of floor and grown had.
func (b *Budget) give(floor, grown uint64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= floor + grown
	b.grown -= grown
}

// tight reports whether a window of this size should shrink, for others' sake.
func (b *Budget) tight(size uint64) bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left() < size
}

// ample reports whether growth has taken less than a quarter of its half, and
// floors have left at least half of it.
func (b *Budget) ample() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.grown < b.total/8 && b.left() > b.total/4
}

// left is what growth may still take. mu is held.
func (b *Budget) left() uint64 {
	return min(b.total/2-min(b.grown, b.total/2), b.total-b.used)
}
