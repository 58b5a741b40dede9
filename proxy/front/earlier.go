package front

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/shoal-p2p/shoal/proxy/announce"
	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/scrub"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
	"github.com/shoal-p2p/shoal/proxy/utp"
)

const (
	// earlierWait bounds the client's handshake and the trackers' answers.
	// Clients wait for an answer for ten seconds.
	earlierWait = 10 * time.Second

	// earlierEvery is how often such a connection asks the trackers for the
	// peers of one swarm.
	earlierEvery = time.Minute
)

// earlier is a connection to a stand-in that this run has given to nobody: an
// earlier one may have. The client still dials it, and no file says which swarm
// it is of. The client's handshake does, and with that this sidecar is back in
// the swarm: there the peer gets the same stand-in as before.
type earlier struct {
	f  *Front
	c  *Client
	at netip.AddrPort
}

// earlier returns a session for a stand-in of an earlier run.
func (c *Client) earlier(a netip.AddrPort) (utp.Session, error) {
	if !peers.Valid(a.Addr()) {
		return nil, swarm.ErrUnknownPeer
	}
	if !c.hold() {
		return nil, swarm.ErrUnknownPeer
	}
	return earlier{c.f, c, a}, nil
}

// Cancel implements utp.Session.
func (e earlier) Cancel() { e.c.Release() }

// Serve implements utp.Session.
func (e earlier) Serve(ctx context.Context, conn swarm.Conn) {
	defer e.c.Release()
	leg, s := e.rejoin(ctx, conn)
	if s == nil {
		conn.Close()
		return
	}
	peer, ok := e.f.table.Lookup(e.at.Addr())
	if !ok || peer.Client != e.c.name || peer.Hash != s.Hash() { // the peer is gone; others may come
		e.f.cfg.Counters.Add(status.UnknownStandIn)
		conn.Close()
		return
	}
	session, err := e.f.desk.Dial(ctx, e.c.name, s, peer.Key)
	if err != nil {
		e.f.Refuse(ctx, err)
		conn.Close()
		return
	}
	session.Serve(ctx, leg)
}

// rejoin joins the swarm that the client's handshake names, and asks for its
// members.
func (e earlier) rejoin(ctx context.Context, conn swarm.Conn) (*scrub.Leg, swarm.Swarm) {
	ctx, cancel := context.WithTimeout(ctx, earlierWait)
	defer cancel()
	leg, hash, err := scrub.Which(ctx, conn)
	switch {
	case errors.Is(err, scrub.ErrSilent):
		e.f.cfg.Counters.Add(status.Silent)
		return nil, nil
	case errors.Is(err, scrub.ErrNotBitTorrent):
		e.f.cfg.Counters.Add(status.NotBitTorrent)
		return nil, nil
	case err != nil:
		e.f.cfg.Counters.Add(status.UnknownStandIn)
		return nil, nil
	}
	s, err := e.c.join(hash)
	if err != nil {
		e.f.Refuse(ctx, err)
		return nil, nil
	}
	if e.c.asks(hash, time.Now()) {
		a, _ := s.Announce(ctx, swarm.Announce{Left: announce.Unknown, NumWant: -1})
		e.f.table.Assign(e.c.name, hash, a.Peers)
	}
	return leg, s
}

// asks reports whether a connection to a stand-in of an earlier run is to ask
// for the peers of h now.
func (c *Client) asks(h swarm.Hash, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.rejoined[h]) < earlierEvery {
		return false
	}
	c.rejoined[h] = now
	return true
}
