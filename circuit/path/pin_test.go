package path

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// middles chooses n circuits of two and returns which middles they took.
func middles(t *testing.T, c *Chooser, now time.Time, relays []Relay, k Key, n int) map[onion.ID]bool {
	t.Helper()
	seen := map[onion.ID]bool{}
	for range n {
		hops, err := c.Choose(now, relays, k, 2, Relay{})
		if err != nil {
			t.Fatal(err)
		}
		seen[hops[1].ID] = true
	}
	return seen
}

func TestAMiddlesPeriodIsTheGreaterOfTwoDraws(t *testing.T) {
	ps := NewPins([32]byte{1})
	const n = 4_000
	var sum, left time.Duration
	for k := range n {
		first := ps.draw(key(k), 0, day0).until
		if left += first.Sub(day0); !first.After(day0) {
			t.Fatalf("a middle until %v", first)
		}
		period := ps.draw(key(k), 0, first).until.Sub(first)
		if period < minPinLife || period > maxPinLife {
			t.Fatalf("a middle for %v", period)
		}
		sum += period
	}
	// The greater of two uniform draws is two thirds of the way, on average.
	want := minPinLife + (maxPinLife-minPinLife)*2/3
	if got := sum / n; got < want-8*time.Hour || got > want+8*time.Hour {
		t.Errorf("middles stay %v on average, want %v", got, want)
	}
	// A swarm that is joined now finds its periods half over.
	if got := left / n; got < want/2-8*time.Hour || got > want/2+8*time.Hour {
		t.Errorf("first middles stay %v on average, want %v", got, want/2)
	}
}

// Each middle is drawn with a chance in proportion to its weight.
func TestHeavyRelaysAreMiddlesMoreOften(t *testing.T) {
	relays := network(10)
	relays[3].Weight = 300
	ps := NewPins([32]byte{2})
	const n = 12_000
	drawn := map[onion.ID]int{}
	for k := range n {
		drawn[ps.draw(key(k), 0, day0).pick(relays, func(*Relay) bool { return true }).ID]++
	}
	for i, r := range relays {
		want := n * int(r.Weight) / 1200
		if got := drawn[r.ID]; got < want*9/10 || got > want*11/10 {
			t.Errorf("relay %d was drawn %d times, want about %d", i, got, want)
		}
	}
}

// A sidecar that starts every day, in a network that changes every day, meets
// hardly more middles than one that goes on.
func TestRestartsDrawFewMiddlesMore(t *testing.T) {
	const days, swarms = 30, 20
	all := network(300)
	drawn := func(restarts bool) int {
		rng := testRand(5)
		met := map[Key]map[onion.ID]bool{}
		c := New(Rules{}, testRand(6), nil, NewPins([32]byte{3}))
		for d := range days {
			if restarts {
				c = New(Rules{}, testRand(6), c.guards, NewPins([32]byte{3}))
			}
			var relays []Relay // another one in twenty is away each day, and weights move by a tenth
			for _, r := range all {
				r.Weight = 1000 * (900 + rng.Uint64N(201))
				if rng.IntN(20) > 0 {
					relays = append(relays, r)
				}
			}
			for k := range swarms {
				if met[key(k)] == nil {
					met[key(k)] = map[onion.ID]bool{}
				}
				for m := range middles(t, c, day0.Add(time.Duration(d)*24*time.Hour), relays, key(k), 20) {
					met[key(k)][m] = true
				}
			}
		}
		n := 0
		for _, m := range met {
			n += len(m)
		}
		return n / swarms
	}
	on, off := drawn(false), drawn(true)
	t.Logf("middles of a swarm in %d days: %d without restarts, %d with one every day", days, on, off)
	if off > 2*on+4 {
		t.Errorf("%d middles with daily restarts, %d without", off, on)
	}
}

func TestMiddlesAreTheSameAfterARestart(t *testing.T) {
	relays := network(100)
	seed := [32]byte{9}
	a := middles(t, New(Rules{}, testRand(1), nil, NewPins(seed)), day0, relays, key(0), 100)
	gs := New(Rules{}, testRand(1), nil, nil)
	b := middles(t, New(Rules{}, testRand(1), gs.guards, NewPins(seed)), day0, relays, key(0), 100)
	if !maps.Equal(a, b) {
		t.Errorf("%v, and after a restart %v", a, b)
	}
	other := middles(t, New(Rules{}, testRand(1), nil, NewPins([32]byte{8})), day0, relays, key(0), 100)
	if maps.Equal(a, other) {
		t.Error("two seeds have the same middles")
	}
}

func TestPinnedMiddlesChangeSlowlyAndAlone(t *testing.T) {
	relays := network(80)
	c := New(Rules{}, testRand(2), nil, nil)
	last := middles(t, c, day0, relays, key(0), 100)
	drawn := len(last)
	for h := 6; h <= 30*24; h += 6 {
		now := middles(t, c, day0.Add(time.Duration(h)*time.Hour), relays, key(0), 60)
		for m := range now {
			if !last[m] {
				drawn++
			}
		}
		if len(now) > PinsPerKey {
			t.Fatalf("%d middles at one time", len(now))
		}
		last = now
	}
	if drawn < 6 || drawn > 24 { // four, and about 30/15 more for each
		t.Errorf("%d middles in 30 days", drawn)
	}
}

func TestKeysHaveMiddlesOfTheirOwn(t *testing.T) {
	relays := network(200)
	c := New(Rules{}, testRand(3), nil, nil)
	seen := map[onion.ID]bool{}
	for k := range 10 {
		for m := range middles(t, c, day0, relays, key(k), 50) {
			seen[m] = true
		}
	}
	if len(seen) < 30 {
		t.Errorf("ten swarms share %d middles, want about 40", len(seen))
	}
}

func TestMissingMiddleIsReplacedAfterADay(t *testing.T) {
	relays := network(100)
	c := New(Rules{}, testRand(4), nil, nil)
	mine := middles(t, c, day0, relays, key(0), 100)
	var gone onion.ID
	for m := range mine {
		gone = m
		break
	}
	left := without(relays, gone)
	now := middles(t, c, day0.Add(time.Hour), left, key(0), 100)
	if len(now) != PinsPerKey-1 {
		t.Errorf("%d middles an hour after one went, want %d", len(now), PinsPerKey-1)
	}
	now = middles(t, c, day0.Add(unlistedPin+1), left, key(0), 100)
	if len(now) != PinsPerKey {
		t.Errorf("%d middles a day after one went, want %d", len(now), PinsPerKey)
	}
}

func TestALostSetOfMiddlesIsDrawnAnewAtOnce(t *testing.T) {
	relays := network(100)
	c := New(Rules{}, testRand(5), nil, nil)
	mine := middles(t, c, day0, relays, key(0), 100)
	left := relays
	for m := range mine {
		left = without(left, m)
	}
	if now := middles(t, c, day0.Add(time.Hour), left, key(0), 100); len(now) != PinsPerKey {
		t.Errorf("%d middles, want %d new ones", len(now), PinsPerKey)
	}
}

func TestFewRelaysFillUpAsTheNetworkGrows(t *testing.T) {
	relays := network(12)
	c := New(Rules{}, testRand(6), nil, nil)
	if n := len(middles(t, c, day0, relays[:4], key(0), 50)); n != 2 {
		t.Errorf("%d middles of four relays, two of them guards", n)
	}
	if n := len(middles(t, c, day0, relays, key(0), 100)); n != PinsPerKey {
		t.Errorf("%d middles of twelve relays, want %d", n, PinsPerKey)
	}
}

func TestMiddlesGiveWayToANewGuard(t *testing.T) {
	relays := network(7)
	c := New(Rules{}, testRand(7), nil, nil)
	mine := middles(t, c, day0, relays, key(0), 100)
	// Both guards go for good; of what is left, four are pinned.
	left := without(relays, c.guards.list[0].id, c.guards.list[1].id)
	hops, err := c.Choose(day0.Add(time.Hour), left, key(0), 2, Relay{})
	if err != nil {
		t.Fatal(err)
	}
	if hops[0].ID == hops[1].ID {
		t.Error("a relay is guard and middle of one path")
	}
	if len(mine) != PinsPerKey {
		t.Errorf("%d middles, want %d", len(mine), PinsPerKey)
	}
}

func TestKeysAreBoundedAndForgotten(t *testing.T) {
	relays := network(10)
	c := New(Rules{}, testRand(8), nil, nil)
	for k := range maxKeys + 5 {
		c.pins.entry(key(k), day0.Add(time.Duration(k)*time.Second))
	}
	if n := len(c.pins.keys); n != maxKeys {
		t.Errorf("%d keys, want %d", n, maxKeys)
	}
	if c.pins.keys[key(0)] != nil || c.pins.keys[key(maxKeys+4)] == nil {
		t.Error("the key used longest ago isn't the one that went")
	}
	middles(t, c, day0, relays, key(9), 1)
	c.Forget(key(9))
	if c.pins.keys[key(9)] != nil {
		t.Error("a forgotten key is still there")
	}
}

func TestNoMiddleIsAnError(t *testing.T) {
	relays := network(2)
	_, err := New(Rules{}, testRand(1), nil, nil).Choose(day0, relays, key(0), 2, Relay{})
	var none *NoRelaysError
	if !errors.As(err, &none) || none.For != "middle" {
		t.Errorf("two relays, both guards: %v", err)
	}
}
