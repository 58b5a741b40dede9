package path

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// places puts relays at addresses, in turn.
func places(relays []Relay, addrs ...string) []Relay {
	for i := range relays {
		relays[i].Addr = netip.AddrPortFrom(netip.MustParseAddr(addrs[i%len(addrs)]), uint16(9001+i))
	}
	return relays
}

// TestTooFewRelaysSaysTheTrueCause, and what would help.
func TestTooFewRelaysSaysTheTrueCause(t *testing.T) {
	family := network(5)
	for i := range family {
		for j := range family {
			if i != j {
				family[i].Family = append(family[i].Family, family[j].ID)
			}
		}
	}
	unlisted := network(6)
	unlisted[5].Weight = 0
	mixed := places(network(6), "1.1.0.1", "1.2.0.1", "1.3.0.1", "1.4.0.1", "1.4.0.2", "1.4.0.3")
	for i := range 3 { // four networks and four owners, but not of one and the same relays
		for j := range 3 {
			if i != j {
				mixed[i].Family = append(mixed[i].Family, mixed[j].ID)
			}
		}
	}
	for name, c := range map[string]struct {
		rules  Rules
		relays []Relay
		own    int
		want   string // of the error and, behind a semicolon, of what to do
	}{
		"none":        {Rules{}, nil, 1, "too few relays for a guard: the trackers list none yet; wait"},
		"one":         {Rules{}, network(1), 1, "for a guard: the trackers list 1 relay, and circuits with --hops 1 need 2; start more relays"},
		"two for two": {Rules{}, network(2), 2, "for a middle: the trackers list 2 relays, and circuits with --hops 2 need 4; start more relays, or use --hops 1, which needs 2"},
		"of weight zero": {Rules{}, []Relay{unlisted[5], unlisted[0], unlisted[1], unlisted[2]}, 3,
			"for a middle: the trackers list 3 relays, and circuits with --hops 3 need 4; start more relays, or use --hops 1, which needs 2"},
		"one network": {Rules{}, places(network(5), "5.1.0.1"), 2,
			"for a guard: the 5 relays that the trackers list lie in 1 network (/16 of IPv4, /32 of IPv6), and circuits with --hops 2 need 4, so that nobody who runs one sees two hops of a circuit; start relays elsewhere"},
		"three networks": {Rules{}, places(network(5), "5.1.0.1", "5.2.0.1", "5.3.0.1"), 2,
			"lie in 3 networks (/16 of IPv4, /32 of IPv6), and circuits with --hops 2 need 4, so that nobody who runs one sees two hops of a circuit; start relays elsewhere, or use --hops 1, which needs 2"},
		"one family": {Rules{}, family, 2,
			"the 5 relays that the trackers list belong to 1 owner (--family), and circuits with --hops 2 need 4, so that nobody owns two hops of a circuit; relays of other owners are needed"},
		"networks and owners": {Rules{}, mixed, 3, "leave no choice that keeps networks and owners apart: they lie in 4 networks"},
		"a private network on three hosts": {Rules{Private: true}, places(network(6), "10.0.0.1", "10.0.0.2", "10.0.0.3"), 2,
			"the 6 relays that the trackers list lie in 3 hosts, and circuits with --hops 2 need 4"},
	} {
		// The last hop that leaves the least: a relay of the list.
		var err error
		for seed := uint64(0); err == nil && seed < 200; seed++ {
			last := Relay{}
			if len(c.relays) > 0 {
				last = c.relays[len(c.relays)-1]
			}
			_, err = New(c.rules, testRand(seed), nil, nil).Choose(day0, c.relays, key(1), c.own, last)
		}
		var none *NoRelaysError
		if !errors.As(err, &none) || !errors.Is(err, ErrNoRelays) {
			t.Errorf("%s: %v is not ErrNoRelays", name, err)
		} else if got := err.Error() + "; " + none.Do; !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestTooFewOldRelaysIsSaid(t *testing.T) {
	relays := network(8)
	for i := range relays {
		relays[i].FirstSeen = day0.Add(-time.Hour)
	}
	relays[0].FirstSeen = day0.Add(-30 * day)
	_, err := New(Rules{}, testRand(1), nil, nil).Choose(day0, relays, key(0), 1, relays[0])
	const want = "of the 8 relays that the trackers list 1 are known for long enough (168h0m0s)"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// TestANetworkThatIsMinutesOldHasGuards: those that were there first, and not
// the many that came after.
func TestANetworkThatIsMinutesOldHasGuards(t *testing.T) {
	relays := network(40)
	for i := range relays {
		relays[i].FirstSeen = day0.Add(-4 * time.Minute)
	}
	relays[0].FirstSeen = day0.Add(-10 * time.Minute)
	relays[1].FirstSeen = day0.Add(-5 * time.Minute)
	guards := map[onion.ID]bool{}
	for seed := range uint64(50) {
		c := New(Rules{}, testRand(seed), nil, nil)
		for last := range relays[:10] {
			if _, err := c.Choose(day0, relays, key(1), 2, relays[last]); err != nil {
				t.Fatal(err)
			}
		}
		for _, g := range c.GuardStatus() {
			guards[g.ID] = true
		}
	}
	if len(guards) != 2 || !guards[relays[0].ID] || !guards[relays[1].ID] {
		t.Errorf("%d relays became guards, want the two that are half as old as the network", len(guards))
	}
	c := New(Rules{}, testRand(1), nil, nil)
	for i := range relays {
		relays[i].FirstSeen = day0 // by clocks of seconds
	}
	if _, err := c.Choose(day0, relays, key(1), 2, relays[9]); err != nil {
		t.Errorf("in its first second: %v", err)
	}
}

// TestAPrivateNetworkNeedsHostsAndUsesRangesWhereItHasEnough of them.
func TestAPrivateNetworkNeedsHostsAndUsesRangesWhereItHasEnough(t *testing.T) {
	spread := func(hosts, ranges int) (addrs []string) {
		for i := range hosts {
			addrs = append(addrs, fmt.Sprintf("10.0.%d.%d", i%ranges, 1+i))
		}
		return addrs
	}
	for _, c := range []struct{ hosts, ranges, apart int }{
		{4, 1, 32}, // a LAN
		{8, 3, 32}, // not enough for a path of one hop a range
		{8, 4, 24},
		{40, 10, 24},
	} {
		relays := places(network(c.hosts), spread(c.hosts, c.ranges)...)
		for seed := range uint64(20) {
			chooser := New(Rules{Private: true}, testRand(seed), nil, nil)
			for n := range relays {
				hops, err := chooser.Choose(day0, relays, key(int(seed)), 2, relays[n])
				if err != nil {
					t.Fatalf("%d hosts in %d ranges: %v", c.hosts, c.ranges, err)
				}
				seen := map[netip.Prefix]bool{}
				for _, h := range append(hops, relays[n]) {
					p, _ := h.Addr.Addr().Prefix(c.apart)
					if seen[p] {
						t.Errorf("%d hosts in %d ranges: two hops in %v", c.hosts, c.ranges, p)
					}
					seen[p] = true
				}
			}
		}
	}
}
