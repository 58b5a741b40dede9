package integration

import (
	"os"
	"testing"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// TestEveryKindOfTorrentArrives under `shoal run`: whatever tracker it names, or
// none, and of whatever version it is.
func TestEveryKindOfTorrentArrives(t *testing.T) {
	net := network(t)
	const size = 1 << 20
	made := func(make func(string, []byte, ...string) (torrent.Torrent, error)) func(*testing.T) torrent.Torrent {
		return func(t *testing.T) torrent.Torrent {
			plain := noise(t, size)
			tor, err := make(plain.Name, plain.Data, httpTracker)
			if err != nil {
				t.Fatal(err)
			}
			return tor
		}
	}
	v2 := func(hybrid bool) func(string, []byte, ...string) (torrent.Torrent, error) {
		return func(name string, data []byte, trackers ...string) (torrent.Torrent, error) {
			return torrent.MakeV2(name, data, hybrid, trackers...)
		}
	}
	qb, tr := end{clients.QBittorrent, true}, end{clients.Transmission, true}
	aria, rt, de := end{clients.Aria2, true}, end{clients.RTorrent, true}, end{clients.Deluge, true}
	https := func(t *testing.T) torrent.Torrent { return noise(t, size, httpsTracker) }
	type kind struct {
		name     string
		from, to end
		make     func(*testing.T) torrent.Torrent
		magnet   bool
	}
	kinds := []kind{
		{"no-tracker", qb, qb, func(t *testing.T) torrent.Torrent { return noise(t, size) }, false},
		{"magnet-without-a-tracker", qb, qb, func(t *testing.T) torrent.Torrent { return noise(t, size) }, true},
		{"https-tracker", qb, qb, https, false},
		{"https-tracker-transmission-to-qbittorrent", tr, qb, https, false},
		{"https-tracker-deluge-to-aria2", de, aria, https, false},
		{"https-tracker-aria2-to-rtorrent", aria, rt, https, false},
		{"https-tracker-rtorrent-to-deluge", rt, de, https, false},
		{"private", qb, qb, made(torrent.MakePrivate), false},
		{"v2", qb, qb, made(v2(false)), false},
		{"hybrid", qb, qb, made(v2(true)), false},
	}
	if os.Getenv("SHOAL_MATRIX") == "all" { // it sends its first DHT packet 30 s after its start
		kinds = append(kinds, kind{"magnet-without-a-tracker-to-transmission", qb, tr, func(t *testing.T) torrent.Torrent { return noise(t, size) }, true})
	}
	for _, c := range kinds {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t)
			tor := c.make(t)
			seeder := c.from.start(t, ctx, net, net.Sidecars[0])
			leecher := c.to.start(t, ctx, net, net.Sidecars[1])
			seed(t, ctx, seeder, tor)
			if !c.magnet {
				add(t, ctx, leecher, tor)
			} else if err := leecher.AddMagnet(ctx, tor.Magnet()); err != nil {
				t.Fatal(err)
			}
			arrives(t, ctx, leecher, tor)
		})
	}
}
