package swarm

import (
	"context"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/tracker/announce"
)

const (
	shards = 64 // locks: far more than cores, so that they seldom wait for each other

	// slabRecords is how many records are allocated at once: they fill ten
	// pages but for 2 %, and hold no pointers for the collector to follow.
	slabRecords = 131

	// sweepAtOnce is how many records one shard looks at while it holds its lock.
	sweepAtOnce = 4096
)

// Memory is a Store in this process. A record costs its OuterSize bytes and
// some eighty more; a swarm some hundred.
type Memory struct {
	limits Limits
	seed   maphash.Seed // names are chosen by others: which shard they fall into is not

	records atomic.Int64
	swarms  atomic.Int64
	shards  [shards]shard
}

// shard holds the swarms whose names fall into it.
type shard struct {
	mu     sync.Mutex
	swarms map[[32]byte]*members // guarded by mu, like all below
	byT    map[uint64]uint32     // slot by keyed hash of name and T

	slabs []*[slabRecords]wire
	slots []slot   // one for each record that the slabs have room for
	free  []uint32 // slots that hold nothing
	hand  uint32   // where the sweep goes on
}

// wire is a record as it is sent: nothing has to be made of it to hand it out.
type wire [announce.OuterSize]byte

// slot says where a record belongs. Swarm is nil where there is none.
type slot struct {
	swarm  *members
	hash   uint64 // its key in byT
	expiry int64
	at     uint32 // its index in swarm.slots
	seeder bool
}

// members are the records of one swarm.
type members struct {
	name    [32]byte
	slots   []uint32
	seeders uint32
}

// NewMemory returns an empty store.
func NewMemory(l Limits) *Memory {
	m := &Memory{limits: l.withDefaults(), seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].swarms = make(map[[32]byte]*members)
		m.shards[i].byT = make(map[uint64]uint32)
	}
	return m
}

// Len returns how many records and swarms there are.
func (m *Memory) Len() (records, swarms int) { return int(m.records.Load()), int(m.swarms.Load()) }

func (m *Memory) shard(name [32]byte) *shard {
	return &m.shards[maphash.Bytes(m.seed, name[:])%shards]
}

func (m *Memory) hash(name, t [32]byte) uint64 {
	var b [64]byte
	copy(b[:], name[:])
	copy(b[32:], t[:])
	return maphash.Bytes(m.seed, b[:])
}

// Put is Store's.
func (m *Memory) Put(_ context.Context, name [32]byte, o *announce.Outer, now time.Time) error {
	s, h := m.shard(name), m.hash(name, o.T)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.byT[h]; ok {
		switch held := &s.slots[i]; {
		case held.swarm.name != name || s.key(i) != o.T:
			return ErrFull // another pair with the same 64 bits, keyed: it doesn't happen
		case held.expiry > o.Expiry:
			return ErrStale
		}
		s.set(i, o)
		return nil
	}
	if int(m.records.Load()) >= m.limits.Records {
		m.sweep(s, now)
	}
	in := s.swarms[name]
	if in != nil && len(in.slots) >= m.limits.PerSwarm {
		return ErrFull
	}
	if !take(&m.records, m.limits.Records) {
		return ErrFull
	}
	if in == nil {
		if !take(&m.swarms, m.limits.Swarms) {
			m.records.Add(-1)
			return ErrFull
		}
		in = &members{name: name}
		s.swarms[name] = in
	}
	i := s.slot()
	s.slots[i] = slot{swarm: in, hash: h, at: uint32(len(in.slots))}
	in.slots = append(in.slots, i)
	s.byT[h] = i
	s.set(i, o)
	return nil
}

// take adds one to n unless it is at its limit.
func take(n *atomic.Int64, limit int) bool {
	if n.Add(1) > int64(limit) {
		n.Add(-1)
		return false
	}
	return true
}

// set writes o into the slot i of its swarm.
func (s *shard) set(i uint32, o *announce.Outer) {
	at := &s.slots[i]
	if at.seeder {
		at.swarm.seeders--
	}
	if o.Seeder {
		at.swarm.seeders++
	}
	at.seeder, at.expiry = o.Seeder, o.Expiry
	o.Append(s.wire(i)[:0])
}

func (s *shard) wire(i uint32) *wire { return &s.slabs[i/slabRecords][i%slabRecords] }

// key returns the T of the record in slot i.
func (s *shard) key(i uint32) [32]byte { return [32]byte(s.wire(i)[:32]) }

// slot returns one that holds nothing.
func (s *shard) slot() uint32 {
	if len(s.free) == 0 {
		first := uint32(len(s.slots))
		s.slabs = append(s.slabs, new([slabRecords]wire))
		s.slots = append(s.slots, make([]slot, slabRecords)...)
		for i := range uint32(slabRecords) {
			s.free = append(s.free, first+slabRecords-1-i)
		}
	}
	i := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return i
}

// remove empties slot i.
func (m *Memory) remove(s *shard, i uint32) {
	gone := s.slots[i]
	in := gone.swarm
	last := in.slots[len(in.slots)-1]
	in.slots[gone.at] = last
	s.slots[last].at = gone.at
	in.slots = in.slots[:len(in.slots)-1]
	if gone.seeder {
		in.seeders--
	}
	if len(in.slots) == 0 {
		delete(s.swarms, in.name)
		m.swarms.Add(-1)
	} else if cap(in.slots) > 16 && len(in.slots) < cap(in.slots)/4 {
		in.slots = append(make([]uint32, 0, len(in.slots)*2), in.slots...)
	}
	delete(s.byT, gone.hash)
	s.slots[i] = slot{}
	s.free = append(s.free, i)
	m.records.Add(-1)
}

// Remove is Store's.
func (m *Memory) Remove(_ context.Context, name, t [32]byte) error {
	s, h := m.shard(name), m.hash(name, t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.byT[h]; ok && s.slots[i].swarm.name == name && s.key(i) == t {
		m.remove(s, i)
	}
	return nil
}

// Get is Store's.
func (m *Memory) Get(_ context.Context, b []byte, name [32]byte, n int, now time.Time) ([]byte, Counts, error) {
	s := m.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.swarms[name]
	if in == nil {
		return b, Counts{}, nil
	}
	counts := Counts{Seeders: int(in.seeders), Leechers: len(in.slots) - int(in.seeders)}
	n = min(max(n, 0), len(in.slots))
	b = slices.Grow(b, n*announce.OuterSize)
	// Shuffle from the front as far as it takes to find n that have not ended.
	for k := 0; k < len(in.slots) && n > 0; k++ {
		s.swap(in, k, k+rand.IntN(len(in.slots)-k))
		i := in.slots[k]
		if s.slots[i].expiry <= now.Unix() {
			continue
		}
		b = append(b, s.wire(i)[:]...)
		n--
	}
	return b, counts, nil
}

func (s *shard) swap(in *members, a, b int) {
	in.slots[a], in.slots[b] = in.slots[b], in.slots[a]
	s.slots[in.slots[a]].at, s.slots[in.slots[b]].at = uint32(a), uint32(b)
}

// Expire is Store's. It looks at every record once, some thousands at a time.
func (m *Memory) Expire(_ context.Context, now time.Time) (removed int, err error) {
	for i := range m.shards {
		s := &m.shards[i]
		for looked, more := 0, true; more; {
			s.mu.Lock()
			removed += m.sweep(s, now)
			looked += sweepAtOnce
			more = looked < len(s.slots)
			s.mu.Unlock()
		}
	}
	return removed, nil
}

// sweep looks at the next sweepAtOnce records of s and takes out those that
// ended. Called with s.mu held.
func (m *Memory) sweep(s *shard, now time.Time) (removed int) {
	for range min(sweepAtOnce, len(s.slots)) {
		if s.hand >= uint32(len(s.slots)) {
			s.hand = 0
		}
		if at := &s.slots[s.hand]; at.swarm != nil && at.expiry <= now.Unix() {
			m.remove(s, s.hand)
			removed++
		}
		s.hand++
	}
	return removed
}

// each calls f with every record and the name of its swarm, a slab at a time
// under its shard's lock, so that storing goes on meanwhile. f gets a copy.
func (m *Memory) each(f func(name [32]byte, w []byte) error) error {
	batch := make([]byte, 0, slabRecords*entrySize)
	for i := range m.shards {
		s := &m.shards[i]
		for first, more := 0, true; more; first += slabRecords {
			batch = batch[:0]
			s.mu.Lock()
			for k := first; k < min(first+slabRecords, len(s.slots)); k++ {
				if in := s.slots[k].swarm; in != nil {
					batch = append(batch, in.name[:]...)
					batch = append(batch, s.wire(uint32(k))[:]...)
				}
			}
			more = first+slabRecords < len(s.slots)
			s.mu.Unlock()
			for b := batch; len(b) > 0; b = b[entrySize:] {
				if err := f([32]byte(b), b[32:entrySize]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
