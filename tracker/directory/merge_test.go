package directory

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
)

func TestLowerMedianNeedsMoreThanHalf(t *testing.T) {
	for _, c := range []struct {
		given []uint64
		n     int
		want  uint64
	}{
		{nil, 1, 0}, {[]uint64{5}, 1, 5},
		{[]uint64{5}, 2, 0}, {[]uint64{9, 5}, 2, 5},
		{[]uint64{5}, 3, 0}, {[]uint64{9, 5}, 3, 5}, {[]uint64{9, 5, 7}, 3, 7},
		{[]uint64{5, 6}, 4, 0}, {[]uint64{5, 6, 7}, 4, 5}, {[]uint64{5, 6, 7, 8}, 4, 6},
		{[]uint64{5, 6}, 5, 0}, {[]uint64{5, 6, 7}, 5, 5}, {[]uint64{1 << 60, 6, 7, 8, 5}, 5, 7},
	} {
		if got := lowerMedian(slices.Clone(c.given), c.n); got != c.want {
			t.Errorf("lowerMedian(%v, %d) = %d, want %d", c.given, c.n, got, c.want)
		}
	}
}

// merged merges what each of the trackers says; nil is a tracker without a view.
func merged(t *testing.T, at time.Time, says ...[]said) *Merged {
	t.Helper()
	n := testNetwork(len(says))
	return Merge(&n, views(t, says...), at)
}

func views(t *testing.T, says ...[]said) map[[32]byte]*View {
	views := make(map[[32]byte]*View)
	for i, lines := range says {
		if lines != nil {
			views[trackerKey(i)] = view(t, i, testNow, nil, lines...)
		}
	}
	return views
}

func weightOf(m *Merged, n int) uint64 {
	for _, r := range m.Relays {
		if r.ID == idOfKey(n) {
			return r.Weight
		}
	}
	return 0
}

func TestRelayCountsWhenMoreThanHalfOfTheTrackersListIt(t *testing.T) {
	a, b, c := relay(t, 1), relay(t, 2), relay(t, 3)
	m := merged(t, testNow,
		[]said{{a, 100, 5}, {b, 1000, 5}, {c, 7, 5}},
		[]said{{a, 300, 5}, {c, 0, 5}},
		[]said{{a, 200, 5}},
	)
	for n, want := range map[int]uint64{1: 200, 2: 0, 3: 0} {
		if got := weightOf(m, n); got != want {
			t.Errorf("relay %d has weight %d, want %d", n, got, want)
		}
	}
	if m.Listed[b.ID] != nil || m.Listed[c.ID] == nil {
		t.Error("listed is who more than half know, whatever its weight")
	}
	if err := m.Ready(); err != nil {
		t.Error(err)
	}
}

func TestTrackerThatIsGoneCostsNothing(t *testing.T) {
	a := relay(t, 1)
	m := merged(t, testNow, []said{{a, 100, 5}}, []said{{a, 300, 5}}, nil)
	if got := weightOf(m, 1); got != 100 {
		t.Errorf("weight %d, want the lesser of two, 100", got)
	}
	if m = merged(t, testNow, []said{{a, 100, 5}}, nil, nil); weightOf(m, 1) != 0 {
		t.Error("one of three trackers lists a relay alone")
	}
	if m.Ready() == nil {
		t.Error("ready with one view of three")
	}
}

func TestMinorityOfTrackersCanNotInflateARelay(t *testing.T) {
	a := relay(t, 1)
	m := merged(t, testNow, []said{{a, 10, 5}}, []said{{a, 20, 5}}, []said{{a, 30, 5}}, []said{{a, 1 << 62, 5000}}, []said{{a, 1 << 63, 5000}})
	if got := weightOf(m, 1); got != 30 {
		t.Errorf("weight %d, want 30", got)
	}
	if age := testNow.Sub(m.Relays[0].FirstSeen); age != 5*time.Hour {
		t.Errorf("known for %v, want 5h", age)
	}
}

func TestNewestDescriptorIsTaken(t *testing.T) {
	before := relay(t, 1)
	after := relay(t, 1, func(d *Descriptor) { d.Published++; d.Keys = []onion.PublicKey{onionKey(t, 2, 2)} })
	m := merged(t, testNow, []said{{before, 100, 5}}, []said{{after, 100, 5}}, []said{{before, 100, 5}})
	if got := m.Relays[0].Key.Number(); got != 2 {
		t.Errorf("onion key %d, want 2", got)
	}
}

func TestRelayAtALocalAddressOrWithATrackersKeyIsLeftOut(t *testing.T) {
	home := relay(t, 1, func(d *Descriptor) { d.Addrs[0] = netip.MustParseAddrPort("192.168.1.1:9001") })
	tracker := relay(t, trackerBase)
	m := merged(t, testNow, []said{{home, 100, 5}, {tracker, 100, 5}})
	if len(m.Relays) != 0 || len(m.Listed) != 0 {
		t.Errorf("%d relays", len(m.Relays))
	}
	n := testNetwork(1)
	n.Test = true
	if m := Merge(&n, views(t, []said{{home, 100, 5}}), testNow); len(m.Relays) != 1 {
		t.Error("left out of a test network too")
	}

	private := Network{Trackers: n.Trackers, Within: prefixes("192.168.0.0/16")}
	m = Merge(&private, views(t, []said{{home, 100, 5}, {relay(t, 2), 100, 5}}), testNow)
	if len(m.Relays) != 1 || m.Relays[0].ID != home.ID || len(m.Listed) != 1 {
		t.Errorf("a private network lists %d relays, want the one in its range", len(m.Listed))
	}
}

func TestDescriptorOfLastWeekIsLeftOut(t *testing.T) {
	old := relay(t, 1, func(d *Descriptor) { d.Published = testNow.Add(-7 * 24 * time.Hour).Unix() })
	if m := merged(t, testNow, []said{{old, 100, 500}}); len(m.Listed) != 0 {
		t.Error("listed with an onion key that is long erased")
	}
}

func TestFamilyCountsWhenItIsMutual(t *testing.T) {
	of := func(ids ...int) func(*Descriptor) {
		return func(d *Descriptor) {
			for _, n := range ids {
				d.Family = append(d.Family, idOfKey(n))
			}
			slices.SortFunc(d.Family, func(a, b onion.ID) int { return slices.Compare(a[:], b[:]) })
		}
	}
	m := merged(t, testNow, []said{{relay(t, 1, of(2, 3)), 1, 5}, {relay(t, 2, of(1)), 1, 5}, {relay(t, 3), 1, 5}})
	for _, r := range m.Relays {
		want := map[onion.ID][]onion.ID{idOfKey(1): {idOfKey(2)}, idOfKey(2): {idOfKey(1)}}[r.ID]
		if !slices.Equal(r.Family, want) {
			t.Errorf("family of %s has %d members, want %d", r.ID.Short(), len(r.Family), len(want))
		}
	}
}

func TestViewsLapse(t *testing.T) {
	lines := []said{{relay(t, 1), 100, 5}}
	for _, c := range []struct {
		after  time.Duration
		relays int
		stale  bool
	}{
		{0, 1, false}, {ValidFor - time.Second, 1, false}, {ValidFor, 1, true}, {UsableFor - time.Second, 1, true}, {UsableFor, 0, true},
	} {
		m := merged(t, testNow.Add(c.after), lines, lines, lines)
		if len(m.Relays) != c.relays || m.Stale != c.stale {
			t.Errorf("after %v: %d relays, stale %v, want %d, %v", c.after, len(m.Relays), m.Stale, c.relays, c.stale)
		}
		if err := m.Ready(); (err != nil) != c.stale {
			t.Errorf("after %v: %v", c.after, err)
		}
	}
}

func TestOneStaleViewDoesNotMakeTheOthersStale(t *testing.T) {
	a, b := relay(t, 1), relay(t, 2)
	n := testNetwork(3)
	vs := views(t, []said{{a, 100, 5}}, []said{{a, 100, 5}}, nil)
	vs[trackerKey(2)] = view(t, 2, testNow.Add(-ValidFor), nil, said{a, 100, 5}, said{b, 100, 5})
	if m := Merge(&n, vs, testNow); m.Stale || m.Views != 2 || !m.Until.Equal(testNow.Add(UsableFor-ValidFor)) && !m.Until.Equal(testNow.Add(ValidFor)) {
		t.Errorf("stale %v, %d views, until %v", m.Stale, m.Views, m.Until)
	}
}

func plain(n int, weight func(i int) uint64) (relays []path.Relay) {
	for i := range n {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{8, byte(i), 0, 1}), 1)
		relays = append(relays, path.Relay{ID: idOfKey(i), Addr: addr, Weight: weight(i)})
	}
	return relays
}

func share(relays []path.Relay, in func(i int) bool) float64 {
	var part, all float64
	for i, r := range relays {
		all += float64(r.Weight)
		if in(i) {
			part += float64(r.Weight)
		}
	}
	return part / all
}

func TestNoRelayHoldsMoreThanItsShare(t *testing.T) {
	relays := plain(100, func(i int) uint64 {
		if i < 3 {
			return 1 << 40
		}
		return 1 << 20
	})
	capWeights(relays, path.Rules{})
	for i := range relays {
		if s := share(relays, func(j int) bool { return j == i }); s > maxShare+0.001 {
			t.Errorf("relay %d has a share of %.3f", i, s)
		}
	}
	if relays[50].Weight != 1<<20 {
		t.Errorf("a small relay was lowered to %d", relays[50].Weight)
	}
}

func TestNoNetworkOrFamilyHoldsMoreThanItsShare(t *testing.T) {
	relays := plain(100, func(i int) uint64 { return 1 << 20 })
	for i := range 30 {
		relays[i].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{8, 200, byte(i), 1}), 1)
	}
	for i := 40; i < 69; i++ {
		relays[i].Family = append(relays[i].Family, relays[i+1].ID)
	}
	capWeights(relays, path.Rules{})
	if s := share(relays, func(i int) bool { return i < 30 }); s > maxGroupShare+0.01 {
		t.Errorf("one /16 has a share of %.3f", s)
	}
	if s := share(relays, func(i int) bool { return i >= 40 && i <= 69 }); s > maxGroupShare+0.01 {
		t.Errorf("one family has a share of %.3f", s)
	}
}

func TestOneHostOfAPrivateNetworkHoldsNoMoreThanItsShare(t *testing.T) {
	relays := plain(100, func(i int) uint64 { return 1 << 20 })
	for i := range relays {
		relays[i].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(max(i, 30))}), uint16(9000+i))
	}
	capWeights(relays, path.Rules{Private: true})
	if s := share(relays, func(i int) bool { return i <= 30 }); s > maxGroupShare+0.01 {
		t.Errorf("one host has a share of %.3f", s)
	}
	if relays[99].Weight != 1<<20 {
		t.Errorf("a host beside it was lowered to %d", relays[99].Weight)
	}
}

func TestSmallNetworkIsNotCapped(t *testing.T) {
	relays := plain(10, func(i int) uint64 { return uint64(1 + 1000*i) })
	capWeights(relays, path.Rules{})
	for i, r := range relays {
		if r.Weight != uint64(1+1000*i) {
			t.Errorf("relay %d was lowered to %d", i, r.Weight)
		}
	}
}

func TestWeightAtMostDoublesADay(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		last, measured uint64
		since          time.Duration
		want           uint64
	}{
		{0, mb / 2, 0, mb / 2},
		{0, 50 * mb, 0, mb},
		{10 * mb, 5 * mb, 0, 5 * mb},
		{10 * mb, 50 * mb, 0, 10 * mb},
		{10 * mb, 50 * mb, 12 * time.Hour, 15 * mb},
		{10 * mb, 50 * mb, 24 * time.Hour, 20 * mb},
		{10 * mb, 50 * mb, 48 * time.Hour, 40 * mb},
		{10 * mb, 50 * mb, 1000 * time.Hour, 50 * mb},
		{1 << 63, 1 << 63, 1e6 * time.Hour, 1 << 50},
		{10 * mb, 50 * mb, -time.Hour, 10 * mb},
	} {
		if got := Grow(c.last, c.measured, c.since); got != c.want {
			t.Errorf("Grow(%d, %d, %v) = %d, want %d", c.last, c.measured, c.since, got, c.want)
		}
	}
}
