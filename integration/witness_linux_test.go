package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

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
	ctx := deadline(t)
	recorder := record(t)
	net := start(t, ctx, testnet.Config{Trackers: 3, Relays: 16, Block: 1})
	a, b := strangers(t, ctx, net)

	tor := noise(t, 2<<20, httpTracker, udpTracker)
	move(t, ctx, net, a, b, tor)
	if err := net.Close(); err != nil {
		t.Fatal(err)
	}
	trace := recorded(t, recorder)

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

// strangers starts sidecars until two of them have no relay in common, neither
// entry nor guard, and returns those.
func strangers(t *testing.T, ctx context.Context, net *testnet.Net) (a, b int) {
	t.Helper()
	var known []map[netip.Addr]bool
	for len(known) < 20 {
		recorder := record(t)
		s, err := net.AddSidecar(ctx)
		if err != nil {
			t.Fatal(err)
		}
		own := recorded(t, recorder).Contacts(s.Source)
		for g := range guards(t, s) {
			own[g] = true
		}
		for i, others := range known {
			if !intersect(own, others) {
				return i, len(known)
			}
		}
		known = append(known, own)
	}
	t.Fatal("no two of 20 sidecars have no relay in common")
	return 0, 0
}

// guards returns the addresses of the guards that a sidecar has chosen, as it
// keeps them.
func guards(t *testing.T, s *testnet.Sidecar) map[netip.Addr]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.State, "guards"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Guards []struct{ Addr netip.AddrPort }
	}
	// One document, between the lines that name and close every state file.
	_, body, _ := bytes.Cut(b, []byte("\n"))
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&file); err != nil {
		t.Fatal(err)
	}
	if len(file.Guards) != 2 {
		t.Fatalf("%s keeps %s, want two guards", s.State, b)
	}
	return map[netip.Addr]bool{file.Guards[0].Addr.Addr(): true, file.Guards[1].Addr.Addr(): true}
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
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 12, Sidecars: 1, Block: 1})
	s := net.Sidecars[0]
	if err := s.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	kept := guards(t, s)

	recorder := record(t)
	if err := net.Restart(ctx, s); err != nil {
		t.Fatal(err)
	}
	move(t, ctx, net, 0, 0, noise(t, 256<<10, httpTracker))
	if err := net.Close(); err != nil {
		t.Fatal(err)
	}
	trace := recorded(t, recorder)
	for a := range trace.Contacts(s.Source) {
		if !kept[a] {
			t.Errorf("it talked to %v, which is none of its guards, %v", a, kept)
		}
	}
	for _, wrong := range witness.Look(trace, net, nil).Wrong {
		t.Error(wrong)
	}
}

// TestASidecarListensOnLoopbackAlone, also while it has clients: nobody can
// come to it from outside.
func TestASidecarListensOnLoopbackAlone(t *testing.T) {
	net := network(t)
	s := net.Sidecars[0]
	client(t, deadline(t), s, nil) // for its UDP association
	want := []netip.AddrPort{netip.MustParseAddrPort(s.SOCKS), netip.MustParseAddrPort(s.Status[len("http://"):])}
	open := listening(t, s.PID)
	for _, at := range open {
		if !slices.Contains(want, at) {
			t.Errorf("it listens on %v, want %v alone", at, want)
		}
	}
	if len(open) != len(want) {
		t.Errorf("it listens on %v, want %v", open, want)
	}
	for _, at := range udp(t, s.PID) {
		if !at.Addr().IsLoopback() {
			t.Errorf("it has a UDP socket at %v", at)
		}
	}
}
