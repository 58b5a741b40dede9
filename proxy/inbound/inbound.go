// Package inbound brings a stream that a peer opened to the torrent client
// here, and a connection that the client opened to a stream: between one
// client and one peer of a swarm there is one stream, whoever dialled first.
//
// An arrived stream is given to the client by the first of these that works:
// a connection that the client itself is opening to that peer, the Roads into
// the client, in their order, a connection that the client opens when the Bell
// tells it of that peer, and the Last road. A road works when the client has
// answered the peer's handshake.
//
// When both sides dial at once, the stream that the smaller key opened lives:
//
//	                    my stream is unanswered      my stream has answered
//	smaller key: mine   theirs waits: closed when    theirs is closed, unless
//	                    mine answers, used if mine   theirs still stands some
//	                    fails                        seconds later: then mine
//	                                                 is dead without knowing
//	greater key: mine   my client goes over to       mine is dead: theirs
//	                    theirs                       takes its place
//
// A client goes over with all that it has said, which is no more than its
// handshake; the stream it leaves is closed before the far client hears of it.
// Not here: how streams get here (package swarm), what may be said in them
// (package scrub), what the client's side speaks (package socks).
package inbound

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/proxy/scrub"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// ErrNoRoad is returned by a Road that a client does not have.
var ErrNoRoad = errors.New("inbound: the client has no such way in")

// Road is a way into client c, for the peer that c knows as standIn. The
// connection that it returns has heard nothing yet.
type Road func(ctx context.Context, c swarm.Client, h swarm.Hash, standIn netip.AddrPort) (swarm.Conn, error)

// Config is what a Desk needs.
type Config struct {
	// StandIn returns the address of a peer that was met.
	StandIn func(c swarm.Client, h swarm.Hash, peer swarm.Key) (netip.AddrPort, error)

	// StandIns returns the addresses of peers that were learned of.
	StandIns func(c swarm.Client, h swarm.Hash, peers []swarm.Key) []netip.AddrPort

	Roads []Road              // tried in this order
	Count func(status.Reason) // told of every stream that is refused; may be nil

	// Bell is a way into a client that leads from an address of the sidecar's
	// own. Over it a client that no road of Roads leads into is told of the peer,
	// and dials him. When it does not, Last is tried. Both may be nil.
	// Over the Bell a client is also told of peers that its announce came too
	// early for.
	Bell, Last Road

	Hello time.Duration // for a far side's or a client's handshake; 10 s if 0
	Wait  time.Duration // for a client to take an arrived stream; 20 s if 0
	Tie   time.Duration // for the other stream of a tie to come or to go; 5 s if 0
}

// The limits on what peers can make a sidecar hold.
const (
	maxWaiting = 256  // streams that no client has taken yet
	maxVisits  = 2048 // arrived streams
)

// Desk is where clients and streams meet.
type Desk struct {
	config Config

	mu      sync.Mutex
	pairs   map[pairKey]*pair
	tastes  map[swarm.Client]*scrub.Taste
	visits  int
	waiting int
}

// pairKey is one client and one peer of it.
type pairKey struct {
	client swarm.Client
	hash   swarm.Hash
	peer   swarm.Key
}

// pair is what there is between them. It is guarded by Desk.mu and gone when
// both fields are nil.
type pair struct {
	call  *Call  // the newest that the client opened
	visit *visit // the newest that the peer opened
}

// New returns a Desk.
func New(c Config) *Desk {
	if c.Count == nil {
		c.Count = func(status.Reason) {}
	}
	if c.Hello == 0 {
		c.Hello = 10 * time.Second
	}
	if c.Wait == 0 {
		c.Wait = 20 * time.Second
	}
	if c.Tie == 0 {
		c.Tie = 5 * time.Second
	}
	return &Desk{config: c, pairs: make(map[pairKey]*pair), tastes: make(map[swarm.Client]*scrub.Taste)}
}

// Run takes the streams that come to c's membership s, and tells c of the peers
// that were learned of late, until ctx ends or s is left. All of them have ended when it returns.
func (d *Desk) Run(ctx context.Context, c swarm.Client, s swarm.Swarm) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { d.tellLater(ctx, c, s) })
	for {
		peer, stream, err := s.Accept(ctx)
		if err != nil {
			return err
		}
		wg.Go(func() { d.Arrive(ctx, c, s, peer, stream) })
	}
}

// pair returns what there is between a client and a peer. d.mu is held.
func (d *Desk) pair(k pairKey) *pair {
	p := d.pairs[k]
	if p == nil {
		p = new(pair)
		d.pairs[k] = p
	}
	return p
}

// tidy forgets a pair between which there is nothing. d.mu is held.
func (d *Desk) tidy(k pairKey) {
	if p := d.pairs[k]; p != nil && p.call == nil && p.visit == nil {
		delete(d.pairs, k)
	}
}

// taste returns how c wants to be spoken to.
func (d *Desk) taste(c swarm.Client) *scrub.Taste {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tastes[c]
	if t == nil {
		t = new(scrub.Taste)
		d.tastes[c] = t
	}
	return t
}

// splice joins a client's leg and a stream until both are over.
func (d *Desk) splice(ctx context.Context, s swarm.Swarm, peer swarm.Key, leg *scrub.Leg, far swarm.Conn) {
	d.refused(scrub.Splice(ctx, leg, far, scrubbing(s, peer)))
}

func scrubbing(s swarm.Swarm, peer swarm.Key) scrub.Config {
	return scrub.Config{Hash: s.Hash(), Self: scrub.PeerID(s.Self()), Peer: scrub.PeerID(peer)}
}

// refused counts an error of package scrub.
func (d *Desk) refused(err error) {
	switch {
	case errors.Is(err, scrub.ErrWrongSwarm):
		d.config.Count(status.WrongSwarm)
	case errors.Is(err, scrub.ErrNotBitTorrent):
		d.config.Count(status.NotBitTorrent)
	case errors.Is(err, scrub.ErrSilent):
		d.config.Count(status.Silent)
	}
}

// less says if a's stream wins a tie with b's.
func less(a, b swarm.Key) bool { return string(a[:]) < string(b[:]) }
