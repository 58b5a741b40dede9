package path

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

const (
	// PinsPerKey is how many middles one isolation key keeps.
	PinsPerKey = 4

	minPinLife = 1 * 24 * time.Hour
	maxPinLife = 22 * 24 * time.Hour

	// unlistedPin is how long a pinned middle may be missing from the
	// directory before another is drawn in its place.
	unlistedPin = 24 * time.Hour

	// maxKeys bounds how many keys have pinned middles. Beyond it the key that
	// was used longest ago loses them.
	maxKeys = 8192
)

// Key says which circuits may share pinned middles: one per swarm and client.
// It is opaque here and may reach the disk, so it is derived from a secret and
// never is, or is found from, an info-hash. Its bits are taken to be random.
type Key [32]byte

// Pins holds the pinned middles of every key. It belongs to the Chooser it is
// given to.
type Pins struct {
	keys    map[Key]*pinned
	changed bool // since the last save
}

type pinned struct {
	used time.Time
	list []pin
}

type pin struct {
	id     onion.ID
	until  time.Time
	listed time.Time
}

// pinLife is the greater of two draws: most middles stay long, and when one
// goes can't be told from when it came.
func pinLife(rng *rand.Rand) time.Duration {
	n := int64(maxPinLife - minPinLife)
	return minPinLife + time.Duration(max(rng.Int64N(n+1), rng.Int64N(n+1)))
}

// of returns key's pinned middles that are listed now, after drawing what is
// missing. guards are those in use: a middle goes with each of them.
// Nothing about the last hop comes in here, see the package comment.
func (ps *Pins) of(key Key, now time.Time, rng *rand.Rand, relays []Relay, rules Rules, guards []*Relay) []*Relay {
	p := ps.entry(key, now)
	for i := range p.list {
		if find(relays, p.list[i].id) != nil {
			ps.changed = ps.changed || newHour(p.list[i].listed, now)
			p.list[i].listed = now
		}
	}
	before := len(p.list)
	p.list = slices.DeleteFunc(p.list, func(q pin) bool {
		return !now.Before(q.until) || now.Sub(q.listed) > unlistedPin
	})
	ps.changed = ps.changed || len(p.list) != before
	ps.fill(p, now, rng, relays, rules, guards)

	live := p.live(relays)
	// A guard drawn later may conflict with all that are pinned, and a small
	// network may lose them all at once: then, and only then, four new ones.
	if !slices.ContainsFunc(live, func(r *Relay) bool { return !conflictsAny(rules, r, guards) }) && len(p.list) == PinsPerKey {
		p.list = p.list[:0]
		ps.fill(p, now, rng, relays, rules, guards)
		live = p.live(relays)
	}
	return live
}

func (p *pinned) live(relays []Relay) []*Relay {
	var live []*Relay
	for _, q := range p.list {
		if r := find(relays, q.id); r != nil {
			live = append(live, r)
		}
	}
	return live
}

// fill draws until key has PinsPerKey, or as many as the network gives. They
// don't conflict with one another where the network is large enough, so that a
// last hop rules out one of them at most.
func (ps *Pins) fill(p *pinned, now time.Time, rng *rand.Rand, relays []Relay, rules Rules, guards []*Relay) {
	for len(p.list) < PinsPerKey {
		isNew := func(r *Relay) bool {
			return !slices.ContainsFunc(p.list, func(q pin) bool { return q.id == r.ID }) && !conflictsAny(rules, r, guards)
		}
		live := p.live(relays)
		r := Pick(rng, relays, func(r *Relay) bool { return isNew(r) && !conflictsAny(rules, r, live) })
		if r == nil {
			r = Pick(rng, relays, isNew)
		}
		if r == nil {
			return
		}
		p.list = append(p.list, pin{id: r.ID, until: now.Add(pinLife(rng)), listed: now})
		ps.changed = true
	}
}

// entry returns key's entry, made if there is none.
func (ps *Pins) entry(key Key, now time.Time) *pinned {
	p := ps.keys[key]
	if p == nil {
		if len(ps.keys) >= maxKeys {
			ps.dropOldest()
		}
		if ps.keys == nil {
			ps.keys = make(map[Key]*pinned)
		}
		p = &pinned{}
		ps.keys[key] = p
	}
	p.used = now
	return p
}

func (ps *Pins) dropOldest() {
	var oldest Key
	var at time.Time
	for k, p := range ps.keys {
		if at.IsZero() || p.used.Before(at) {
			oldest, at = k, p.used
		}
	}
	delete(ps.keys, oldest)
	ps.changed = true
}

func conflictsAny(rules Rules, r *Relay, others []*Relay) bool {
	return slices.ContainsFunc(others, func(o *Relay) bool { return rules.Conflict(r, o) })
}
