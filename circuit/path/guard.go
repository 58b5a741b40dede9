package path

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

const (
	// Primary is how many guards a sidecar uses.
	Primary = 2

	// maxGuards is how many a sidecar keeps: those it uses, and those it used
	// that are away and may come back. Who can take relays off the network
	// walks us through this many and no more until some are given up.
	maxGuards = 5

	minGuardLife = 60 * 24 * time.Hour
	maxGuardLife = 120 * 24 * time.Hour

	// unlistedLife is how long a guard may be missing from the directory
	// before it is given up.
	unlistedLife = 7 * 24 * time.Hour

	// A guard that couldn't be reached for downLife and downTries attempts has
	// its place taken until it is reached again. Both, so that neither a
	// night's sleep nor an hour without network is taken for a dead guard.
	downLife  = 24 * time.Hour
	downTries = 20

	// A guard is judged by its circuits once judgeAfter were tried. From
	// halveAt on both counts are halved, so that the past fades.
	judgeAfter = 50
	halveAt    = 400

	warnBelow    = 70 // percent of circuits that stood
	replaceBelow = 50

	// replaceEvery is the least time between two guards replaced for failing:
	// who makes our circuits fail gets one new draw a week.
	replaceEvery = 7 * 24 * time.Hour
)

// Guards is the kept set of guards, oldest first. It belongs to the Chooser it
// is given to.
type Guards struct {
	list     []guard
	entry    onion.ID  // the entry relay dialled before there was any guard
	replaced time.Time // when one was last replaced for failing
	changed  bool      // since the last save
}

type guard struct {
	id     onion.ID
	addr   netip.AddrPort // as last listed; what a start without any view dials
	added  time.Time
	until  time.Time // when its months are over
	listed time.Time // when the directory last had it

	rejected bool // replaced for failing; kept so that it isn't drawn again

	tried, stood int // circuits, halved at halveAt

	downSince time.Time // zero: reached at the last attempt
	downs     int       // attempts since
}

// GuardStatus is what an operator may be told about one guard in use.
type GuardStatus struct {
	ID           onion.ID
	Since, Until time.Time
	Tried, Stood int  // circuits counted; older ones count less
	Down         bool // the last attempt to reach it failed
	Warn         bool // fewer than 70 % of its circuits stood
}

func (g *guard) percent() int {
	if g.tried < judgeAfter {
		return 100
	}
	return 100 * g.stood / g.tried
}

// lost reports whether somebody else should stand in for g.
func (g *guard) lost(now time.Time) bool {
	return !g.downSince.IsZero() && g.downs >= downTries && now.Sub(g.downSince) >= downLife
}

func (gs *Guards) get(id onion.ID) *guard {
	for i := range gs.list {
		if gs.list[i].id == id {
			return &gs.list[i]
		}
	}
	return nil
}

// refresh drops what is over, rejects a failing guard when its time has come,
// and draws until Primary guards can be used or the set is full.
func (gs *Guards) refresh(now time.Time, rng *rand.Rand, relays []Relay, rules Rules) {
	if len(relays) == 0 {
		return // no view says nothing about who is gone
	}
	for i := range gs.list {
		g := &gs.list[i]
		if r := find(relays, g.id); r != nil {
			gs.changed = gs.changed || newHour(g.listed, now) || g.addr != r.Addr
			g.listed, g.addr = now, r.Addr
		}
	}
	before := len(gs.list)
	gs.list = slices.DeleteFunc(gs.list, func(g guard) bool {
		return !now.Before(g.until) || now.Sub(g.listed) > unlistedLife
	})
	gs.changed = gs.changed || len(gs.list) != before
	gs.reject(now)
	for len(gs.inUse(now, relays, false)) < Primary && gs.kept() < maxGuards {
		r := gs.draw(now, rng, relays, rules)
		if r == nil {
			return
		}
		life := minGuardLife + time.Duration(rng.Int64N(int64(maxGuardLife-minGuardLife)))
		gs.list = append(gs.list, guard{id: r.ID, addr: r.Addr, added: now, until: now.Add(life), listed: now})
		gs.entry = onion.ID{}
		gs.changed = true
	}
}

// newHour is how often the file learns that a relay is still listed.
func newHour(before, now time.Time) bool {
	return !before.Truncate(time.Hour).Equal(now.Truncate(time.Hour))
}

// reject marks the worst guard below replaceBelow, at most one per replaceEvery.
func (gs *Guards) reject(now time.Time) {
	if now.Sub(gs.replaced) < replaceEvery {
		return
	}
	var worst *guard
	for i := range gs.list {
		g := &gs.list[i]
		if !g.rejected && g.percent() < replaceBelow && (worst == nil || g.percent() < worst.percent()) {
			worst = g
		}
	}
	if worst != nil {
		worst.rejected = true
		gs.replaced = now
		gs.changed = true
	}
}

// draw picks a new guard by weight. Guards don't conflict with one another, so
// that a last hop which a peer names rules out one of them at most.
func (gs *Guards) draw(now time.Time, rng *rand.Rand, relays []Relay, rules Rules) *Relay {
	var others []*Relay // guards that keep a new one out of their network and family
	for i := range gs.list {
		if other := find(relays, gs.list[i].id); other != nil && !gs.list[i].rejected {
			others = append(others, other)
		}
	}
	free := func(r *Relay) bool { return gs.get(r.ID) == nil && !conflictsAny(rules, r, others) }
	return Pick(rng, relays, func(r *Relay) bool { return rules.mayGuard(now, r) && free(r) })
}

// kept is how many guards count against maxGuards. Rejected ones don't: their
// number is bounded by replaceEvery.
func (gs *Guards) kept() int {
	n := 0
	for i := range gs.list {
		if !gs.list[i].rejected {
			n++
		}
	}
	return n
}

// inUse returns the guards that circuits may take now, in the order of the
// set, at most Primary. With lost, guards that were long unreachable fill up:
// better one that may be back than none.
func (gs *Guards) inUse(now time.Time, relays []Relay, lost bool) []*Relay {
	var use, back []*Relay
	for i := range gs.list {
		g := &gs.list[i]
		r := find(relays, g.id)
		switch {
		case r == nil || g.rejected:
		case g.lost(now):
			back = append(back, r)
		default:
			use = append(use, r)
		}
	}
	if lost {
		use = append(use, back...)
	}
	return use[:min(len(use), Primary)]
}

// first returns which relay a sidecar without a directory dials to get one: a
// kept guard, else one of entries. The entry relay drawn is the same after a
// restart: our address is shown to one of them, not to all.
func (gs *Guards) first(rng *rand.Rand, entries []Relay, avoid []onion.ID) *Relay {
	for i := range gs.list {
		g := &gs.list[i]
		if !g.rejected && g.addr.IsValid() && !slices.Contains(avoid, g.id) {
			return &Relay{ID: g.id, Addr: g.addr}
		}
	}
	if r := find(entries, gs.entry); r != nil && !slices.Contains(avoid, r.ID) {
		return r
	}
	r := Pick(rng, entries, func(r *Relay) bool { return !slices.Contains(avoid, r.ID) })
	if r != nil {
		gs.entry, gs.changed = r.ID, true
	}
	return r
}

// order puts the guards of key first to last: the one that key is at home
// with, then the other; one that couldn't be reached just now goes last.
// Each swarm staying with one guard means that a bad guard sees half of the
// swarms and not half of every swarm.
func (gs *Guards) order(use []*Relay, key Key) {
	if len(use) == Primary && key[0]&1 == 1 {
		use[0], use[1] = use[1], use[0]
	}
	slices.SortStableFunc(use, func(a, b *Relay) int { return gs.downs(a.ID) - gs.downs(b.ID) })
}

// downs is 1 for a guard that couldn't be reached at the last attempt.
func (gs *Guards) downs(id onion.ID) int {
	if g := gs.get(id); g != nil && !g.downSince.IsZero() {
		return 1
	}
	return 0
}

func (gs *Guards) result(id onion.ID, stood bool) {
	g := gs.get(id)
	if g == nil {
		return
	}
	if g.tried >= halveAt {
		g.tried, g.stood = g.tried/2, g.stood/2
	}
	g.tried++
	if stood {
		g.stood++
	}
	gs.changed = true
}

func (gs *Guards) down(id onion.ID, now time.Time) {
	g := gs.get(id)
	if g == nil {
		return
	}
	if g.downSince.IsZero() {
		g.downSince = now
	}
	g.downs++
	gs.changed = true
}

func (gs *Guards) up(id onion.ID) {
	if g := gs.get(id); g != nil && !g.downSince.IsZero() {
		g.downSince, g.downs = time.Time{}, 0
		gs.changed = true
	}
}
