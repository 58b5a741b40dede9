package integration

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// perPair bounds one pair: Transmission lets a newcomer wait for half a minute.
const perPair = 2 * time.Minute

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
	c := clients.Config{Dir: t.TempDir()}
	if !e.under {
		c.SOCKS = s.SOCKS
		return startClient(t, ctx, e.Kind, c)
	}
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
// from either side. With SHOAL_MATRIX=all that is every pair; else those behind
// the SOCKS proxy, the dialling side in turn: several `shoal run` that start at
// the same moment are not reliable yet.
func TestMatrix(t *testing.T) {
	net := network(t)
	all := os.Getenv("SHOAL_MATRIX") == "all"
	for i, seeder := range ends() {
		for j, leecher := range ends() {
			for k, dials := range []string{"leecher-dials", "seeder-dials"} {
				if !all && (seeder.under || leecher.under || k != (i+j)%2) {
					continue
				}
				t.Run(fmt.Sprintf("%v-to-%v-%s", seeder, leecher, dials), func(t *testing.T) {
					t.Parallel() // some clients wait for half a minute before they give
					pair(t, net, seeder, leecher, dials == "seeder-dials")
				})
			}
		}
	}
}

// pair moves a file from one client to another.
func pair(t *testing.T, net *testnet.Net, from, to end, seederDials bool) {
	ctx, cancel := context.WithTimeout(t.Context(), perPair)
	t.Cleanup(cancel)
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
}
