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

// TestMatrix moves a file from each client to each other, dialled from either
// side. With SHOAL_MATRIX=all that is every pair; else a cover of it: each
// client once as seeder and once as leecher, the dialling side in turn.
func TestMatrix(t *testing.T) {
	net := network(t)
	var kinds []clients.Kind
	for _, k := range clients.All {
		if k.SOCKS {
			kinds = append(kinds, k)
		}
	}
	all := os.Getenv("SHOAL_MATRIX") == "all"
	for i, seeder := range kinds {
		for j, leecher := range kinds {
			for k, dials := range []string{"leecher-dials", "seeder-dials"} {
				if !all && (j != (i+1)%len(kinds) || k != i%2) {
					continue
				}
				t.Run(fmt.Sprintf("%s-%s-%s", seeder.Name, leecher.Name, dials), func(t *testing.T) {
					pair(t, net, seeder, leecher, dials == "seeder-dials")
				})
			}
		}
	}
}

// pair moves a file from one kind of client to another.
func pair(t *testing.T, net *testnet.Net, from, to clients.Kind, seederDials bool) {
	ctx, cancel := context.WithTimeout(t.Context(), perPair)
	defer cancel()
	seeder := startClient(t, ctx, from, clients.Config{Dir: t.TempDir(), SOCKS: net.Sidecars[0].SOCKS})
	leecher := startClient(t, ctx, to, clients.Config{Dir: t.TempDir(), SOCKS: net.Sidecars[1].SOCKS})
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
