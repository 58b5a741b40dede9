package path

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// MaxOwn is the most relays of its own that a circuit has before its last hop.
const MaxOwn = cell.MaxHops - 1

// Chooser chooses paths for one sidecar. All methods may be called
// concurrently.
type Chooser struct {
	rules Rules

	saving sync.Mutex // held while the guards are written, so that the newer state comes last

	mu     sync.Mutex
	rng    *rand.Rand // guarded by mu, as is all below
	guards *Guards
	pins   *Pins
	edges  edges
}

// New returns a Chooser. It takes ownership of rng (NewRand outside tests), of
// guards and of pins. Nil guards are none; nil pins end with the process.
func New(rules Rules, rng *rand.Rand, guards *Guards, pins *Pins) *Chooser {
	if guards == nil {
		guards = &Guards{}
	}
	if pins == nil {
		pins = randomPins(rng)
	}
	return &Chooser{rules: rules, rng: rng, guards: guards, pins: pins, edges: edges{}}
}

// Choose draws the own relays of a circuit that ends at last, first hop first,
// own of them:
//
//	0  none; only in a test network
//	1  guard
//	2  guard, pinned middle
//	3  guard, pinned middle, fresh relay
//	4  guard, pinned middle, fresh relay, fresh relay
//
// No relay comes twice and none is last; last may be a tracker or the zero
// Relay, of which only the set fields are compared. The relays returned are
// copies. An error is a *NoRelaysError, or says that own is out of range.
func (c *Chooser) Choose(now time.Time, relays []Relay, key Key, own int, last Relay) ([]Relay, error) {
	if own < 0 || own > MaxOwn {
		return nil, fmt.Errorf("path: %d own relays, want 1 to %d", own, MaxOwn)
	}
	if own == 0 {
		if !c.rules.Test {
			return nil, errors.New("path: no own relays: only a network file marked as a test allows that")
		}
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	q := query{now: now, relays: relays, own: own, last: &last, rules: c.rules.fit(now, relays, own)}
	c.guards.refresh(now, c.rng, relays, q.rules)
	use := c.guards.inUse(now, relays, true)
	c.guards.order(use, key)
	if own == 1 {
		return c.guardOnly(q, use)
	}
	pins := c.pins.of(key, now, relays, q.rules, use)
	guard, middle, err := c.start(q, use, pins, own == 2)
	if err != nil {
		return nil, err
	}
	return c.finish(q, []*Relay{guard, middle})
}

// First returns the relay that a sidecar without a directory dials to get one:
// a guard it kept, of which ID and Addr are set, else one of entries, the
// network file's entry relays with whatever Weight the caller gives them. avoid
// holds those that were tried. No circuit may be built through it.
func (c *Chooser) First(entries []Relay, avoid ...onion.ID) (Relay, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.guards.first(c.rng, entries, avoid); r != nil {
		return *r, nil
	}
	return Relay{}, &NoRelaysError{For: "first link", Why: fmt.Sprintf("the network names %s, and each was tried", plural(len(entries), "entry relay", "entry relays"))}
}

// query is what one Choose is about.
type query struct {
	now    time.Time
	relays []Relay
	own    int
	last   *Relay
	rules  Rules // fitted
}

func (c *Chooser) guardOnly(q query, use []*Relay) ([]Relay, error) {
	var fits []*Relay
	for _, g := range use {
		if !q.rules.Conflict(g, q.last) {
			fits = append(fits, g)
		}
	}
	if len(fits) == 0 {
		return nil, q.none("guard")
	}
	for _, g := range fits {
		if !c.edges.failed(q.now, g.ID, q.last.ID) {
			return []Relay{*g}, nil
		}
	}
	return []Relay{*fits[0]}, nil
}

// start chooses the guard and its middle. Guards are tried in their order; a
// pair with a failed edge is taken only when every pair has one, since drawing
// another middle is what a relay that fails edges could be after.
func (c *Chooser) start(q query, use, pins []*Relay, middleIsLast bool) (guard, middle *Relay, err error) {
	var spare [2]*Relay
	fits := 0
	for _, g := range use {
		if q.rules.Conflict(g, q.last) {
			continue
		}
		fits++
		for _, i := range c.rng.Perm(len(pins)) {
			m := pins[i]
			if q.rules.Conflict(m, g) || q.rules.Conflict(m, q.last) {
				continue
			}
			bad := c.edges.failed(q.now, g.ID, m.ID) || middleIsLast && c.edges.failed(q.now, m.ID, q.last.ID)
			if !bad {
				return g, m, nil
			}
			if spare[0] == nil {
				spare = [2]*Relay{g, m}
			}
		}
	}
	switch {
	case spare[0] != nil:
		return spare[0], spare[1], nil
	case fits == 0:
		return nil, nil, q.none("guard")
	}
	return nil, nil, q.none("middle")
}

// finish adds fresh relays until hops has q.own.
func (c *Chooser) finish(q query, hops []*Relay) ([]Relay, error) {
	for len(hops) < q.own {
		fits := func(r *Relay) bool {
			return !q.rules.Conflict(r, q.last) && !conflictsAny(q.rules, r, hops)
		}
		end := len(hops) == q.own-1
		before := hops[len(hops)-1]
		r := Pick(c.rng, q.relays, func(r *Relay) bool {
			return fits(r) && !c.edges.failed(q.now, before.ID, r.ID) &&
				!(end && c.edges.failed(q.now, r.ID, q.last.ID))
		})
		if r == nil {
			r = Pick(c.rng, q.relays, fits)
		}
		if r == nil {
			return nil, q.none("relay before the last hop")
		}
		hops = append(hops, r)
	}
	out := make([]Relay, len(hops))
	for i, r := range hops {
		out[i] = *r
	}
	return out, nil
}

// ChooseMeeting draws n distinct meeting relays by weight, none of them in
// avoid. Guards are not left out: which relays a sidecar never meets at would
// tell its guards in time. Choose finds another way to such a relay.
func (c *Chooser) ChooseMeeting(relays []Relay, n int, avoid ...onion.ID) ([]Relay, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Relay
	free := func(r *Relay) bool {
		return !slices.Contains(avoid, r.ID) &&
			!slices.ContainsFunc(out, func(o Relay) bool { return o.ID == r.ID })
	}
	for len(out) < n {
		r := Pick(c.rng, relays, free)
		if r == nil {
			of := count(relays, nil)
			return nil, &NoRelaysError{For: "meeting relay", Why: fmt.Sprintf("%d are needed, and of the %d that the trackers list %d are left", n, of, len(out))}
		}
		out = append(out, *r)
	}
	return out, nil
}

// EdgeFailed notes that from couldn't reach to; the step is avoided for some
// minutes. The guard is not charged: don't call GuardResult for that circuit.
func (c *Chooser) EdgeFailed(now time.Time, from, to onion.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.edges.add(now, from, to)
}

// GuardResult counts one circuit through a guard: whether it stood, and did not
// die early. A guard below 50 % is replaced, at most one a week.
func (c *Chooser) GuardResult(id onion.ID, stood bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guards.result(id, stood)
}

// GuardDown notes that no link to a guard came up; the other one goes first
// until GuardUp.
func (c *Chooser) GuardDown(now time.Time, id onion.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guards.down(id, now)
}

// GuardUp notes that a link to a guard stands.
func (c *Chooser) GuardUp(id onion.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guards.up(id)
}

// GuardStatus lists the guards kept, oldest first, without those replaced.
func (c *Chooser) GuardStatus() []GuardStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []GuardStatus
	for i := range c.guards.list {
		g := &c.guards.list[i]
		if g.rejected {
			continue
		}
		out = append(out, GuardStatus{
			ID: g.id, Since: g.added, Until: g.until, Tried: g.tried, Stood: g.stood,
			Down: !g.downSince.IsZero(), Warn: g.percent() < warnBelow,
		})
	}
	return out
}

// Forget erases what is kept for key, when its swarm is left for good.
func (c *Chooser) Forget(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pins.keys, key)
}
