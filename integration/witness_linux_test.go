package integration

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/capture"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
	"github.com/shoal-p2p/shoal/integration/witness"
)

// maxTrace is how many bytes of a recording are kept.
const maxTrace = 1 << 30

// maxContacts is whom one sidecar may talk to: one entry relay at its first
// start, and its two guards.
const maxContacts = 3

func record(t *testing.T) *capture.Recorder {
	t.Helper()
	r, err := capture.Start("lo", maxTrace)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func recorded(t *testing.T, r *capture.Recorder) *capture.Trace {
	t.Helper()
	trace, err := r.Stop()
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

// TestNobodySeesWhatTheyMustNot records a network from its first packet to its
// last, while two sidecars that share no guard carry a file. Each picks its
// guards alone, so some share one, and that relay knows both addresses, though
// not that they are of one circuit. Here nobody must know both.
func TestNobodySeesWhatTheyMustNot(t *testing.T) {
	ctx := deadline(t, 3*time.Minute)
	beginning := record(t)
	net := start(t, ctx, testnet.Config{Trackers: 3, Relays: 16, Sidecars: 4})
	rest := record(t)
	trace := recorded(t, beginning)
	a, b := strangers(t, ctx, net, trace)

	tor := noise(t, 2<<20, httpTracker, udpTracker)
	move(t, ctx, net, a, b, tor)
	if err := net.Close(); err != nil {
		t.Fatal(err)
	}
	trace.Merge(recorded(t, rest))

	report := witness.Look(trace, net, []torrent.Torrent{tor}, "tracker.invalid")
	for _, wrong := range report.Wrong {
		t.Error(wrong)
	}
	for _, relay := range report.SawBoth(a, b) {
		t.Errorf("%s saw both sidecars", relay.Name)
	}
	for _, s := range report.Sidecars {
		if len(s.Contacts) > maxContacts {
			t.Errorf("%s talked to %d relays, %v, want at most %d", s.Name, len(s.Contacts), s.Contacts, maxContacts)
		}
	}
	// Six links carry every byte: less would mean that we looked elsewhere.
	if least := int64(6 * len(tor.Data)); report.Bytes < least {
		t.Errorf("the links carried %d bytes, want %d at least", report.Bytes, least)
	}
	t.Logf("%d links carried %.1f MB", report.Links, float64(report.Bytes)/1e6)
}

// strangers returns two sidecars that have no relay in common, and starts more
// of them until there are two.
func strangers(t *testing.T, ctx context.Context, net *testnet.Net, trace *capture.Trace) (a, b int) {
	t.Helper()
	for len(net.Sidecars) < 20 {
		for a := range net.Sidecars {
			of := trace.Contacts(net.Sidecars[a].Source)
			for b := range a {
				if len(of) > 0 && !intersect(of, trace.Contacts(net.Sidecars[b].Source)) {
					return a, b
				}
			}
		}
		more := record(t)
		if _, err := net.AddSidecar(ctx); err != nil {
			t.Fatal(err)
		}
		trace.Merge(recorded(t, more))
	}
	t.Fatal("no two of 20 sidecars have no relay in common")
	return 0, 0
}

func intersect(a, b map[netip.Addr]bool) bool {
	for x := range a {
		if b[x] {
			return true
		}
	}
	return false
}

// move lets the client of sidecar a give that of sidecar b a file. Both clients
// are gone when it returns.
func move(t *testing.T, ctx context.Context, net *testnet.Net, a, b int, tor torrent.Torrent) {
	t.Helper()
	seeder := client(t, ctx, net.Sidecars[a], nil)
	leecher := client(t, ctx, net.Sidecars[b], nil)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	add(t, ctx, leecher, tor)
	arrives(t, ctx, leecher, tor)
	for _, c := range []interface{ Stop() error }{seeder, leecher} {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestASidecarThatStartsAgainTalksToItsGuardsAlone: the entry relay was for the
// first start.
func TestASidecarThatStartsAgainTalksToItsGuardsAlone(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	first := record(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 12, Sidecars: 1})
	s := net.Sidecars[0]
	if err := s.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	before := recorded(t, first).Contacts(s.Source)

	second := record(t)
	if err := net.Restart(ctx, s); err != nil {
		t.Fatal(err)
	}
	move(t, ctx, net, 0, 0, noise(t, 256<<10, httpTracker))
	if err := net.Close(); err != nil {
		t.Fatal(err)
	}
	trace := recorded(t, second)
	after := trace.Contacts(s.Source)
	if len(after) == 0 || len(after) > 2 {
		t.Errorf("it talked to %d relays, want its two guards at most", len(after))
	}
	for a := range after {
		if !before[a] {
			t.Errorf("it talked to %v, which it had not talked to before", a)
		}
	}
	if wrong := witness.Look(trace, net, nil).Wrong; len(wrong) > 0 {
		t.Error(wrong)
	}
}

// TestASidecarListensOnLoopbackAlone: nobody can come to it from outside.
func TestASidecarListensOnLoopbackAlone(t *testing.T) {
	net := network(t)
	s := net.Sidecars[0]
	open := listening(t, s.PID)
	want := []netip.AddrPort{netip.MustParseAddrPort(s.SOCKS), netip.MustParseAddrPort(s.Status[len("http://"):])}
	if len(open) != len(want) {
		t.Errorf("it listens on %v, want %v", open, want)
	}
	for _, at := range open {
		if !slices.Contains(want, at) || !at.Addr().IsLoopback() {
			t.Errorf("it listens on %v, want %v alone", at, want)
		}
	}
}
