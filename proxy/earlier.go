package proxy

import (
	"context"
	"net/netip"
	"time"

	"github.com/shoal-p2p/shoal/proxy/announce"
	"github.com/shoal-p2p/shoal/proxy/scrub"
	"github.com/shoal-p2p/shoal/proxy/socks"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// earlierWait is for a client to say its handshake, and for the trackers.
// Clients wait for an answer for ten seconds.
const earlierWait = 10 * time.Second

// earlier is a peer whose stand-in an earlier run gave to a client. The client
// dials it still, and no file says of which swarm it is: what the client says
// first does, and with that this sidecar is back in the swarm.
type earlier struct {
	p  handler
	c  *client
	at netip.AddrPort
}

// earlier returns a session for a stand-in of an earlier run.
func (p handler) earlier(c *client, a netip.AddrPort) (socks.Session, error) {
	if !p.table.Given(c.name, a.Addr()) {
		return nil, swarm.ErrUnknownPeer
	}
	return earlier{p, c, a}, nil
}

// Cancel implements socks.Session.
func (e earlier) Cancel() {}

// Serve implements socks.Session.
func (e earlier) Serve(ctx context.Context, conn swarm.Conn) {
	leg, s := e.rejoin(ctx, conn)
	if s == nil {
		conn.Close()
		return
	}
	peer, ok := e.p.table.Lookup(e.at.Addr())
	if !ok { // he is gone; others may come
		e.p.counters.Add(status.UnknownStandIn)
		conn.Close()
		return
	}
	session, err := e.p.desk.Dial(ctx, e.c.name, s, peer.Key)
	if err != nil {
		e.p.counters.Add(status.Unreachable)
		conn.Close()
		return
	}
	session.Serve(ctx, leg)
}

// rejoin joins the swarm that the client names, if the stand-in is of it, and
// asks for who is there.
func (e earlier) rejoin(ctx context.Context, conn swarm.Conn) (*scrub.Leg, swarm.Swarm) {
	ctx, cancel := context.WithTimeout(ctx, earlierWait)
	defer cancel()
	leg, hash, err := scrub.Which(ctx, conn)
	if err != nil || !e.p.table.Was(e.c.name, hash, e.at.Addr()) {
		e.p.counters.Add(status.UnknownStandIn)
		return nil, nil
	}
	s, err := e.c.join(hash)
	if err != nil {
		return nil, nil
	}
	a, _ := s.Announce(ctx, swarm.Announce{Left: announce.Unknown, NumWant: -1})
	e.p.table.Assign(e.c.name, hash, a.Peers)
	return leg, s
}
