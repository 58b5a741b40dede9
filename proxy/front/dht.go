package front

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/shoal-p2p/shoal/proxy/announce"
	"github.com/shoal-p2p/shoal/proxy/dht"
	"github.com/shoal-p2p/shoal/proxy/memory"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// rule implements dht.Config's Rule.
func (c *Client) rule(h swarm.Hash) dht.Rule {
	if _, ok := c.member(h); ok {
		return dht.Joined
	}
	return dht.New
}

// Peers implements dht.Handler.
func (c *Client) Peers(ctx context.Context, h swarm.Hash) []netip.AddrPort {
	if !c.hold() {
		return nil
	}
	defer c.Release()
	a, _ := c.announce(ctx, h, swarm.Announce{Left: announce.Unknown, NumWant: -1}, nil)
	return c.f.standIns(c.name, h, a.Peers)
}

// Announced implements dht.Handler.
func (c *Client) Announced(a dht.Announced) {
	if !c.hold() {
		return
	}
	started := c.f.begin(func(ctx context.Context) {
		defer c.Release()
		left := announce.Unknown
		if a.Seed {
			left = 0
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		c.announce(ctx, a.Hash, swarm.Announce{Left: left}, func() { // its answer is for nobody
			if a.Port != 0 && c.name == Confined {
				c.mu.Lock()
				c.listens[a.Hash] = a.Port
				c.mu.Unlock()
			}
			c.f.cfg.Memory.Join(c.name, a.Hash, func(s *memory.Swarm) { s.Say(left) })
		})
	})
	if !started {
		c.Release()
	}
}

// Send implements dht.Handler.
func (c *Client) Send(p dht.Packet) {
	if door := c.lastDoor(); door != nil {
		door.Send(Packet(p))
	}
}

// Refused implements dht.Handler.
func (c *Client) Refused(err error) {
	switch {
	case errors.Is(err, dht.ErrTooMany):
		c.f.cfg.Counters.Add(status.DHTLimit)
	default:
		c.f.cfg.Counters.Add(status.Datagram)
	}
}
