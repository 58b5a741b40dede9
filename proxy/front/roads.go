package front

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"

	"github.com/shoal-p2p/shoal/proxy/inbound"
	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// listens returns where a client itself listens for h, by its own word.
func (f *Front) listens(name swarm.Client, h swarm.Hash) (netip.AddrPort, bool) {
	c := f.client(name)
	if c == nil {
		return netip.AddrPort{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	port := c.listens[h]
	return netip.AddrPortFrom(c.addr, port), port != 0 && c.addr.IsValid()
}

func (f *Front) standIn(c swarm.Client, h swarm.Hash, k swarm.Key) (netip.AddrPort, error) {
	a, err := f.table.Meet(c, h, k)
	return netip.AddrPortFrom(a, peers.Port), err
}

func (f *Front) standIns(c swarm.Client, h swarm.Hash, found []swarm.Key) (out []netip.AddrPort) {
	for _, a := range f.table.Assign(c, h, found) {
		out = append(out, netip.AddrPortFrom(a, peers.Port))
	}
	return out
}

// road leads through a door that has a way of its own, to the port that the
// client announced, from the peer's stand-in.
func (f *Front) road(ctx context.Context, name swarm.Client, h swarm.Hash, standIn netip.AddrPort) (swarm.Conn, error) {
	door, c := f.cfg.Door(name), f.client(name)
	if door == nil || c == nil {
		return nil, inbound.ErrNoRoad
	}
	c.mu.Lock()
	port := c.listens[h]
	c.mu.Unlock()
	if port == 0 {
		return nil, inbound.ErrNoRoad
	}
	return door.Dial(ctx, standIn, port)
}

// bell is a way into a client from one of the sidecar's own addresses: by µTP,
// or TCP to the port that it announced.
func (f *Front) bell(ctx context.Context, name swarm.Client, h swarm.Hash, _ netip.AddrPort) (swarm.Conn, error) {
	// A client takes one connection of an address and torrent at a time.
	from := netip.AddrPortFrom(peers.Beacon(rand.IntN(peers.Beacons)), peers.Port)
	if door := f.cfg.Door(name); door != nil {
		if conn, err := door.DialUTP(ctx, from); !errors.Is(err, inbound.ErrNoRoad) {
			return conn, err
		}
	}
	if conn, err := f.road(ctx, name, h, from); !errors.Is(err, inbound.ErrNoRoad) {
		return conn, err
	}
	return inbound.TCP(f.listens)(ctx, name, h, from)
}

// dialer is µTP through a door.
type dialer struct{ Door }

// Dial implements inbound.Dialer.
func (d dialer) Dial(ctx context.Context, from netip.AddrPort) (swarm.Conn, error) {
	return d.DialUTP(ctx, from)
}

func (f *Front) dialer(name swarm.Client) inbound.Dialer {
	if door := f.cfg.Door(name); door != nil {
		return dialer{door}
	}
	return nil
}
