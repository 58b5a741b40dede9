package onion

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// ReplayCache knows each CREATE of the last steps, so that none is served
// twice, for all onion keys of one relay. It is safe for concurrent use.
type ReplayCache struct {
	max int

	mu    sync.Mutex
	count int
	steps map[uint32]map[[16]byte]struct{} // by the step in CREATE
	floor uint32                           // steps below it are refused
}

// entrySize is one entry as Append writes it: step, tag.
const entrySize = 4 + 16

// NewReplayCache returns an empty cache of at most max entries, some 40 bytes
// each. A relay whose onion keys an earlier process used must Load what that
// one knew, or, when that is lost, refuse what it could have served:
// Refuse(Step(now)+1).
func NewReplayCache(max int) *ReplayCache {
	return &ReplayCache{max: max, steps: make(map[uint32]map[[16]byte]struct{})}
}

// Add remembers a CREATE made at step, when the time is now, and answers:
// cell.OK: serve it; cell.Replayed: it was seen before, or step is more than
// one off; cell.Busy: the cache is full.
func (c *ReplayCache) Add(now, step uint32, tag [16]byte) cell.Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire(now)
	if step < c.floor || uint64(step) > uint64(now)+1 || uint64(step)+1 < uint64(now) {
		return cell.Replayed
	}
	if _, seen := c.steps[step][tag]; seen {
		return cell.Replayed
	}
	if c.count >= c.max {
		return cell.Busy
	}
	c.put(step, tag)
	return cell.OK
}

// expire drops what time alone refuses from now on, also should the clock be
// set back later.
func (c *ReplayCache) expire(now uint32) {
	if now == 0 || now-1 <= c.floor {
		return
	}
	c.floor = now - 1
	for step, tags := range c.steps {
		if step < c.floor {
			c.count -= len(tags)
			delete(c.steps, step)
		}
	}
}

func (c *ReplayCache) put(step uint32, tag [16]byte) {
	tags := c.steps[step]
	if tags == nil {
		tags = make(map[[16]byte]struct{})
		c.steps[step] = tags
	}
	tags[tag] = struct{}{}
	c.count++
}

// Refuse refuses from now on what was made at step last or before.
func (c *ReplayCache) Refuse(last uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor = max(c.floor, last+1)
}

// Append appends all entries to b, for the relay's next process to Load.
func (c *ReplayCache) Append(b []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for step, tags := range c.steps {
		for tag := range tags {
			b = binary.BigEndian.AppendUint32(b, step)
			b = append(b, tag[:]...)
		}
	}
	return b
}

// Load adds the entries that Append wrote. With an error nothing was added.
func (c *ReplayCache) Load(b []byte) error {
	if len(b)%entrySize != 0 {
		return fmt.Errorf("onion: replay cache of %d bytes, want a multiple of %d", len(b), entrySize)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(b) / entrySize; n > c.max-c.count {
		return fmt.Errorf("onion: replay cache of %d entries, room for %d", n, c.max-c.count)
	}
	for ; len(b) > 0; b = b[entrySize:] {
		step, tag := binary.BigEndian.Uint32(b), [16]byte(b[4:])
		if _, seen := c.steps[step][tag]; !seen && step >= c.floor {
			c.put(step, tag)
		}
	}
	return nil
}
