package integration

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
	"github.com/shoal-p2p/shoal/proxy/netns"
)

// runEnds is how long `shoal run` may take to end with its client: what it gives
// the client itself, and what a busy machine adds.
const runEnds = netns.DefaultGrace + 15*time.Second

// end is one client on one road: behind the sidecar's SOCKS proxy, or under
// `shoal run`, which is a sidecar of its own.
type end struct {
	clients.Kind
	under bool
}

func (e end) String() string {
	if e.under {
		return "run-" + e.Name
	}
	return e.Name
}

// ends are all clients, on each road that they have.
func ends() (all []end) {
	for _, k := range clients.All {
		if k.SOCKS {
			all = append(all, end{k, false})
		}
	}
	for _, k := range clients.All {
		all = append(all, end{k, true})
	}
	return all
}

// start starts e's client.
func (e end) start(t *testing.T, ctx context.Context, net *testnet.Net, s *testnet.Sidecar) clients.Client {
	t.Helper()
	return e.startWith(t, ctx, net, s, func(*clients.Config) {})
}

// startWith is start with what set adds to the settings that e needs.
func (e end) startWith(t *testing.T, ctx context.Context, net *testnet.Net, s *testnet.Sidecar, set func(*clients.Config)) clients.Client {
	t.Helper()
	c := clients.Config{Dir: t.TempDir()}
	if !e.under {
		c.SOCKS = s.SOCKS
		set(&c)
		return startClient(t, ctx, e.Kind, c)
	}
	set(&c)
	state := t.TempDir()
	c.Under = func(port uint16) []string {
		args := []string{shoal(), "run", "--network", net.Network, "--state", state}
		if port != 0 {
			args = append(args, "--publish", fmt.Sprint(port))
		}
		return append(args, "--")
	}
	return startClient(t, ctx, e.Kind, c)
}

// TestMatrix moves a file from each client to each other, on each road, dialled
// from either side: with SHOAL_MATRIX=all. Else it is a cover: each end seeds to
// the one before it, dialled from either side in turn.
func TestMatrix(t *testing.T) {
	net := network(t)
	all := os.Getenv("SHOAL_MATRIX") == "all"
	ends := ends()
	for i, seeder := range ends {
		for j, leecher := range ends {
			for k, dials := range []string{"leecher-dials", "seeder-dials"} {
				if !all && (j != (i+len(ends)-1)%len(ends) || k != i%2) {
					continue
				}
				t.Run(fmt.Sprintf("%v-to-%v-%s", seeder, leecher, dials), func(t *testing.T) {
					t.Parallel() // some clients wait for half a minute before they give
					pair(t, net, party{seeder, clients.Prefer}, party{leecher, clients.Prefer}, dials == "seeder-dials")
				})
			}
		}
	}
}

// TestMatrixOfEncryption moves a file from each client, on each road, that takes
// no plain connection to one that takes no encrypted one, and back, dialled from
// either side: with SHOAL_MATRIX=all, else one of them. Without their sidecars
// the two have no word in common.
func TestMatrixOfEncryption(t *testing.T) {
	net := network(t)
	all := os.Getenv("SHOAL_MATRIX") == "all"
	plain := party{end{clients.QBittorrent, false}, clients.Disable}
	for i, e := range ends() {
		requires := party{e, clients.Require}
		for j, way := range [][2]party{{requires, plain}, {plain, requires}} {
			for k, dials := range []string{"leecher-dials", "seeder-dials"} {
				if !all && (i != 0 || j != 0 || k != 0) {
					continue
				}
				t.Run(fmt.Sprintf("%v-to-%v-%s", way[0], way[1], dials), func(t *testing.T) {
					t.Parallel()
					pair(t, net, way[0], way[1], dials == "seeder-dials")
				})
			}
		}
	}
}

// TestMatrixOfMagnets fetches a magnet with each client, on each road, from a
// qBittorrent, and with a qBittorrent from each client; with a tracker in it and
// without, when the DHT has to lead there: with SHOAL_MATRIX=all. Else it is
// those whose announces of a magnet differ.
func TestMatrixOfMagnets(t *testing.T) {
	net := network(t)
	all := os.Getenv("SHOAL_MATRIX") == "all"
	for i, e := range ends() {
		for name, trackers := range map[string][]string{"tracker": {httpTracker}, "no-tracker": nil} {
			qb := end{clients.QBittorrent, trackers == nil}
			for j, way := range [][2]end{{qb, e}, {e, qb}} {
				cheap := way[1].Name == clients.Aria2.Name && trackers != nil
				if !all && !cheap || i == 0 && j == 1 || trackers == nil && (!e.under || way[0].NoDHT) {
					continue
				}
				t.Run(fmt.Sprintf("%v-to-%v-%s", way[0], way[1], name), func(t *testing.T) {
					t.Parallel()
					magnet(t, net, way[0], way[1], noise(t, 1<<20, trackers...))
				})
			}
		}
	}
}

// magnet moves a file from one client to another that is given a magnet link.
func magnet(t *testing.T, net *testnet.Net, from, to end, tor torrent.Torrent) {
	ctx := deadline(t)
	seeder := from.start(t, ctx, net, net.Sidecars[0])
	leecher := to.start(t, ctx, net, net.Sidecars[1])
	seed(t, ctx, seeder, tor)
	if err := leecher.AddMagnet(ctx, tor.Magnet()); err != nil {
		t.Fatal(err)
	}
	arrives(t, ctx, leecher, tor)
}

// party is an end of a pair.
type party struct {
	end
	encryption clients.Encryption
}

func (p party) String() string { return fmt.Sprintf("%v-%v", p.end, p.encryption) }

func (p party) start(t *testing.T, ctx context.Context, net *testnet.Net, s *testnet.Sidecar) clients.Client {
	t.Helper()
	return p.startWith(t, ctx, net, s, func(c *clients.Config) { c.Encryption = p.encryption })
}

// pair moves a file from one client to another.
func pair(t *testing.T, net *testnet.Net, from, to party, seederDials bool) {
	ctx := deadline(t)
	seeder := from.start(t, ctx, net, net.Sidecars[0])
	leecher := to.start(t, ctx, net, net.Sidecars[1])
	tor := noise(t, 1<<20, httpTracker)
	if seederDials {
		add(t, ctx, leecher, tor)
		announced(t, ctx, leecher, tor)
		seed(t, ctx, seeder, tor)
	} else {
		seed(t, ctx, seeder, tor)
		announced(t, ctx, seeder, tor)
		add(t, ctx, leecher, tor)
	}
	arrives(t, ctx, leecher, tor)
	for c, e := range map[clients.Client]party{seeder: from, leecher: to} {
		began := time.Now()
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); e.under && took > runEnds {
			t.Errorf("%v ended %v after SIGTERM, want %v at most", e, took, runEnds)
		}
	}
}
