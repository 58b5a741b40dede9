package hop

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestWhereOthersReachARelayIsDecided(t *testing.T) {
	addrs := func(ss string) (out []netip.Addr) {
		for _, s := range strings.Fields(ss) {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	private := errors.New("private")
	public := func(a netip.Addr) error {
		if a.IsPrivate() || a.IsLoopback() {
			return private
		}
		return nil
	}
	for name, c := range map[string]struct {
		listen, advertise string
		own, seen         string
		trackers          int
		want, how         string
		private           bool
	}{
		"a public machine, nobody asked yet":   {"0.0.0.0:9001", "", "5.1.0.1", "", 3, "5.1.0.1:9001", "this machine's address", false},
		"a public machine, seen so":            {"[::]:9001", "", "5.1.0.1", "5.1.0.1 5.1.0.1 5.1.0.1", 3, "5.1.0.1:9001", "seen by 3 of 3 trackers", false},
		"behind NAT, nobody asked yet":         {"0.0.0.0:9001", "", "10.0.0.5", "", 3, "10.0.0.5:9001", "this machine's address", true},
		"behind NAT, one of three":             {"0.0.0.0:9001", "", "10.0.0.5", "6.6.6.6", 3, "10.0.0.5:9001", "this machine's address", true},
		"behind NAT, two of three":             {"0.0.0.0:9001", "", "10.0.0.5", "5.1.0.1 5.1.0.1", 3, "5.1.0.1:9001", "seen by 2 of 3 trackers", false},
		"behind NAT, one of three lies":        {"0.0.0.0:9001", "", "10.0.0.5", "6.6.6.6 5.1.0.1 5.1.0.1", 3, "5.1.0.1:9001", "seen by 2 of 3 trackers", false},
		"two of four are no majority":          {"0.0.0.0:9001", "", "5.1.0.1", "6.6.6.6 6.6.6.6 5.1.0.1", 4, "5.1.0.1:9001", "this machine's address", false},
		"one liar moves nobody":                {"0.0.0.0:9001", "", "5.1.0.1", "6.6.6.6 5.1.0.1", 3, "5.1.0.1:9001", "this machine's address", false},
		"the only tracker":                     {"0.0.0.0:9001", "", "10.0.0.5", "5.1.0.1", 1, "5.1.0.1:9001", "seen by 1 of 1 trackers", false},
		"one of two":                           {"0.0.0.0:9001", "", "10.0.0.5", "5.1.0.1", 2, "10.0.0.5:9001", "this machine's address", true},
		"trackers in the same LAN":             {"0.0.0.0:9001", "", "10.0.0.5", "10.0.0.5 10.0.0.5", 2, "10.0.0.5:9001", "seen by 2 of 2 trackers", true},
		"several networks":                     {"0.0.0.0:9001", "", "10.0.0.5 5.1.0.1", "", 3, "5.1.0.1:9001", "an address of this machine", false},
		"a listener on one address":            {"5.1.0.1:9001", "", "5.1.0.9", "5.1.0.9 5.1.0.9", 3, "5.1.0.1:9001", "where it listens", false},
		"a listener behind NAT":                {"10.0.0.5:9001", "", "10.0.0.5", "5.1.0.9 5.1.0.9", 3, "5.1.0.9:9001", "seen by 2 of 3 trackers", false},
		"advertised":                           {"0.0.0.0:9001", "7.7.7.7:443", "5.1.0.1", "5.1.0.1 5.1.0.1 5.1.0.1", 3, "7.7.7.7:443", "set by --advertise", false},
		"advertised without a port":            {"0.0.0.0:9001", "7.7.7.7", "5.1.0.1", "", 3, "7.7.7.7:9001", "set by --advertise", false},
		"advertised as mapped":                 {"0.0.0.0:9001", "::ffff:7.7.7.7", "5.1.0.1", "", 3, "7.7.7.7:9001", "set by --advertise", false},
		"a port advertised":                    {"0.0.0.0:9001", "443", "10.0.0.5", "5.1.0.1 5.1.0.1", 3, "5.1.0.1:443", "seen by 2 of 3 trackers", false},
		"a private address advertised":         {"0.0.0.0:9001", "10.0.0.5", "5.1.0.1", "", 3, "10.0.0.5:9001", "set by --advertise", true},
		"seen at an address nobody listens on": {"0.0.0.0:9001", "", "5.1.0.1", "2a00::1 2a00::1", 3, "5.1.0.1:9001", "this machine's address", false},
		"IPv6":                                 {"[::]:9001", "", "10.0.0.5 2a00::1", "", 3, "[2a00::1]:9001", "an address of this machine", false},
		"seen through a mapped socket":         {"[::]:9001", "", "10.0.0.5", "::ffff:5.1.0.1 5.1.0.1", 3, "5.1.0.1:9001", "seen by 2 of 3 trackers", false},
		"no network yet":                       {"0.0.0.0:9001", "", "", "", 3, "127.0.0.1:9001", "loopback", true},
		"a tracker that says nothing":          {"0.0.0.0:9001", "", "5.1.0.1", "", 0, "5.1.0.1:9001", "this machine's address", false},
	} {
		p := Place{Listen: netip.MustParseAddrPort(c.listen), Own: addrs(c.own), Seen: addrs(c.seen), Trackers: c.trackers, Allowed: public}
		if c.advertise != "" {
			var err error
			if p.Advertise, err = ParseAdvertise(c.advertise); err != nil {
				t.Fatal(err)
			}
		}
		got := p.Find()
		if got.Addr.String() != c.want || got.How != c.how || (got.Err != nil) != c.private {
			t.Errorf("%s: %+v, want %s, %s, an error %v", name, got, c.want, c.how, c.private)
		}
	}
}

func TestAdvertiseTakesAnAddressAPortOrBoth(t *testing.T) {
	for s, want := range map[string]string{"5.1.0.1": "5.1.0.1:0", "5.1.0.1:443": "5.1.0.1:443", "2a00::1": "[2a00::1]:0", "[2a00::1]:443": "[2a00::1]:443",
		"443": "invalid AddrPort", ":443": "invalid AddrPort"} {
		if got, err := ParseAdvertise(s); err != nil || got.String() != want || !got.IsValid() && got.Port() != 443 {
			t.Errorf("ParseAdvertise(%q) = %v, %v, want %s", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "65536", "-1", "0.0.0.0", "[::]:9001", "0.0.0.0:9001", "example.org", "example.org:9001", "5.1.0.1:x", "443 ", "::x443", ":", "fe80::1%eth0", "224.0.0.1"} {
		if got, err := ParseAdvertise(s); err == nil {
			t.Errorf("ParseAdvertise(%q) = %v", s, got)
		}
	}
}

func TestOwnAddressesBeginWithTheOneToDialFrom(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	if own := OwnAddrs(netip.Addr{}, netip.MustParseAddrPort("127.0.0.1:9")); len(own) == 0 || own[0] != local {
		t.Errorf("OwnAddrs = %v, want %v first", own, local)
	}
	source := netip.MustParseAddr("192.0.2.7")
	if own := OwnAddrs(source, netip.MustParseAddrPort("127.0.0.1:9")); !slices.Equal(own, []netip.Addr{source}) {
		t.Errorf("OwnAddrs from %v = %v", source, own)
	}
}

func TestAPlaceIsKnownWithoutListeningThere(t *testing.T) {
	p := Place{Own: []netip.Addr{netip.MustParseAddr("2a00::1")}, Allowed: func(netip.Addr) error { return nil }}
	for addr, want := range map[string]string{"0.0.0.0:9001": "[2a00::1]:9001", ":9001": "[2a00::1]:9001", "[::]:9001": "[2a00::1]:9001", "5.1.0.1:9001": "5.1.0.1:9001"} {
		if p, err := p.At(addr); err != nil || p.Find().Addr.String() != want {
			t.Errorf("at %s: %+v, %v, want %s", addr, p.Find(), err, want)
		}
	}
	for _, addr := range []string{"", "9001", "0.0.0.0:0", "localhost:9001", ":"} {
		if p, err := p.At(addr); err == nil {
			t.Errorf("at %q: %+v", addr, p.Find())
		}
	}
}
