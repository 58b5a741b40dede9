package relay

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// diary is a log that a test reads.
type diary struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func newDiary() *diary { return &diary{Handler: slog.NewTextHandler(nil, nil)} }

func (d *diary) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
	return nil
}

func (d *diary) last() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.lines) == 0 {
		return ""
	}
	return d.lines[len(d.lines)-1]
}

// newPublic returns a relay of a public network of three trackers that dials
// from source; it is not run.
func newPublic(t *testing.T, cfg Config) (*Relay, *diary) {
	t.Helper()
	said := newDiary()
	for i := range 3 {
		cfg.Network.Trackers = append(cfg.Network.Trackers, directory.Tracker{Key: [32]byte{byte(i + 1)}, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, byte(i), 0, 1}), 9000)})
	}
	cfg.Network.ViewEvery = directory.ViewEvery
	cfg.State, cfg.Listen, cfg.Log = t.TempDir(), "0.0.0.0:0", slog.New(said)
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, said
}

// told reports whether trackers are told at once because of what f does.
func told(r *Relay, f func()) bool {
	renew := r.renew
	f()
	select {
	case <-renew:
		return true
	default:
		return false
	}
}

// named returns the address in the relay's descriptor.
func named(t *testing.T, r *Relay) string {
	t.Helper()
	d, err := directory.ParseDescriptor(r.descriptor())
	if err != nil {
		t.Fatal(err)
	}
	return d.Addrs[0].Addr().String()
}

func TestARelayBehindNATTakesTheAddressThatMostTrackersSee(t *testing.T) {
	r, said := newPublic(t, Config{Source: netip.MustParseAddr("10.0.0.5")})
	at := netip.MustParseAddr("8.1.0.1")
	if found := r.Where(); found.Err == nil || named(t, r) != "10.0.0.5" {
		t.Fatalf("at the start: %+v", found)
	}
	if told(r, func() { r.saw(onion.ID{1}, netip.MustParseAddr("6.6.6.6")) }) || told(r, func() { r.saw(onion.ID{2}, at) }) {
		t.Error("one tracker moved the relay")
	}
	if why, do := r.noAddress(); why != "address 10.0.0.5 is private and this network is public; a tracker sees 6.6.6.6; a tracker sees 8.1.0.1" || !strings.Contains(do, "--advertise") {
		t.Errorf("the operator reads %q, %q", why, do)
	}
	if !told(r, func() { r.saw(onion.ID{3}, at) }) || named(t, r) != at.String() {
		t.Errorf("two trackers see %v, the relay says %s", at, named(t, r))
	}
	for _, want := range []string{"8.1.0.1:", "seen by 2 of 3 trackers", "behind NAT", "forward TCP port", "10.0.0.5:"} {
		if !strings.Contains(said.last(), want) {
			t.Errorf("the log says %q, want %q in it", said.last(), want)
		}
	}
	name, err := Name(r.cfg) // beside the relay
	if err != nil || !strings.HasPrefix(name, r.ID().String()+"@8.1.0.1:") {
		t.Errorf("Name = %s, %v", name, err)
	}

	// Another address counts, but not one a minute.
	next := netip.MustParseAddr("8.2.0.1")
	r.saw(onion.ID{1}, next)
	if told(r, func() { r.saw(onion.ID{2}, next) }) {
		t.Error("a relay that just moved moves again")
	}
	r.moved = r.moved.Add(-moveEvery)
	if !told(r, r.look) || named(t, r) != next.String() {
		t.Errorf("some minutes later the relay says %s, want %v", named(t, r), next)
	}
}

func TestAPublicRelayStaysWhereItIs(t *testing.T) {
	r, _ := newPublic(t, Config{Source: netip.MustParseAddr("8.1.0.1")})
	if found := r.Where(); found.Err != nil || named(t, r) != "8.1.0.1" {
		t.Fatalf("at the start: %+v", found)
	}
	for i := range 3 {
		if told(r, func() { r.saw(onion.ID{byte(i + 1)}, netip.MustParseAddr("8.1.0.1")) }) {
			t.Error("trackers are told what they know")
		}
	}
	if found := r.Where(); found.How != "seen by 3 of 3 trackers" || r.behindNAT() != "" {
		t.Errorf("%+v, %q", found, r.behindNAT())
	}
}

func TestWhatTheOperatorSaysCounts(t *testing.T) {
	r, _ := newPublic(t, Config{Source: netip.MustParseAddr("10.0.0.5"), Advertise: netip.MustParseAddrPort("7.7.7.7:443")})
	for i := range 3 {
		r.saw(onion.ID{byte(i + 1)}, netip.MustParseAddr("8.1.0.1"))
	}
	if got := r.Where().Addr.String(); got != "7.7.7.7:443" || named(t, r) != "7.7.7.7" {
		t.Errorf("at %s, want where --advertise says", got)
	}
}

func TestAMachineThatMovesAsksAtOnce(t *testing.T) {
	r, _ := newPublic(t, Config{Source: netip.MustParseAddr("8.1.0.1")})
	r.cfg.Source = netip.MustParseAddr("8.9.0.1")
	r.moved = time.Now()
	if !told(r, r.look) {
		t.Error("trackers are asked at the next hour")
	}
	if told(r, r.look) {
		t.Error("they are asked again though nothing changed")
	}
}
