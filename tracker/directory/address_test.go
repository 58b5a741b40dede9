package directory

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// TestEachNetworkHasItsAddresses: where a relay or tracker may be.
func TestEachNetworkHasItsAddresses(t *testing.T) {
	public, test := Network{}, Network{Test: true}
	lan := Network{Within: prefixes("10.1.0.0/16", "fd00:1::/48")}
	tailscale := Network{Within: prefixes("100.64.0.0/10")}
	for addr, want := range map[string]struct{ public, lan, tailscale bool }{
		"8.8.8.8": {public: true}, "2a00:1::2": {public: true},
		"10.1.2.3": {lan: true}, "fd00:1::9": {lan: true}, "100.64.0.1": {tailscale: true}, "100.127.255.254": {tailscale: true},
		"10.2.0.1": {}, "fd00:2::1": {}, "192.168.1.1": {}, "172.16.0.1": {}, "127.0.0.1": {}, "169.254.1.1": {}, "198.18.3.4": {},
		"::1": {}, "fe80::1": {}, "255.255.255.255": {}, "2002:7f00:1::": {}, "64:ff9b::7f00:1": {}, "64:ff9b::a01:203": {},
		"100.128.0.1": {public: true}, "192.0.2.1": {}, "203.0.113.9": {}, "2001:db8::1": {},
	} {
		d := Descriptor{Addrs: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(addr), 9001)}}
		for name, c := range map[string]struct {
			n    *Network
			want bool
		}{"public": {&public, want.public}, "LAN": {&lan, want.lan}, "Tailscale": {&tailscale, want.tailscale}, "test": {&test, true}} {
			err := d.CheckAddrs(c.n)
			if (err == nil) != c.want || err != nil && (!errors.Is(err, ErrAddress) || !strings.Contains(err.Error(), addr)) {
				t.Errorf("%s in a %s network: %v, want allowed %v", addr, name, err, c.want)
			}
		}
		d.Addrs = append(d.Addrs, netip.MustParseAddrPort("127.0.0.1:1"))
		if d.CheckAddrs(&public) == nil || d.CheckAddrs(&lan) == nil {
			t.Errorf("%s hides a second address that nobody can reach", addr)
		}
	}
}

func TestANetworkLivesInPrivateRangesOnly(t *testing.T) {
	for _, good := range [][]string{nil, {"10.0.0.0/8"}, {"172.16.0.0/12"}, {"192.168.0.0/16"}, {"192.168.1.0/24"}, {"100.64.0.0/10"},
		{"fc00::/7"}, {"fd12:3456::/48"}, {"10.1.2.3/32"}, {"10.0.0.0/9", "10.128.0.0/9", "192.168.7.0/24", "fd00::/64"}} {
		if _, err := ParseWithin(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range [][]string{{"8.8.8.0/24"}, {"127.0.0.0/8"}, {"0.0.0.0/0"}, {"10.0.0.0/7"}, {"172.0.0.0/8"}, {"192.168.0.0/15"},
		{"100.0.0.0/8"}, {"::/0"}, {"fe80::/10"}, {"f000::/4"}, {"2001:db8::/32"}, {"198.18.0.0/15"}, {"169.254.0.0/16"}, {"::ffff:10.0.0.0/104"},
		{"10.1.2.3/8"}, {"10.0.0.0"}, {"ten"}, {""}, {"10.0.0.0/8", "10.0.0.0/8"}, {"10.0.0.0/8", "10.1.0.0/16"}, {"10.1.0.0/16", "10.0.0.0/8"},
		{"10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16"}, {strings.Repeat("1", 100)}} {
		if got, err := ParseWithin(bad); err == nil {
			t.Errorf("%q: taken as %v", bad, got)
		}
	}
}
