package stream

import (
	"slices"
	"sync"
)

const (
	countersKept  = 64   // for one E
	countersPeers = 4096 // E in each generation: 5 MiB in all
)

// Counters refuses first handshake messages that were seen before. It keeps
// the 64 greatest counters of each opener, and at least the 4096 openers heard
// of last: a replay from one forgotten ends where all end that slip through,
// before its first record. The zero value is ready; safe for concurrent use.
type Counters struct {
	mu         sync.Mutex
	young, old map[[32]byte][]uint64 // ascending; guarded by mu
}

// Accept notes that e opened a stream with this counter, and reports false
// when it did so before or when the counter is too old to tell.
func (c *Counters) Accept(e [32]byte, counter uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.peer(e)
	at, found := slices.BinarySearch(kept, counter)
	if found || at == 0 && len(kept) == countersKept {
		return false
	}
	if len(kept) == countersKept {
		copy(kept, kept[1:at]) // the least goes
		kept[at-1] = counter
		return true
	}
	c.young[e] = slices.Insert(kept, at, counter)
	return true
}

// peer returns what is kept of e, moved to the young generation. When that is
// full it becomes the old one, and the old one is forgotten.
func (c *Counters) peer(e [32]byte) []uint64 {
	if kept, ok := c.young[e]; ok {
		return kept
	}
	kept := c.old[e]
	if c.young == nil || len(c.young) == countersPeers {
		c.old, c.young = c.young, make(map[[32]byte][]uint64)
	}
	delete(c.old, e)
	c.young[e] = kept
	return kept
}
