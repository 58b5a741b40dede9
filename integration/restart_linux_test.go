package integration

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/integration/bare"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
	"github.com/shoal-p2p/shoal/proxy/memory"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// TestASeedIsBackAfterARestartOfItsSidecar, an upgrade as well as a crash: its
// client announces again only after minutes. Who looks for it at that moment
// has the file in seconds.
func TestASeedIsBackAfterARestartOfItsSidecar(t *testing.T) {
	for i, way := range []struct {
		name string
		end  func(*process.Process)
	}{
		{"SIGTERM", func(p *process.Process) { p.Stop() }},
		{"SIGKILL", func(p *process.Process) { p.Kill() }},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t)
			net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 6, Sidecars: 2, Block: 5 + i})
			tor := noise(t, 1<<20, httpTracker)
			seeder := client(t, ctx, net.Sidecars[0], nil)
			leecher := client(t, ctx, net.Sidecars[1], nil)
			seed(t, ctx, seeder, tor)
			announced(t, ctx, seeder, tor)
			remembered(t, ctx, net.Sidecars[0], tor)
			way.end(net.Sidecars[0].Process)
			began := time.Now()
			restarted := make(chan error, 1)
			go func() { restarted <- net.Restart(ctx, net.Sidecars[0]) }()
			add(t, ctx, leecher, tor)
			arrives(t, ctx, leecher, tor)
			took := time.Since(began)
			t.Logf("the file is there %v after the restart began", took.Round(time.Millisecond))
			if took > 30*time.Second { // 8 s on a quiet machine, 154 to 182 s without a memory
				t.Errorf("it took %v", took)
			}
			if err := <-restarted; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAClientThatWentMeanwhileIsTakenOut when its sidecar is back, also when
// that could not say so itself.
func TestAClientThatWentMeanwhileIsTakenOut(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 6, Sidecars: 1, Block: 7})
	s, node := net.Sidecars[0], bareNode(t, ctx, net)
	tor := noise(t, 1<<16, httpTracker)
	seeder := client(t, ctx, s, nil)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	remembered(t, ctx, s, tor)
	seeds(t, ctx, node, tor, 1)
	s.Process.Kill()
	seeder.Process().Kill()
	if err := net.Restart(ctx, s); err != nil {
		t.Fatal(err)
	}
	seeds(t, ctx, node, tor, 0)
}

// TestAClientThatDoesNotAnnounceAgainIsTakenOut: it still runs, and its torrent
// was stopped while the sidecar was away.
func TestAClientThatDoesNotAnnounceAgainIsTakenOut(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 6, Sidecars: 1, Block: 8})
	s, node := net.Sidecars[0], bareNode(t, ctx, net)
	tor := noise(t, 1<<16, httpTracker)
	seeder := client(t, ctx, s, nil)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	file := remembered(t, ctx, s, tor)
	if err := s.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	seeds(t, ctx, node, tor, 0)
	if err := seeder.Pause(ctx, tor.Hash); err != nil {
		t.Fatal(err)
	}
	hasten(t, file, time.Second)
	if err := net.Restart(ctx, s); err != nil {
		t.Fatal(err)
	}
	seeds(t, ctx, node, tor, 1)
	seeds(t, ctx, node, tor, 0)
}

// hasten changes a memory, so that clients have to announce sooner.
func hasten(t *testing.T, file string, again time.Duration) {
	t.Helper()
	_, earlier, err := memory.Open(file, time.Now())
	if err != nil || len(earlier.Clients) == 0 {
		t.Fatalf("%v is remembered, %v", earlier, err)
	}
	m, _, err := memory.Open("", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range earlier.Clients {
		m.Met(c.Name, c.Addr)
		m.Heard(c.Name, c.UDP, c.Owner)
		for _, s := range c.Swarms {
			m.Join(c.Name, swarm.Hash(s.Hash), func(now *memory.Swarm) {
				*now = s
				now.Again = again
			})
		}
	}
	if err := m.SaveAs(file, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// remembered waits until a sidecar has written that its client is in a swarm,
// and returns the file.
func remembered(t *testing.T, ctx context.Context, s *testnet.Sidecar, tor torrent.Torrent) string {
	t.Helper()
	dir, err := state.Volatile(s.State)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "memory")
	err = process.Until(ctx, 50*time.Millisecond, func() (bool, error) {
		b, err := os.ReadFile(file)
		return bytes.Contains(b, []byte(hex.EncodeToString(tor.Hash[:]))), err
	})
	if err != nil {
		t.Fatalf("what the sidecar remembers: %v", err)
	}
	return file
}

// seeds waits until the trackers count n seeders.
func seeds(t *testing.T, ctx context.Context, node *bare.Node, tor torrent.Torrent, n int) {
	t.Helper()
	s, err := node.Join(ctx, tor.Hash, false)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = process.Until(ctx, 200*time.Millisecond, func() (bool, error) {
		a, err := s.Announce(ctx, swarm.Announce{Left: 1})
		if err == nil && a.Seeders != n {
			err = fmt.Errorf("%d seeders, want %d", a.Seeders, n)
		}
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d seeders after %v", n, time.Since(began).Round(time.Millisecond))
}
