package tracker

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// reached has a new relay at addr published and tried.
func reached(t *testing.T, tr *Tracker, now time.Time, addr string) onion.ID {
	t.Helper()
	o := newOwner(t)
	take(t, tr, o.descriptor(t, now, addr), directory.Untested)
	tried(tr, o, 5<<20, true)
	return o.id()
}

func entryIDs(l directory.Link) (ids []onion.ID) {
	for _, e := range l.Entries {
		ids = append(ids, e.ID)
	}
	return ids
}

func TestALinkNamesTheRelaysLongestKnownOfNetworksOfTheirOwn(t *testing.T) {
	tr, c := open(t, t.TempDir(), false)
	var told []directory.Link
	tr.cfg.Linked = func(l directory.Link) { told = append(told, l) }
	step := func() {
		t.Helper()
		c.Time = c.Add(time.Minute)
		sign(t, tr)
		tr.relink()
	}
	step()
	a := reached(t, tr, c.now(), "9.1.0.1:9001")
	step()
	reached(t, tr, c.now(), "9.1.0.2:9001") // beside a
	b := reached(t, tr, c.now(), "9.2.0.1:9001")
	take(t, tr, newOwner(t).descriptor(t, c.now(), "9.7.0.1:9001"), directory.Untested) // never reached
	if got := tr.Link(); len(tr.book.entries()) != 3 || len(got.Entries) != 3 {
		t.Errorf("%d entry relays of three that were reached", len(got.Entries))
	}
	step()
	d := reached(t, tr, c.now(), "9.3.0.1:9001")
	step()
	reached(t, tr, c.now(), "9.4.0.1:9001")
	step()
	want := []onion.ID{a, b, d}
	if got := entryIDs(tr.Link()); !slices.Equal(got, want) {
		t.Errorf("the link names %d relays, other ones than the three that were there first in networks of their own", len(got))
	}
	if len(told) != 1 || len(told[0].Entries) != LinkEntries {
		t.Errorf("Linked was called with %d links, want the first with entry relays", len(told))
	}
	saved, ok, err := SavedLink(tr.cfg.State)
	if err != nil || !ok || !reflect.DeepEqual(saved, tr.Link()) {
		t.Errorf("saved: %+v, %v, %v", saved, ok, err)
	}

	// One that is away gives way to the next.
	k := tr.book.relays[b]
	k.reachable = false
	if got := entryIDs(tr.Link()); len(got) != 3 || slices.Contains(got, b) {
		t.Errorf("the link names a relay that is away: %v", slices.Contains(got, b))
	}
}

func TestALinkWithTooFewRelaysIsForRelaysOnly(t *testing.T) {
	dir := t.TempDir()
	if _, ok, err := SavedLink(dir); ok || err != nil {
		t.Errorf("a link in an empty folder: %v, %v", ok, err)
	}
	tr, c := open(t, dir, false)
	reached(t, tr, c.now(), "9.1.0.1:9001")
	reached(t, tr, c.now(), "9.2.0.1:9001")
	tr.relink()
	saved, ok, err := SavedLink(dir)
	if err != nil || !ok || len(saved.Entries) != 0 || saved.Tracker.Addr.String() != "9.9.9.1:9000" {
		t.Errorf("saved: %+v, %v, %v", saved, ok, err)
	}
}

func TestALinkTakesTheEntryRelaysThatItsOperatorNames(t *testing.T) {
	tr, _ := open(t, t.TempDir(), false)
	for i := range directory.MaxLinkEntries + 3 {
		tr.cfg.Network.Entries = append(tr.cfg.Network.Entries, directory.EntryRelay{ID: onion.ID{byte(i + 1)}, Addr: netip.MustParseAddrPort("9.1.0.1:9001")})
	}
	if l := tr.Link(); !slices.Equal(l.Entries, tr.cfg.Network.Entries[:directory.MaxLinkEntries]) {
		t.Errorf("%d entry relays", len(l.Entries))
	} else if _, err := directory.ParseLink(l.String()); err != nil {
		t.Error(err)
	}
}

func TestATrackerFindsItsAddressOrSaysWhatIsMissing(t *testing.T) {
	private := directory.Network{Within: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for name, c := range map[string]struct {
		cfg  Config
		want string // address, or part of the error
	}{
		"the address to dial from":     {Config{Source: netip.MustParseAddr("9.9.9.1")}, "9.9.9.1:"},
		"advertised":                   {Config{Advertise: netip.MustParseAddrPort("9.9.9.1:443")}, "9.9.9.1:443"},
		"behind NAT":                   {Config{Source: netip.MustParseAddr("10.0.0.5")}, "address 10.0.0.5 is private"},
		"a private address advertised": {Config{Advertise: netip.MustParseAddrPort("10.0.0.5:443")}, "--advertise"},
		"a private network":            {Config{Source: netip.MustParseAddr("10.0.0.5"), Network: private}, "10.0.0.5:"},
		"outside of its range":         {Config{Source: netip.MustParseAddr("192.168.0.5"), Network: private}, "connect this machine to that network"},
	} {
		c.cfg.State, c.cfg.Listen = t.TempDir(), "0.0.0.0:0"
		tr, err := New(c.cfg)
		if err != nil {
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			continue
		}
		if got := tr.Where(); !strings.HasPrefix(got.Addr.String(), c.want) || got.How == "" {
			t.Errorf("%s: %+v, want %s", name, got, c.want)
		}
		tr.Close()
	}
}

// TestRelaysOfAnotherKindOfNetworkAreForgotten when the tracker starts in it.
func TestRelaysOfAnotherKindOfNetworkAreForgotten(t *testing.T) {
	dir := t.TempDir()
	tr, c := open(t, dir, true)
	for _, addr := range []string{"10.0.0.1:9001", "10.0.0.2:9001", "10.0.0.3:9001", "9.1.0.1:9001"} {
		reached(t, tr, c.now(), addr)
	}
	sign(t, tr)
	tr.Close()
	tr, _ = open(t, dir, false)
	if n := len(tr.book.relays); n != 1 {
		t.Errorf("%d relays, want the one with a public address", n)
	}
	if _, err := directory.ParseLink(tr.Link().String()); err != nil {
		t.Error(err)
	}
}
