package front

import (
	"context"
	"net/netip"

	"github.com/shoal-p2p/shoal/proxy/swarm"
	"github.com/shoal-p2p/shoal/proxy/utp"
)

// Peer returns once the peer behind stand-in a is reached. Its errors are those
// of swarm.Swarm's Dial.
func (c *Client) Peer(ctx context.Context, a netip.AddrPort) (utp.Session, error) {
	f := c.f
	peer, ok := f.table.Lookup(a.Addr())
	if !ok {
		return c.earlier(a)
	}
	if peer.Client != c.name {
		return nil, swarm.ErrUnknownPeer
	}
	s, ok := c.member(peer.Hash)
	if !ok {
		return nil, swarm.ErrUnknownPeer
	}
	call, err := f.desk.Dial(ctx, c.name, s, peer.Key)
	if err != nil {
		return nil, f.notReady(err)
	}
	return call, nil
}
