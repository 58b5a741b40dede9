package proc

import (
	"net/netip"
	"slices"
	"testing"
)

func FuzzTables(f *testing.F) {
	f.Add([]byte("1\tlo        :     2      V3\n\t\t\t\t8F98C0EF     1 0:00000000\t\t0\n"))
	f.Add([]byte("2    eth0            ff1500000000000000000000efc0988f     2 00000004 0\n"))
	f.Add([]byte("20010db8000000000000000000000002 02 40 00 80     eth0\n"))
	f.Add([]byte("Local:\n  |-- 10.64.0.2\n     /32 host LOCAL\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, a := range ParseGroups(b, b) {
			if !a.IsMulticast() {
				t.Errorf("%v is no group", a)
			}
		}
		ParseIPv6(b)
		ParseLocal(b)
	})
}

func TestOwnAddressesAreRead(t *testing.T) {
	table := "Main:\n  +-- 0.0.0.0/0 2 0 2\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.64.0.1\n        /32 link UNICAST\n" +
		"Local:\n     |-- 10.64.0.2\n        /32 host LOCAL\n     |-- 127.255.255.255\n        /32 link BROADCAST\n     |-- nonsense\n        /32 host LOCAL\n"
	if got, want := ParseLocal([]byte(table)), []netip.Addr{netip.MustParseAddr("10.64.0.2")}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOnlyAddressesOfTheInternetCountAsIPv6(t *testing.T) {
	for table, want := range map[string]bool{
		"": false,
		"00000000000000000000000000000001 01 80 10 80       lo\n": false,
		"fe80000000000000022155fffe7c181c 02 40 20 80     eth0\n": false,
		"fd000000000000000000000000000002 02 40 00 80     eth0\n": false,
		"20010db8000000000000000000000002 02 40 00 80     eth0\n": true,
		"nonsense\n": false,
	} {
		if got := ParseIPv6([]byte(table)); got != want {
			t.Errorf("%q: got %v, want %v", table, got, want)
		}
	}
}

func TestListenersOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true}, {"0.0.0.0:80", "127.0.0.1:80", true}, {"127.0.0.1:80", "[::]:80", true},
		{"[::ffff:127.0.0.1]:80", "127.0.0.1:80", true}, {"127.0.0.1:80", "127.0.0.1:81", false}, {"127.0.0.1:80", "127.0.0.2:80", false},
	} {
		if got := overlap(netip.MustParseAddrPort(c.a), netip.MustParseAddrPort(c.b)); got != c.want {
			t.Errorf("overlap(%s, %s) = %v", c.a, c.b, got)
		}
	}
}
