package path

import (
	"errors"
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

func TestPinLifeIsTheGreaterOfTwoDraws(t *testing.T) {
	rng := testRand(1)
	const n = 4_000
	var sum time.Duration
	for range n {
		l := pinLife(rng)
		if l < minPinLife || l > maxPinLife {
			t.Fatalf("a middle for %v", l)
		}
		sum += l
	}
	// The greater of two uniform draws is two thirds of the way, on average.
	want := minPinLife + (maxPinLife-minPinLife)*2/3
	if got := sum / n; got < want-8*time.Hour || got > want+8*time.Hour {
		t.Errorf("middles stay %v on average, want %v", got, want)
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
		ps := c.pins.entry(key(k), day0.Add(time.Duration(k)*time.Second))
		ps.list = nil
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
