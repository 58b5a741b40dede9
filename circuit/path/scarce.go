package path

import (
	"errors"
	"fmt"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// ErrNoRelays is inside every error that means "not enough relays": the caller
// waits for a new view of the directory instead of trying again.
var ErrNoRelays = errors.New("too few relays")

// NoRelaysError says which part of a path could not be filled, and why.
type NoRelaysError struct {
	For string // guard, middle, relay before the last hop, meeting relay, first link
	Why string // the cause
	Do  string // what would help, or ""
}

func (e *NoRelaysError) Error() string { return "path: " + e.What() }

// What is Error without the package's name.
func (e *NoRelaysError) What() string {
	return fmt.Sprintf("%v for a %s: %s", ErrNoRelays, e.For, e.Why)
}

// Unwrap returns ErrNoRelays.
func (e *NoRelaysError) Unwrap() error { return ErrNoRelays }

// none returns the error of a path that lacks what. The cause is looked for in
// the whole directory: it stays the same when other relays are drawn.
func (q query) none(what string) error {
	why, do := q.explain(what)
	return &NoRelaysError{For: what, Why: why, Do: do}
}

func (q query) explain(what string) (why, do string) {
	need := MinRelays(q.own)
	n := count(q.relays, nil)
	networks, owners := q.rules.networks(q.relays), owners(q.relays)
	listed := fmt.Sprintf("the %d relays that the trackers list", n)
	circuits := fmt.Sprintf("circuits with --hops %d need %d", q.own, need)
	old := count(q.relays, func(r *Relay) bool { return q.rules.mayGuard(q.now, r) })
	switch {
	case n == 0:
		return "the trackers list none yet", "wait until relays have joined"
	case n < need:
		return fmt.Sprintf("the trackers list %s, and %s", plural(n, "relay", "relays"), circuits), "start more relays" + q.fewer(n)
	case !q.rules.SameNet && networks < need:
		return fmt.Sprintf("%s lie in %s, and %s, so that nobody who runs one sees two hops of a circuit", listed, q.rules.networkName(networks), circuits),
			"start relays elsewhere" + q.fewer(networks)
	case owners < need:
		return fmt.Sprintf("%s belong to %s (--family), and %s, so that nobody owns two hops of a circuit", listed, plural(owners, "owner", "owners"), circuits),
			"relays of other owners are needed" + q.fewer(owners)
	case what == "guard" && old < Primary:
		return fmt.Sprintf("of %s %d are known for long enough (%v)", listed, old, q.rules.MinGuardAge), "wait, or name more entry relays"
	}
	return fmt.Sprintf("%s leave no choice that keeps networks and owners apart: they lie in %s and belong to %s",
		listed, q.rules.networkName(networks), plural(owners, "owner", "owners")), "start relays elsewhere"
}

// fewer names the longest circuits for which have relays or networks do.
func (q query) fewer(have int) string {
	for own := q.own - 1; own > 0; own-- {
		if MinRelays(own) <= have {
			return fmt.Sprintf(", or use --hops %d, which needs %d", own, MinRelays(own))
		}
	}
	return ""
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// owners returns how many families the usable ones of relays make up: those
// tied to each other through others are one.
func owners(relays []Relay) int {
	at := make(map[onion.ID]int, len(relays))
	owner := make([]int, len(relays))
	for i := range relays {
		at[relays[i].ID], owner[i] = i, i
	}
	find := func(i int) int {
		for owner[i] != i {
			owner[i] = owner[owner[i]]
			i = owner[i]
		}
		return i
	}
	n := count(relays, nil)
	for i := range relays {
		for _, other := range relays[i].Family {
			j, ok := at[other]
			if !ok || !relays[i].usable() || !relays[j].usable() || !related(&relays[i], &relays[j]) {
				continue
			}
			if a, b := find(i), find(j); a != b {
				owner[a] = b
				n--
			}
		}
	}
	return n
}
