package integration

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/torrent"
	"github.com/shoal-p2p/shoal/proxy/announce"
)

// warns are the clients whose lists show a tracker's warning. Deluge replaces it
// by "Announce OK" at once, rTorrent does not read it, aria2 logs it.
var warns = map[string]bool{clients.QBittorrent.Name: true, clients.Transmission.Name: true}

// TestNoFalseAlarm looks at each client's own list of torrents and trackers: that
// there are no peers is shown for a torrent that lacks something, not at its
// first announce, and no longer once there are some; never for a seed.
func TestNoFalseAlarm(t *testing.T) {
	net := network(t)
	for _, kind := range clients.All {
		e := road(kind)
		t.Run(kind.Name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t)
			c := e.start(t, ctx, net, net.Sidecars[0])
			seeded, lacking := noise(t, 1<<16, httpTracker), noise(t, 1<<17, httpTracker)
			seed(t, ctx, c, seeded)
			add(t, ctx, c, lacking)
			quiet := func(tor torrent.Torrent, when string) {
				t.Helper()
				p, err := c.Progress(ctx, tor.Hash)
				if err != nil || alone(p) || p.Alarm != "" {
					t.Errorf("%s: %+v, %v, want nothing shown", when, p, err)
				}
			}
			for _, tor := range []torrent.Torrent{seeded, lacking} {
				announced(t, ctx, c, tor)
				quiet(tor, "after the first announce")
			}
			if warns[kind.Name] {
				until(t, ctx, c, lacking, alone)
			}
			quiet(seeded, "a seed that nobody wants")
			seed(t, ctx, client(t, ctx, net.Sidecars[1], nil), lacking)
			arrives(t, ctx, c, lacking)
			if warns[kind.Name] {
				until(t, ctx, c, lacking, func(p clients.Progress) bool { return !alone(p) })
			}
			for _, tor := range []torrent.Torrent{seeded, lacking} {
				quiet(tor, "in the end")
			}
		})
	}
}

// alone reports whether the client shows that there are no peers.
func alone(p clients.Progress) bool {
	return strings.Contains(p.Announce+p.Alarm, announce.TextNoPeers)
}

// until has c announce tor again and again, until what it shows is what is wanted.
func until(t *testing.T, ctx context.Context, c clients.Client, tor torrent.Torrent, wanted func(clients.Progress) bool) {
	t.Helper()
	last := clients.Progress{}
	err := process.Until(ctx, 5*time.Second, func() (bool, error) {
		if err := c.Reannounce(ctx, tor.Hash); err != nil {
			return false, err
		}
		var err error
		last, err = c.Progress(ctx, tor.Hash)
		return err == nil && wanted(last), err
	}, c.Process())
	if err != nil {
		t.Fatalf("it shows %+v: %v", last, err)
	}
}
