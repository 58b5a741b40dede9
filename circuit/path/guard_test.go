package path

import (
	"errors"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// guardsOf chooses once and returns the guards in use.
func guardsOf(t *testing.T, c *Chooser, now time.Time, relays []Relay) []onion.ID {
	t.Helper()
	if _, err := c.Choose(now, relays, key(0), 1, Relay{}); err != nil {
		t.Fatal(err)
	}
	var out []onion.ID
	for _, r := range c.guards.inUse(now, relays, true) {
		out = append(out, r.ID)
	}
	return out
}

func without(relays []Relay, gone ...onion.ID) []Relay {
	var out []Relay
next:
	for _, r := range relays {
		for _, g := range gone {
			if r.ID == g {
				continue next
			}
		}
		out = append(out, r)
	}
	return out
}

func TestGuardsStayForMonths(t *testing.T) {
	relays := network(100)
	for seed := range uint64(20) {
		c := New(Rules{}, testRand(seed), nil, nil)
		first := guardsOf(t, c, day0, relays)
		if len(first) != Primary {
			t.Fatalf("%d guards, want %d", len(first), Primary)
		}
		changes := 0
		last := first
		for d := 1; d <= 360; d++ {
			now := guardsOf(t, c, day0.Add(time.Duration(d)*day), relays)
			for _, g := range now {
				if g != last[0] && g != last[1] {
					changes++
				}
			}
			if d < 60 && changes > 0 {
				t.Fatalf("a guard changed after %d days", d)
			}
			last = now
		}
		if changes < 4 || changes > 12 { // two guards, 3 to 6 periods each
			t.Errorf("%d new guards in 360 days", changes)
		}
	}
}

func TestASwarmStaysWithOneGuard(t *testing.T) {
	relays := network(100)
	c := New(Rules{}, testRand(9), nil, nil)
	at := map[onion.ID]int{}
	for k := range 40 {
		var guard onion.ID
		for n := range 20 {
			hops, err := c.Choose(day0, relays, key(k), 2, relays[50+n])
			if err != nil {
				t.Fatal(err)
			}
			other := c.guards.list[0].id == relays[50+n].ID || c.guards.list[1].id == relays[50+n].ID
			if other {
				continue
			}
			if guard != (onion.ID{}) && hops[0].ID != guard {
				t.Fatal("circuits of one swarm took two guards")
			}
			guard = hops[0].ID
		}
		at[guard]++
	}
	if len(at) != Primary {
		t.Errorf("40 swarms over %d guards, want %d", len(at), Primary)
	}
}

func TestYoungRelaysAreNoGuards(t *testing.T) {
	relays := network(20)
	for i := range relays {
		relays[i].FirstSeen = day0.Add(-DefaultGuardAge + time.Hour)
	}
	relays[2].FirstSeen, relays[2].Entry = day0.Add(-2*DefaultGuardAge), false
	relays[3].FirstSeen = day0.Add(-DefaultGuardAge)
	relays[4].Entry = true
	relays[4].FirstSeen = time.Time{}
	got := guardsOf(t, New(Rules{}, testRand(1), nil, nil), day0, relays)
	for _, g := range got {
		if g != relays[2].ID && g != relays[3].ID && g != relays[4].ID {
			t.Errorf("a relay younger than %v became a guard", DefaultGuardAge)
		}
	}
	if len(got) != 2 {
		t.Errorf("%d guards, want two of the old relays and the entry relay", len(got))
	}
	if got := guardsOf(t, New(Rules{Test: true}, testRand(1), nil, nil), day0, without(relays, relays[4].ID)); len(got) != 2 {
		t.Errorf("%d guards in a young test network, want 2", len(got))
	}
}

func TestFailingGuardIsReplacedSlowly(t *testing.T) {
	relays := network(50)
	c := New(Rules{}, testRand(2), nil, nil)
	bad := guardsOf(t, c, day0, relays)
	fail := func(g onion.ID, n, standing int) {
		for i := range n {
			c.GuardResult(g, i%10 < standing)
		}
	}
	fail(bad[0], judgeAfter-10, 0)
	if s := c.GuardStatus()[0]; s.Warn {
		t.Error("warned of a guard before it was judged")
	}
	fail(bad[1], 100, 6)
	if s := c.GuardStatus()[1]; !s.Warn {
		t.Errorf("no warning at %d of %d", s.Stood, s.Tried)
	}
	fail(bad[0], 10, 0)
	now := guardsOf(t, c, day0.Add(time.Hour), relays)
	if now[0] != bad[1] || now[1] == bad[0] {
		t.Error("a guard with no circuit standing was kept, or the other one went")
	}
	// Whoever makes all our circuits fail gets one new guard a week, not more.
	seen := map[onion.ID]bool{}
	for h := range 24 * 28 {
		at := day0.Add(2*time.Hour + time.Duration(h)*time.Hour)
		for _, g := range guardsOf(t, c, at, relays) {
			seen[g] = true
			fail(g, 100, 0)
		}
	}
	if len(seen) > 2+4 {
		t.Errorf("%d guards in four weeks of failing circuits, want at most 6", len(seen))
	}
	if seen[bad[0]] {
		t.Error("a replaced guard was drawn again")
	}
}

func TestGuardsComeBackAfterAnAbsence(t *testing.T) {
	relays := network(50)
	c := New(Rules{}, testRand(3), nil, nil)
	mine := guardsOf(t, c, day0, relays)
	for range 50 { // relays vanish one after the other, hour by hour
		now := guardsOf(t, c, day0.Add(time.Hour), relays)
		relays = without(relays, now[0])
		if len(c.guards.list) == maxGuards {
			break
		}
	}
	if n := len(c.guards.list); n != maxGuards {
		t.Fatalf("%d guards kept, want %d", n, maxGuards)
	}
	for _, g := range c.guards.list {
		relays = without(relays, g.id)
	}
	if _, err := c.Choose(day0.Add(2*time.Hour), relays, key(0), 1, Relay{}); !errors.Is(err, ErrNoRelays) {
		t.Errorf("a sixth guard was drawn within hours: %v", err)
	}
	back := network(50)
	if now := guardsOf(t, c, day0.Add(3*time.Hour), back); now[0] != mine[0] || now[1] != mine[1] {
		t.Error("the first guards came back and weren't used")
	}
	relays = without(back, mine...)
	for _, g := range guardsOf(t, c, day0.Add(3*time.Hour).Add(unlistedLife+1), relays) {
		if g == mine[0] || g == mine[1] {
			t.Error("a guard gone for a week is still in use")
		}
	}
	for _, g := range guardsOf(t, c, day0.Add(11*day), back) {
		if g == mine[0] || g == mine[1] {
			return // drawn afresh by chance, which is fine
		}
	}
}

func TestUnreachableGuardGoesLast(t *testing.T) {
	relays := network(50)
	c := New(Rules{}, testRand(4), nil, nil)
	home := func(now time.Time) onion.ID {
		t.Helper()
		hops, err := c.Choose(now, relays, key(0), 1, Relay{})
		if err != nil {
			t.Fatal(err)
		}
		return hops[0].ID
	}
	first := home(day0)
	c.GuardDown(day0, first)
	second := home(day0)
	if second == first {
		t.Fatal("an unreachable guard stayed first")
	}
	c.GuardDown(day0, second)
	if home(day0) != first {
		t.Error("with both guards down the order changed")
	}
	if n := len(c.guards.list); n != Primary {
		t.Errorf("%d guards, want %d: nothing is drawn for a network that is away", n, Primary)
	}
	// A day later, still down, and tried often enough: somebody stands in.
	for range downTries {
		c.GuardDown(day0, first)
	}
	third := home(day0.Add(downLife))
	if third == first || third == second {
		t.Error("nobody stands in for a guard that was down for a day")
	}
	c.GuardUp(first)
	c.GuardUp(second)
	if home(day0.Add(downLife)) != first {
		t.Error("a guard that is back isn't used")
	}
}

func TestANightsSleepIsNoDeadGuard(t *testing.T) {
	relays := network(50)
	c := New(Rules{}, testRand(4), nil, nil)
	for _, g := range guardsOf(t, c, day0, relays) {
		c.GuardDown(day0, g)
	}
	guardsOf(t, c, day0.Add(5*day), relays)
	if n := len(c.guards.list); n != Primary {
		t.Errorf("%d guards after one failed attempt and five days, want %d", n, Primary)
	}
}

func TestALastHopRulesOutOneGuardAtMost(t *testing.T) {
	relays := network(30)
	for i := range relays { // ten networks
		relays[i].Addr = relays[i%10].Addr
	}
	for seed := range uint64(40) {
		c := New(Rules{}, testRand(seed), nil, nil)
		for n := range relays {
			if _, err := c.Choose(day0, relays, key(1), 2, relays[n]); err != nil {
				t.Fatalf("seed %d: last hop %d makes a path impossible: %v", seed, n, err)
			}
		}
		if len(c.guards.list) != Primary || !c.pins.keys[key(1)].full() {
			t.Fatal("a last hop made the sidecar draw again")
		}
	}
}

func TestFirstDialsOneEntryRelayThenGuards(t *testing.T) {
	all := network(30)
	entries := all[:3]
	c := New(Rules{}, testRand(5), nil, nil)
	first, err := c.First(entries)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if r, _ := c.First(entries); r.ID != first.ID {
			t.Fatal("a second entry relay without need")
		}
	}
	second, err := c.First(entries, first.ID)
	if err != nil || second.ID == first.ID {
		t.Fatalf("an entry relay that was tried came again: %v", err)
	}
	if _, err := c.First(entries, ids(entries)...); !errors.Is(err, ErrNoRelays) {
		t.Errorf("no entry relay is left: %v", err)
	}
	guards := guardsOf(t, c, day0, all)
	r, err := c.First(entries)
	if err != nil || r.ID != guards[0] || !r.Addr.IsValid() {
		t.Errorf("First = %s, %v; want the first guard with its address", r.ID.Short(), err)
	}
	if r, _ := c.First(entries, guards[0]); r.ID != guards[1] {
		t.Error("the second guard wasn't next")
	}
}

func TestNoViewDropsNoGuard(t *testing.T) {
	relays := network(30)
	c := New(Rules{}, testRand(6), nil, nil)
	mine := guardsOf(t, c, day0, relays)
	later := day0.Add(30 * day) // switched off for a month, and the first view is not here yet
	if _, err := c.Choose(later, nil, key(0), 2, Relay{}); !errors.Is(err, ErrNoRelays) {
		t.Errorf("a path without a view: %v", err)
	}
	if now := guardsOf(t, c, later, relays); now[0] != mine[0] || now[1] != mine[1] {
		t.Error("guards changed while there was no view")
	}
}
