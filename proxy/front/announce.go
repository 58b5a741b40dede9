package front

import (
	"context"
	"errors"
	"time"

	"github.com/shoal-p2p/shoal/proxy/announce"
	"github.com/shoal-p2p/shoal/proxy/memory"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// clientInterval is what a client is told at most. Its announces cost the
// network little, and are how a sidecar that was started again learns what its
// client shares: no file says so. Libtorrent takes no less.
const clientInterval = 5 * time.Minute

const slowInterval = time.Minute // after an answer that came before the trackers'

// Announce implements announce.Handler.
func (c *Client) Announce(ctx context.Context, r announce.Request) (announce.Response, error) {
	f := c.f
	c.acts()
	door := c.lastDoor()
	var out announce.Response
	if r.Port != 0 && door == nil && !c.returning() {
		f.cfg.Counters.Add(status.NotProxied)
		if f.cfg.Strict {
			return out, &announce.Failure{Text: announce.TextNotProxiedEnd}
		}
		out.Warning = announce.TextNotProxied
	}
	if r.Event == swarm.Stopped {
		f.cfg.Memory.Leave(c.name, r.Hash)
		c.confirmed(r.Hash)
		if s, ok := c.member(r.Hash); ok {
			s.Leave()
		}
		return announce.Response{}, nil
	}
	want := r.NumWant
	if r.NoPeers {
		want = 0 // the client is told of them by peer exchange
	}
	a, err := c.announce(ctx, r.Hash, swarm.Announce{Event: r.Event, Left: r.Left, NumWant: want}, func() { c.says(r) })
	slow := errors.Is(err, context.DeadlineExceeded)
	if err != nil && !slow && len(a.Peers) == 0 {
		f.Refuse(ctx, err)
		return out, err
	}
	if slow {
		a.Interval = slowInterval
	}
	out.Peers = f.standIns(c.name, r.Hash, a.Peers)
	out.Seeders, out.Leechers, out.Interval = a.Seeders, a.Leechers, min(a.Interval, clientInterval)
	if a.Alone && out.Warning == "" && lacks(r) {
		out.Warning = announce.TextNoPeers
	}
	f.cfg.Memory.Join(c.name, r.Hash, func(s *memory.Swarm) { s.Again = out.Interval })
	if door != nil && !r.NoPeers {
		out.Beacon, _ = door.TakeBeacon()
	}
	return out, nil
}

// lacks reports whether the client wants peers because it lacks something. Only
// then is it told that there are none: what a client shows of a tracker's
// words looks like an error (Transmission marks the torrent with them).
func lacks(r announce.Request) bool {
	return r.Left != 0 && r.Left != announce.Unknown && r.NumWant != 0
}

// Scrape implements announce.Handler.
func (c *Client) Scrape(_ context.Context, hashes []swarm.Hash) ([]announce.Count, error) {
	out := make([]announce.Count, len(hashes))
	for i, h := range hashes {
		out[i].Seeders, out[i].Leechers = c.f.cfg.Swarms.Counts(c.name, h)
	}
	return out, nil
}
