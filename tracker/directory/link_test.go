package directory

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// links are one of each kind, from the shortest to the longest.
func links() []Link {
	n, private := fileNetwork(), privateNetwork()
	long := Link{Tracker: Tracker{trackerKey(5), netip.MustParseAddrPort("[fd00:1::2]:9000")},
		Within: prefixes("fd00:1::/48", "10.0.0.0/9", "fd00:2::/48", "192.168.0.0/16")}
	for i := range MaxLinkEntries {
		long.Entries = append(long.Entries, EntryRelay{idOfKey(i), netip.AddrPortFrom(netip.MustParseAddr("fd00:1::").Next(), uint16(i+1))})
	}
	return []Link{
		{Tracker: n.Trackers[0]},
		{Tracker: n.Trackers[0], Entries: n.Entries[:1]},
		{Tracker: n.Trackers[0], Entries: n.Entries},
		{Tracker: private.Trackers[0], Entries: private.Entries, Within: private.Within},
		{Tracker: Tracker{trackerKey(7), netip.MustParseAddrPort("127.1.0.1:9000")}, Test: true},
		long,
	}
}

func TestTrackerLinkRoundTrips(t *testing.T) {
	for _, l := range links() {
		s := l.String()
		for _, as := range []string{s, strings.ToUpper(s), " " + s + "\n"} {
			if got, err := ParseLink(as); err != nil || !reflect.DeepEqual(got, l) {
				t.Errorf("ParseLink(%q) = %+v, %v, want %+v", as, got, err, l)
			}
		}
		if strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || len(s) > MaxLink {
			t.Errorf("%s: %d characters that are not all letters and digits", s, len(s))
		}
	}
}

func TestEveryCutTrackerLinkIsCalledIncomplete(t *testing.T) {
	const want = "tracker link: the link is incomplete: copy it whole"
	for _, l := range links() {
		s := l.String()
		for i := range len(s) {
			for _, as := range []string{s[:i], strings.ToUpper(s[:i]), s[:i] + "…", s[:i] + "..."} {
				if _, err := ParseLink(as); err == nil || err.Error() != want {
					t.Fatalf("%d of %d characters, %q: %v, want %s", i, len(s), as, err, want)
				}
			}
		}
	}
}

// TestEveryTypoInATrackerLinkIsFound, whatever it makes of the link.
func TestEveryTypoInATrackerLinkIsFound(t *testing.T) {
	for _, l := range links() {
		s := l.String()
		for i := range len(s) {
			for _, c := range []byte("a7-") {
				if s[i] == c {
					continue
				}
				if _, err := ParseLink(s[:i] + string(c) + s[i+1:]); err == nil {
					t.Fatalf("character %d of %s as %c: taken", i, s, c)
				}
			}
			if _, err := ParseLink(s[:i] + s[i+1:]); err == nil {
				t.Fatalf("%s without character %d: taken", s, i)
			}
		}
		for _, more := range []string{"a", "aa", "aaaaaaaa", ".", "&x", " x"} {
			if _, err := ParseLink(s + more); err == nil || strings.Contains(err.Error(), "incomplete") {
				t.Errorf("with %q behind it: %v", more, err)
			}
		}
	}
}

func TestTrackerLinkIsReadStrictly(t *testing.T) {
	n := fileNetwork()
	entry := n.Entries[0]
	for name, l := range map[string]Link{
		"tracker as entry":                {Tracker: n.Trackers[0], Entries: []EntryRelay{{onion.ID(n.Trackers[0].Key), entry.Addr}}},
		"entry twice":                     {Tracker: n.Trackers[0], Entries: []EntryRelay{entry, entry}},
		"no key":                          {Tracker: Tracker{Addr: n.Trackers[0].Addr}},
		"a private tracker":               {Tracker: Tracker{trackerKey(0), netip.MustParseAddrPort("10.0.0.1:9000")}},
		"a private entry":                 {Tracker: n.Trackers[0], Entries: []EntryRelay{{entry.ID, netip.MustParseAddrPort("127.0.0.1:9001")}}},
		"a public range":                  {Tracker: n.Trackers[0], Within: []netip.Prefix{netip.MustParsePrefix("9.0.0.0/8")}},
		"a range with bits behind":        {Tracker: Tracker{trackerKey(0), netip.MustParseAddrPort("10.0.0.1:9000")}, Within: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}},
		"outside of its range":            {Tracker: n.Trackers[0], Within: prefixes("10.0.0.0/8")},
		"private and a test":              {Tracker: n.Trackers[0], Within: prefixes("10.0.0.0/8"), Test: true},
		"port zero":                       {Tracker: Tracker{trackerKey(0), netip.MustParseAddrPort("9.0.0.1:0")}},
		"a tracker that can't be dialled": {Tracker: Tracker{trackerKey(0), netip.MustParseAddrPort("224.0.0.1:9000")}},
	} {
		if _, err := ParseLink(l.String()); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	good := links()[2].String()
	for name, s := range map[string]string{
		"another word":   "http://example.org/" + good,
		"another form":   "shoal://KEY@9.0.0.0:9000",
		"a later one":    strings.Replace(good, "shoal1", "shoal2", 1),
		"too long":       good + strings.Repeat("a", MaxLink),
		"not of letters": "shoal1???",
	} {
		if _, err := ParseLink(s); err == nil || strings.Contains(err.Error(), "incomplete") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLinksMakeANetwork(t *testing.T) {
	n := fileNetwork()
	a, b, c := Link{Tracker: n.Trackers[0], Entries: n.Entries[:1]}, Link{Tracker: n.Trackers[1], Entries: n.Entries}, Link{Tracker: n.Trackers[2]}
	got, err := FromLinks(a, b, c)
	if err != nil || !reflect.DeepEqual(got, n) {
		t.Errorf("FromLinks = %+v, %v, want %+v", got, err, n)
	}
	private := privateNetwork()
	lan := Link{Tracker: private.Trackers[0], Entries: private.Entries, Within: private.Within}
	if got, err := FromLinks(lan, Link{Tracker: private.Trackers[1], Within: private.Within}); err != nil || !reflect.DeepEqual(got, private) {
		t.Errorf("FromLinks = %+v, %v, want %+v", got, err, private)
	}
	narrow := lan
	narrow.Within = prefixes("192.168.1.0/24")
	test := Link{Tracker: n.Trackers[0], Test: true}
	for name, links := range map[string][]Link{"none": nil, "one tracker twice": {a, a}, "public and private": {a, lan}, "private and public": {lan, a},
		"two private ones": {lan, narrow}, "public and test": {a, test}} {
		if _, err := FromLinks(links...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	for _, l := range links() {
		f.Add(l.String())
	}
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := ParseLink(s); err == nil && l.String() != strings.ToLower(strings.TrimSpace(s)) {
			t.Errorf("ParseLink(%q) accepts another form of %q", s, l)
		}
	})
}
