package stream

import "sync"

// Budget bounds what all windows of a sidecar promise together. Half of it is
// only for the first 64 KiB of each stream, so that a few large windows never
// keep a new stream out; out of the other half windows grow, none beyond what
// is then left for the others. Safe for concurrent use. A nil Budget bounds
// nothing.
//
// The memory behind a window is at most about twice the window, and as much
// as the window when records are full.
type Budget struct {
	total uint64

	mu    sync.Mutex
	used  uint64 // by all windows; guarded by mu
	grown uint64 // part of used that is beyond the first 64 KiB of each; guarded by mu
}

// NewBudget returns a budget of so many bytes; a sidecar's is 256 MiB.
func NewBudget(bytes int64) *Budget {
	return &Budget{total: uint64(max(bytes, 0))}
}

// Full reports whether New would fail now: then an OPEN is refused before its
// handshake costs anything.
func (b *Budget) Full() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total-b.used < windowFloor
}

// Used returns how many bytes are promised now.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(b.used)
}

// open takes the first window of a stream.
func (b *Budget) open() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total-b.used < windowFloor {
		return false
	}
	b.used += windowFloor
	return true
}

// close gives a window of this size back.
func (b *Budget) close(size uint64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= size
	b.grown -= size - windowFloor
}

func (b *Budget) grow(from uint64) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left() < 3*from { // from for the growth, 2*from still left
		return false
	}
	b.used += from
	b.grown += from
	return true
}

func (b *Budget) shrink(from uint64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= from / 2
	b.grown -= from / 2
}

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
