package relay_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/relay"
	"github.com/shoal-p2p/shoal/tracker"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// TestATrackerTellsARelayAloneWhereItIsSeen: whoever has a copy of a relay's
// descriptor hears nothing of addresses, and a relay no other's.
func TestATrackerTellsARelayAloneWhereItIsSeen(t *testing.T) {
	tr, _ := startTracker(t, tracker.Config{})
	r, said, _ := startRelay(t, networkOf(tr), relay.Config{})
	said.wait(t, "is reachable from outside")
	if found := r.Where(); found.How != "where it listens" || found.Addr.Addr().String() != "127.0.0.1" {
		t.Errorf("the relay is at %+v", found)
	}
	keys, err := hop.OpenKeys(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	other, err := hop.OpenKeys(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Rotate(time.Now()); err != nil {
		t.Fatal(err)
	}
	d := &directory.Descriptor{Published: time.Now().Unix(), Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}, Keys: []onion.PublicKey{keys.Current()}}
	if err := d.Sign(keys.Identity); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		shows *hop.Keys
		want  string
	}{"nobody": {nil, "invalid IP"}, "another relay": {other, "invalid IP"}, "the relay": {keys, "127.0.0.1"}} {
		links := &link.Pool{}
		if c.shows != nil {
			cert, err := link.Certificate(c.shows.Identity)
			if err != nil {
				t.Fatal(err)
			}
			links.Certificate = &cert
		}
		one, reply, err := clientOver(t, links).Request(t.Context(), to(tr), cell.RequestPublish, d.Append(nil), directory.MaxPublished)
		if err != nil {
			t.Fatal(err)
		}
		one.Close()
		if p, err := directory.ParsePublished(reply); err != nil || p.Seen.String() != c.want {
			t.Errorf("%s hears of %v, %v, want %s", name, p.Seen, err, c.want)
		}
	}
}
