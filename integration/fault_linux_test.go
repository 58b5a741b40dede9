package integration

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// TestATrackerThatIsGoneCostsNothing: the others have what it had.
func TestATrackerThatIsGoneCostsNothing(t *testing.T) {
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 3, Relays: 5, Sidecars: 2, Block: 1})
	if err := net.Trackers[1].Process.Stop(); err != nil {
		t.Fatal(err)
	}
	move(t, ctx, net, 0, 1, noise(t, 1<<20, httpTracker))
}

// TestRelaysThatDieInTheMiddleDoNotStopATransfer: some that carry it go, and do
// not come back. qBittorrent dials a peer that it lost again after a minute,
// and not before.
func TestRelaysThatDieInTheMiddleDoNotStopATransfer(t *testing.T) {
	t.Parallel() // most of it is that minute
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 12, Sidecars: 2, Block: 1})
	seeder, leecher, tor := begin(t, ctx, net)
	spared := guards(t, net.Sidecars[0])
	for a := range guards(t, net.Sidecars[1]) {
		spared[a] = true
	}
	killed := 0
	for _, r := range net.Relays {
		if !spared[addr(t, r.Addr)] && killed < 4 {
			r.Process.Kill()
			killed++
		}
	}
	began := time.Now()
	arrives(t, ctx, leecher, tor)
	t.Logf("%d relays died, the rest took %v", killed, time.Since(began))
	alive(t, "seeder", seeder.Process())
}

// TestASidecarThatStartsAgainInTheMiddleGoesOn as soon as its client announces,
// which qBittorrent does when it is paused and resumed.
func TestASidecarThatStartsAgainInTheMiddleGoesOn(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 6, Sidecars: 2, Block: 2})
	_, leecher, tor := begin(t, ctx, net)
	s := net.Sidecars[1]
	if err := s.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := net.Restart(ctx, s); err != nil {
		t.Fatal(err)
	}
	if err := leecher.Pause(ctx, tor.Hash); err != nil {
		t.Fatal(err)
	}
	if err := leecher.Resume(ctx, tor.Hash); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	arrives(t, ctx, leecher, tor)
	t.Logf("the rest took %v", time.Since(began))
}

// TestASidecarThatStartsAgainIsBackWhenItsClientDials a peer that it knew:
// qBittorrent does within a minute. No file says which torrent that is about,
// and another's is no way in.
func TestASidecarThatStartsAgainIsBackWhenItsClientDials(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 6, Sidecars: 2, Block: 4})
	tor := noise(t, 1<<16, httpTracker)
	seeder := client(t, ctx, net.Sidecars[0], nil)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	s := net.Sidecars[1]
	far := dialFar(t, ctx, s, tor)
	if err := s.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := net.Restart(ctx, s); err != nil {
		t.Fatal(err)
	}
	if err := far.dial(t, ctx, s, torrent.Hash{1}); err == nil {
		t.Error("a torrent that the peer was never known for was answered")
	}
	if err := far.dial(t, ctx, s, tor.Hash); err != nil {
		t.Error(err)
	}
}

// begin starts a transfer from the first sidecar's client to the second's, and
// returns in the middle of it.
func begin(t *testing.T, ctx context.Context, net *testnet.Net) (seeder, leecher clients.Client, tor torrent.Torrent) {
	t.Helper()
	seeder = client(t, ctx, net.Sidecars[0], nil)
	leecher = client(t, ctx, net.Sidecars[1], func(c *clients.Config) { c.DownloadLimit = 4 << 20 })
	tor = noise(t, 16<<20, httpTracker)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	add(t, ctx, leecher, tor)
	err := clients.WaitFor(ctx, leecher, tor.Hash, func(p clients.Progress) bool { return p.Done > 0.2 })
	if err != nil {
		t.Fatal(err)
	}
	return seeder, leecher, tor
}

// TestDistanceIsCarried: 25 ms on each of six links.
func TestDistanceIsCarried(t *testing.T) {
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 6, Sidecars: 2, Block: 1, LinkDelay: 25 * time.Millisecond})
	move(t, ctx, net, 0, 1, noise(t, 4<<20, httpTracker))
}

// TestTheProgramsHaveNoRaces that a whole network and a transfer would show.
func TestTheProgramsHaveNoRaces(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	ctx := deadline(t)
	bin := filepath.Join(os.Getenv(binVariable), raceDir)
	net := start(t, ctx, testnet.Config{
		Trackers: 2, Relays: 5, Sidecars: 2, Block: 1,
		Shoal: filepath.Join(bin, "shoal"), Tracker: filepath.Join(bin, "shoal-tracker"),
	})
	move(t, ctx, net, 0, 1, noise(t, 4<<20, httpTracker, udpTracker))
	if err := net.Close(); err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, tr := range net.Trackers {
		states = append(states, tr.State)
	}
	for _, r := range net.Relays {
		states = append(states, r.State)
	}
	for _, s := range net.Sidecars {
		states = append(states, s.State)
	}
	for _, state := range states {
		said, err := os.ReadFile(filepath.Join(state, "log"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(said), "DATA RACE") || strings.Contains(string(said), "panic:") {
			t.Errorf("%s: %s", filepath.Base(state), said)
		}
	}
}
