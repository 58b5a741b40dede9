package integration

import (
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// soonEnough is when a client that was told late has what it wants. None asks
// again within a minute by itself.
const soonEnough = 50 * time.Second

// TestAClientThatAskedTooEarlyIsToldOfItsPeers: the tracker takes longer than
// the clients have patience, so both are answered that nobody is there.
func TestAClientThatAskedTooEarlyIsToldOfItsPeers(t *testing.T) {
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 6, Sidecars: 2, Block: 5})
	type transfer struct{ from, to end }
	for i, p := range []transfer{
		{end{clients.QBittorrent, false}, end{clients.QBittorrent, false}},
		{end{clients.RTorrent, true}, end{clients.Aria2, true}},
	} {
		t.Run(p.from.String()+"-to-"+p.to.String(), func(t *testing.T) {
			noDHT := func(c *clients.Config) { c.NoDHT = true } // by which they would ask again
			seeder := p.from.startWith(t, ctx, net, net.Sidecars[0], noDHT)
			leecher := p.to.startWith(t, ctx, net, net.Sidecars[1], noDHT)
			tor := noise(t, 1<<16+i, httpTracker)
			signal := func(s syscall.Signal) {
				if err := syscall.Kill(net.Trackers[0].PID, s); err != nil {
					t.Fatal(err)
				}
			}
			signal(syscall.SIGSTOP)
			defer signal(syscall.SIGCONT)
			seed(t, ctx, seeder, tor)
			add(t, ctx, leecher, tor)
			announced(t, ctx, seeder, tor)
			announced(t, ctx, leecher, tor)
			signal(syscall.SIGCONT)
			began := time.Now()
			arrives(t, ctx, leecher, tor)
			if took := time.Since(began); took > soonEnough {
				t.Errorf("it took %v, want %v at most", took, soonEnough)
			}
		})
	}
}
