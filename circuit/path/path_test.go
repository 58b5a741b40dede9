package path

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

var day0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

func testRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func id(n int) (i onion.ID) {
	binary.BigEndian.PutUint32(i[:], uint32(n+1))
	return i
}

func key(n int) (k Key) {
	binary.LittleEndian.PutUint32(k[:], uint32(n))
	return k
}

// network is n relays of weight 100, each in a /16 of its own, a year old.
func network(n int) []Relay {
	relays := make([]Relay, n)
	for i := range relays {
		relays[i] = Relay{
			ID:        id(i),
			Addr:      netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(1 + i/200), byte(i % 200), 0, 1}), 9001),
			Weight:    100,
			FirstSeen: day0.Add(-365 * day),
		}
	}
	return relays
}

func ids(relays []Relay) (out []onion.ID) {
	for _, r := range relays {
		out = append(out, r.ID)
	}
	return out
}

func TestConflict(t *testing.T) {
	at := func(s string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(s), 1) }
	a, b := id(1), id(2)
	for _, c := range []struct {
		name  string
		rules Rules
		x, y  Relay
		want  bool
	}{
		{"one relay", Rules{SameNet: true}, Relay{ID: a, Addr: at("1.2.3.4")}, Relay{ID: a, Addr: at("9.2.3.4")}, true},
		{"one /16", Rules{}, Relay{ID: a, Addr: at("1.2.3.4")}, Relay{ID: b, Addr: at("1.2.200.9")}, true},
		{"one /16, one of them mapped", Rules{}, Relay{ID: a, Addr: at("::ffff:1.2.3.4")}, Relay{ID: b, Addr: at("1.2.200.9")}, true},
		{"next /16", Rules{}, Relay{ID: a, Addr: at("1.2.3.4")}, Relay{ID: b, Addr: at("1.3.3.4")}, false},
		{"one /32 of IPv6", Rules{}, Relay{ID: a, Addr: at("2a01:4f8:1::1")}, Relay{ID: b, Addr: at("2a01:4f8:9::1")}, true},
		{"next /32 of IPv6", Rules{}, Relay{ID: a, Addr: at("2a01:4f8::1")}, Relay{ID: b, Addr: at("2a01:4f9::1")}, false},
		{"IPv4 and IPv6", Rules{}, Relay{ID: a, Addr: at("1.2.3.4")}, Relay{ID: b, Addr: at("2a01::1")}, false},
		{"loopback is a network like others", Rules{}, Relay{ID: a, Addr: at("127.0.0.1")}, Relay{ID: b, Addr: at("127.0.0.1")}, true},
		{"private: one host", Rules{}, Relay{ID: a, Addr: at("10.0.0.4")}, Relay{ID: b, Addr: at("10.0.0.4")}, true},
		{"private: two hosts beside each other", Rules{}, Relay{ID: a, Addr: at("10.0.0.4")}, Relay{ID: b, Addr: at("10.0.0.5")}, false},
		{"private: two hosts in one of many ranges", Rules{ranges: true}, Relay{ID: a, Addr: at("10.0.0.4")}, Relay{ID: b, Addr: at("10.0.0.5")}, true},
		{"private: hosts in two ranges", Rules{ranges: true}, Relay{ID: a, Addr: at("10.0.0.4")}, Relay{ID: b, Addr: at("10.0.1.4")}, false},
		{"private: one /64 of many", Rules{ranges: true}, Relay{ID: a, Addr: at("fd00::1")}, Relay{ID: b, Addr: at("fd00::2")}, true},
		{"private: two hosts of IPv6", Rules{}, Relay{ID: a, Addr: at("fd00::1")}, Relay{ID: b, Addr: at("fd00::2")}, false},
		{"one /16 in a test network", Rules{SameNet: true}, Relay{ID: a, Addr: at("127.0.0.1")}, Relay{ID: b, Addr: at("127.0.0.1")}, false},
		{"a test flag alone relaxes no address", Rules{Test: true}, Relay{ID: a, Addr: at("127.0.0.1")}, Relay{ID: b, Addr: at("127.0.0.1")}, true},
		{"family that both declare", Rules{SameNet: true}, Relay{ID: a, Addr: at("1.2.3.4"), Family: []onion.ID{b}}, Relay{ID: b, Addr: at("9.9.3.4"), Family: []onion.ID{a}}, true},
		{"family that one declares", Rules{}, Relay{ID: a, Addr: at("1.2.3.4"), Family: []onion.ID{b}}, Relay{ID: b, Addr: at("9.9.3.4")}, false},
	} {
		c.rules.Private = strings.HasPrefix(c.name, "private")
		if got := c.rules.Conflict(&c.x, &c.y); got != c.want {
			t.Errorf("%s: Conflict = %v, want %v", c.name, got, c.want)
		}
		if got := c.rules.Conflict(&c.y, &c.x); got != c.want {
			t.Errorf("%s, turned round: Conflict = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestPickIsProportionalToWeight(t *testing.T) {
	relays := network(5)
	weights := []uint64{1, 2, 3, 0, 4}
	for i := range relays {
		relays[i].Weight = weights[i] * 1e6
	}
	const n = 100_000
	got := map[onion.ID]int{}
	rng := testRand(1)
	for range n {
		got[Pick(rng, relays, nil).ID]++
	}
	for i, w := range weights {
		want := float64(w) / 10 * n
		if d := float64(got[id(i)]) - want; d*d > 25*want+1 { // five sigma
			t.Errorf("relay of weight %d drawn %d times, want about %.0f", w, got[id(i)], want)
		}
	}
}

func TestPickDoesNotOverflow(t *testing.T) {
	relays := network(4)
	for i := range relays {
		relays[i].Weight = 1<<64 - 1
	}
	seen := map[onion.ID]bool{}
	rng := testRand(2)
	for range 200 {
		seen[Pick(rng, relays, nil).ID] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d of 4 relays of the greatest weight were drawn", len(seen))
	}
}

func TestPickOfNothingIsNil(t *testing.T) {
	relays := network(2)
	relays[0].Weight = 0
	relays[1].Addr = netip.AddrPort{}
	if r := Pick(testRand(1), relays, nil); r != nil {
		t.Errorf("Pick = %v of relays that can't be used", r.ID.Short())
	}
}

func TestChooseGivesDistinctRelaysAtEveryLength(t *testing.T) {
	relays := network(40)
	c := New(Rules{}, testRand(3), nil, nil)
	for n := range 2000 {
		own := 1 + n%MaxOwn
		last := relays[n%len(relays)]
		hops, err := c.Choose(day0, relays, key(n%7), own, last)
		if err != nil {
			t.Fatalf("Choose of %d: %v", own, err)
		}
		if len(hops) != own {
			t.Fatalf("%d hops, want %d", len(hops), own)
		}
		seen := append(ids(hops), last.ID)
		slices.SortFunc(seen, func(a, b onion.ID) int { return strings.Compare(a.String(), b.String()) })
		if len(slices.Compact(seen)) != own+1 {
			t.Fatalf("a relay twice on a path of %d and its last hop", own)
		}
	}
	if n := len(c.guards.list); n != Primary {
		t.Errorf("%d guards after 2000 circuits to every last hop, want %d", n, Primary)
	}
	for n := range 7 {
		if p := c.pins.keys[key(n)]; !p.full() {
			t.Errorf("pinned middles %v, want %d", p.slots, PinsPerKey)
		}
	}
}

func TestChooseKeepsNetworksAndFamiliesApart(t *testing.T) {
	relays := network(60)
	for i := range relays { // 20 networks of three, 30 families of two
		relays[i].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{5, byte(i / 3), byte(i), 1}), 9001)
		relays[i].Family = []onion.ID{relays[59-i].ID}
	}
	rules := Rules{}
	c := New(rules, testRand(4), nil, nil)
	for n := range 1000 {
		last := relays[n%len(relays)]
		hops, err := c.Choose(day0, relays, key(n%5), 4, last)
		if err != nil {
			t.Fatal(err)
		}
		all := append(hops, last)
		for i := range all {
			for j := range i {
				if rules.Conflict(&all[i], &all[j]) {
					t.Fatalf("hops %d and %d of one path conflict", j, i)
				}
			}
		}
	}
}

func TestChooseRefusesWrongLengths(t *testing.T) {
	relays := network(10)
	c := New(Rules{}, testRand(1), nil, nil)
	for _, own := range []int{-1, 0, MaxOwn + 1} {
		if _, err := c.Choose(day0, relays, key(1), own, relays[0]); err == nil || errors.Is(err, ErrNoRelays) {
			t.Errorf("Choose of %d own relays: %v", own, err)
		}
	}
	c = New(Rules{Test: true}, testRand(1), nil, nil)
	if hops, err := c.Choose(day0, relays, key(1), 0, relays[0]); err != nil || len(hops) != 0 {
		t.Errorf("no own relays in a test network: %v, %v", hops, err)
	}
}

func TestFiveRelaysInOneNetworkMakeATestNetwork(t *testing.T) {
	relays := network(5)
	for i := range relays {
		relays[i].Addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(9000+i))
		relays[i].FirstSeen = day0
	}
	if _, err := New(Rules{}, testRand(1), nil, nil).Choose(day0, relays, key(1), 2, relays[0]); !errors.Is(err, ErrNoRelays) {
		t.Errorf("strict rules gave a path of one network: %v", err)
	}
	for seed := range uint64(50) {
		c := New(Rules{Test: true, SameNet: true}, testRand(seed), nil, nil)
		for n := range 20 {
			last := relays[n%5]
			if _, err := c.Choose(day0, relays, key(n), 2, last); err != nil {
				t.Fatalf("seed %d, circuit %d: %v", seed, n, err)
			}
		}
	}
}

// TestMinRelaysIsTheLeastFromWhichEveryPathCanBeChosen, when each lies in a
// network of its own.
func TestMinRelaysIsTheLeastFromWhichEveryPathCanBeChosen(t *testing.T) {
	for own := 1; own <= MaxOwn; own++ {
		fails := func(n int) (failed int) {
			relays := network(n)
			for seed := range uint64(30) {
				c := New(Rules{}, testRand(seed), nil, nil)
				for last := range relays {
					if _, err := c.Choose(day0, relays, key(int(seed)), own, relays[last]); err != nil {
						failed++
					}
				}
			}
			return failed
		}
		if n := fails(MinRelays(own)); n > 0 {
			t.Errorf("with %d relays %d paths of %d own relays could not be chosen", MinRelays(own), n, own)
		}
		if fails(MinRelays(own)-1) == 0 {
			t.Errorf("%d relays are enough for %d own relays, MinRelays says %d", MinRelays(own)-1, own, MinRelays(own))
		}
	}
}

func TestFailedEdgesAreAvoidedForSomeMinutes(t *testing.T) {
	relays := network(30)
	c := New(Rules{}, testRand(5), nil, nil)
	last := relays[7]
	hops, err := c.Choose(day0, relays, key(0), 3, last)
	if err != nil {
		t.Fatal(err)
	}
	c.EdgeFailed(day0, hops[0].ID, hops[1].ID)
	c.EdgeFailed(day0, hops[2].ID, last.ID)
	used := func(now time.Time) (first, second bool) {
		for range 400 {
			p, err := c.Choose(now, relays, key(0), 3, last)
			if err != nil {
				t.Fatal(err)
			}
			first = first || p[0].ID == hops[0].ID && p[1].ID == hops[1].ID
			second = second || p[2].ID == hops[2].ID
		}
		return first, second
	}
	if a, b := used(day0.Add(edgeLife - 1)); a || b {
		t.Errorf("failed edges taken again: guard to middle %v, to the last hop %v", a, b)
	}
	if a, b := used(day0.Add(edgeLife)); !a || !b {
		t.Errorf("failed edges still avoided: guard to middle %v, to the last hop %v", !a, !b)
	}
	if s := c.GuardStatus()[0]; s.Tried != 0 {
		t.Errorf("guard charged with %d circuits for failed edges", s.Tried)
	}
}

func TestAllPinnedEdgesFailedDrawsNoFifthMiddle(t *testing.T) {
	relays := network(30)
	c := New(Rules{}, testRand(6), nil, nil)
	last := relays[7]
	seen := map[onion.ID]bool{}
	for range 500 {
		hops, err := c.Choose(day0, relays, key(0), 2, last)
		if err != nil {
			t.Fatal(err)
		}
		seen[hops[1].ID] = true
		c.EdgeFailed(day0, hops[0].ID, hops[1].ID)
	}
	if len(seen) > PinsPerKey {
		t.Errorf("%d middles shown to a guard that fails every edge, want at most %d", len(seen), PinsPerKey)
	}
}

func TestEdgesAreBounded(t *testing.T) {
	e := edges{}
	for i := range maxEdges + 100 {
		e.add(day0.Add(time.Duration(i)*time.Millisecond), id(i), id(i+1))
	}
	if len(e) > maxEdges {
		t.Errorf("%d edges kept, want at most %d", len(e), maxEdges)
	}
	n := maxEdges + 99
	if !e.failed(day0.Add(time.Minute), id(n), id(n+1)) {
		t.Error("the newest edge was dropped")
	}
	e.add(day0.Add(time.Hour), id(1), id(2))
	if len(e) != 1 {
		t.Errorf("%d edges after an hour, want 1", len(e))
	}
}

func TestMeetingRelaysAreDistinctAndWeighted(t *testing.T) {
	relays := network(10)
	relays[0].Weight = 900
	c := New(Rules{}, testRand(8), nil, nil)
	heavy := 0
	for range 2000 {
		m, err := c.ChooseMeeting(relays, 3, relays[4].ID)
		if err != nil {
			t.Fatal(err)
		}
		got := ids(m)
		if got[0] == got[1] || got[1] == got[2] || got[0] == got[2] {
			t.Fatal("a meeting relay twice")
		}
		if slices.Contains(got, relays[4].ID) {
			t.Fatal("a relay to be avoided was drawn")
		}
		if got[0] == relays[0].ID {
			heavy++
		}
	}
	if heavy < 940 || heavy > 1180 { // 900 of 1700
		t.Errorf("the relay with 9/17 of the weight came first %d times in 2000", heavy)
	}
	if _, err := c.ChooseMeeting(relays[:2], 3); !errors.Is(err, ErrNoRelays) {
		t.Errorf("three of two: %v", err)
	}
}

// A peer who owns last hops makes a sidecar build circuits to them and hopes
// to own, one day, the relay next to its guard. 5 % of the relays are his.
func TestPinnedMiddlesBoundWhatForcedCircuitsTell(t *testing.T) {
	const (
		total, evil = 100, 5
		sidecars    = 100
		circuits    = 120
	)
	relays := network(total)
	his := map[onion.ID]bool{}
	for _, i := range ids(relays[:evil]) {
		his[i] = true
	}
	for own := 2; own <= 3; own++ {
		beside, fresh := 0, 0
		for s := range sidecars {
			c := New(Rules{}, testRand(uint64(s)), nil, nil)
			seen := map[onion.ID]bool{}
			hit, freshHit := false, false
			for n := range circuits {
				hops, err := c.Choose(day0.Add(time.Duration(n)*time.Minute), relays, key(s), own, relays[n%evil])
				if err != nil {
					t.Fatal(err)
				}
				m := hops[1].ID
				seen[m] = true
				hit = hit || his[m]
				freshHit = freshHit || his[Pick(c.rng, relays, nil).ID]
			}
			if len(seen) > PinsPerKey+1 { // the time of one may end meanwhile
				t.Fatalf("%d different middles in %d forced circuits", len(seen), circuits)
			}
			if hit {
				beside++
			}
			if freshHit {
				fresh++
			}
		}
		// 1-(1-1/20)^4 is 19 %.
		if beside > sidecars*30/100 {
			t.Errorf("%d own relays: beside the guard of %d of %d sidecars", own, beside, sidecars)
		}
		if fresh < sidecars*97/100 {
			t.Errorf("fresh middles would have told of only %d of %d: the simulation shows nothing", fresh, sidecars)
		}
		t.Logf("%d own relays, %d forced circuits: pinned %d %%, fresh %d %% of guards found", own, circuits, beside*100/sidecars, fresh*100/sidecars)
	}
}

func TestAChooserServesManyAtOnce(t *testing.T) {
	relays := network(40)
	c := New(Rules{}, testRand(10), nil, nil)
	dir := t.TempDir()
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			for i := range 50 {
				now := day0.Add(time.Duration(i) * time.Hour)
				hops, err := c.Choose(now, relays, key(n), 3, relays[i%40])
				if err != nil {
					t.Error(err)
					return
				}
				c.GuardResult(hops[0].ID, i%3 > 0)
				c.GuardDown(now, hops[0].ID)
				c.GuardUp(hops[0].ID)
				c.EdgeFailed(now, hops[1].ID, hops[2].ID)
				c.GuardStatus()
				if i%10 == 0 {
					if err := c.SaveGuards(filepath.Join(dir, "g")); err != nil {
						t.Error(err)
					}
				}
				c.Forget(key(n + 4))
			}
		})
	}
	all.Wait()
	if err := c.SaveGuards(filepath.Join(dir, "g")); err != nil {
		t.Fatal(err)
	}
	gs, err := LoadGuards(filepath.Join(dir, "g"))
	if err != nil || !slices.Equal(New(Rules{}, testRand(1), gs, nil).GuardStatus(), c.GuardStatus()) {
		t.Errorf("the last file isn't the last state: %v", err)
	}
}

func BenchmarkChoose(b *testing.B) {
	relays := network(2000)
	c := New(Rules{}, testRand(1), nil, nil)
	n := 0
	for b.Loop() {
		if _, err := c.Choose(day0, relays, key(n%50), 2, relays[n%2000]); err != nil {
			b.Fatal(err)
		}
		n++
	}
}
