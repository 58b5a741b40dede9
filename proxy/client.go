package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/proxy/announce"
	"github.com/shoal-p2p/shoal/proxy/authority"
	"github.com/shoal-p2p/shoal/proxy/dht"
	"github.com/shoal-p2p/shoal/proxy/inbound"
	"github.com/shoal-p2p/shoal/proxy/memory"
	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/socks"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// client is one torrent client of this sidecar.
type client struct {
	p    *Sidecar
	name swarm.Client
	udp  *announce.UDP
	dht  *dht.Server

	mu       sync.Mutex
	addr     netip.Addr                   // guarded by mu: where the client is, loopback mostly
	listens  map[swarm.Hash]uint16        // guarded by mu: the port that it announced
	runs     map[swarm.Hash]swarm.Swarm   // guarded by mu: streams are taken for it
	rejoined map[swarm.Hash]time.Time     // guarded by mu: when a stand-in of an earlier run last asked for peers
	assoc    *socks.Association           // guarded by mu: the newest
	asked    bool                         // guarded by mu: the newest has sent a DHT packet
	returns  time.Time                    // guarded by mu: after a restart of the sidecar, when the client has an association again
	silent   map[swarm.Hash]chan struct{} // guarded by mu: swarms of an earlier run; closed when the client asks again, or is out
	guest    *guest                       // guarded by mu: set for the command of a Command
}

// client returns the client called name.
func (p *Sidecar) client(name swarm.Client) *client {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.clients[name]
	if c == nil {
		c = &client{p: p, name: name, listens: make(map[swarm.Hash]uint16), runs: make(map[swarm.Hash]swarm.Swarm), rejoined: make(map[swarm.Hash]time.Time),
			silent: make(map[swarm.Hash]chan struct{})}
		c.udp = announce.NewUDP(c)
		c.dht = dht.NewServer(dht.Config{
			Key:      sha256.Sum256(append(append([]byte("shoal/1 dht"), p.secret[:]...), name...)),
			Rule:     c.rule,
			External: netip.AddrPortFrom(peers.Beacon(0), peers.Port),
		}, c)
		p.clients[name] = c
		p.journal.client(name)
	}
	return c
}

func (p *Sidecar) closeClients() {
	p.mu.Lock()
	all := p.clients
	p.clients = make(map[swarm.Client]*client)
	p.mu.Unlock()
	for _, c := range all {
		c.dht.Close()
	}
}

// seen notes where a client is and which association is its newest.
func (c *client) seen(from socks.Origin, conn net.Conn) *client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if from.Assoc != nil && from.Assoc != c.assoc {
		c.asked = false
		c.p.wg.Go(func() { c.greet(from.Assoc) })
	}
	c.assoc = from.Assoc
	if conn != nil {
		if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			c.addr = a.AddrPort().Addr().Unmap()
			c.p.memory.Met(c.name, c.addr)
		}
	}
	return c
}

// greetAfter is when a client that has sent no DHT packet is pinged: one whose
// routing table is empty asks nobody, and drops what comes before it is ready.
var greetAfter = []time.Duration{time.Second, 2 * time.Second, 7 * time.Second}

// greet makes a client know its DHT node.
func (c *client) greet(a *socks.Association) {
	c.p.mu.Lock()
	ctx := c.p.ctx
	c.p.mu.Unlock()
	for _, wait := range greetAfter {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		c.mu.Lock()
		over := c.asked || c.assoc != a
		c.mu.Unlock()
		if over {
			return
		}
		if a.Known() {
			c.dht.Greet(a.Addr())
		}
	}
}

func (c *client) association() *socks.Association {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.assoc
}

// listens returns where a client itself listens for h, by its own word.
func (p *Sidecar) listens(name swarm.Client, h swarm.Hash) (netip.AddrPort, bool) {
	c := p.client(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	port := c.listens[h]
	return netip.AddrPortFrom(c.addr, port), port != 0 && c.addr.IsValid()
}

func (p *Sidecar) association(name swarm.Client) inbound.Dialer {
	if a := p.socks.Association(name); a != nil {
		return a
	}
	return nil
}

// bell is a way into a client from one of the sidecar's own addresses: by µTP,
// or TCP to the port that it announced.
func (p *Sidecar) bell(ctx context.Context, name swarm.Client, h swarm.Hash, _ netip.AddrPort) (swarm.Conn, error) {
	// A client takes one connection of an address and torrent at a time.
	from := netip.AddrPortFrom(peers.Beacon(rand.IntN(peers.Beacons)), peers.Port)
	if a := p.socks.Association(name); a != nil {
		return a.Dial(ctx, from)
	}
	if name == confined {
		return p.road(ctx, name, h, from)
	}
	return inbound.TCP(p.listens)(ctx, name, h, from)
}

func (p *Sidecar) standIn(c swarm.Client, h swarm.Hash, k swarm.Key) (netip.AddrPort, error) {
	a, err := p.table.Meet(c, h, k)
	return netip.AddrPortFrom(a, peers.Port), err
}

func (p *Sidecar) standIns(c swarm.Client, h swarm.Hash, found []swarm.Key) (out []netip.AddrPort) {
	for _, a := range p.table.Assign(c, h, found) {
		out = append(out, netip.AddrPortFrom(a, peers.Port))
	}
	return out
}

// clientInterval is what a client is told at most. Its announces cost the
// network little, and are how a sidecar that was started again learns what its
// client shares: no file says so. Libtorrent takes no less.
const clientInterval = 5 * time.Minute

const slowInterval = time.Minute // after an answer that came before the trackers'

// Announce implements announce.Handler.
func (c *client) Announce(ctx context.Context, r announce.Request) (announce.Response, error) {
	p := c.p
	c.heard()
	assoc := c.association()
	var out announce.Response
	if r.Port != 0 && assoc == nil && c.name != confined && !c.returning() {
		p.counters.Add(status.NotProxied)
		if p.cfg.Strict {
			return out, &announce.Failure{Text: announce.TextNotProxiedEnd}
		}
		out.Warning = announce.TextNotProxied
	}
	if r.Event == swarm.Stopped {
		p.memory.Leave(c.name, r.Hash)
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
		p.refuse(ctx, err)
		return out, err
	}
	if slow {
		a.Interval = slowInterval
	}
	out.Peers = p.standIns(c.name, r.Hash, a.Peers)
	out.Seeders, out.Leechers, out.Interval = a.Seeders, a.Leechers, min(a.Interval, clientInterval)
	if a.Alone && out.Warning == "" && lacks(r) {
		out.Warning = announce.TextNoPeers
	}
	p.memory.Join(c.name, r.Hash, func(s *memory.Swarm) { s.Again = out.Interval })
	if assoc != nil && !r.NoPeers {
		out.Beacon, _ = assoc.TakeBeacon()
	}
	return out, nil
}

// lacks reports whether the client wants peers because it lacks something. Only
// then is it told that there are none: what a client shows of a tracker's
// words looks like an error (Transmission marks the torrent with them).
func lacks(r announce.Request) bool {
	return r.Left != 0 && r.Left != announce.Unknown && r.NumWant != 0
}

// refuse counts an announce or a stream that failed with err. What is no refusal
// but a fault of the sidecar's own is logged.
func (p *Sidecar) refuse(ctx context.Context, err error) {
	err = p.notReady(err)
	why, ok := swarm.Refusal(ctx, err)
	switch {
	case !ok:
	case why == status.Unreachable && !errors.Is(err, swarm.ErrUnreachable):
		p.journal.failed(err)
	default:
		p.counters.Add(why)
	}
}

// notReady adds swarm.ErrNotReady to an error while the sidecar is not ready.
func (p *Sidecar) notReady(err error) error {
	if errors.Is(err, swarm.ErrUnreachable) && !errors.Is(err, swarm.ErrConnected) && p.up.Why() != nil {
		return fmt.Errorf("%w: %w", swarm.ErrNotReady, err)
	}
	return err
}

// heard notes that the command of a Command does what a torrent client does.
func (c *client) heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.guest != nil {
		c.guest.heard.Store(true)
	}
}

// Scrape implements announce.Handler.
func (c *client) Scrape(_ context.Context, hashes []swarm.Hash) ([]announce.Count, error) {
	out := make([]announce.Count, len(hashes))
	for i, h := range hashes {
		out[i].Seeders, out[i].Leechers = c.p.swarms.Counts(c.name, h)
	}
	return out, nil
}

// rule implements dht.Config's Rule.
func (c *client) rule(h swarm.Hash) dht.Rule {
	if _, ok := c.member(h); ok {
		return dht.Joined
	}
	return dht.New
}

// Peers implements dht.Handler.
func (c *client) Peers(ctx context.Context, h swarm.Hash) []netip.AddrPort {
	a, _ := c.announce(ctx, h, swarm.Announce{Left: announce.Unknown, NumWant: -1}, nil)
	return c.p.standIns(c.name, h, a.Peers)
}

// Announced implements dht.Handler.
func (c *client) Announced(a dht.Announced) {
	c.mu.Lock()
	if a.Port != 0 && c.guest != nil {
		c.listens[a.Hash] = a.Port
	}
	c.mu.Unlock()
	c.p.wg.Go(func() {
		left := announce.Unknown
		if a.Seed {
			left = 0
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c.announce(ctx, a.Hash, swarm.Announce{Left: left}, func() { // its answer is for nobody
			c.p.memory.Join(c.name, a.Hash, func(s *memory.Swarm) { s.Say(left) })
		})
	})
}

// Send implements dht.Handler.
func (c *client) Send(d dht.Packet) {
	c.mu.Lock()
	a, g := c.assoc, c.guest
	c.mu.Unlock()
	switch {
	case g != nil:
		g.network().WriteUDP(d.Data, d.From, d.To)
	case a != nil:
		a.WriteFrom(d.From, d.Data)
	}
}

// Refused implements dht.Handler.
func (c *client) Refused(err error) {
	switch {
	case errors.Is(err, dht.ErrTooMany):
		c.p.counters.Add(status.DHTLimit)
	default:
		c.p.counters.Add(status.Datagram)
	}
}

// handler is what the SOCKS front asks.
type handler struct{ *Sidecar }

// Elsewhere implements socks.Handler.
func (p handler) Elsewhere(ctx context.Context, from socks.Origin, host string, conn net.Conn) {
	p.elsewhere(ctx, p.client(from.Client).seen(from, conn), host, conn)
}

func (p handler) elsewhere(ctx context.Context, c *client, host string, conn net.Conn) {
	conn, kind, err := announce.Peek(conn)
	if err != nil {
		if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() { // else it was the client who left
			p.counters.Add(status.Silent)
		}
		return
	}
	switch kind {
	case announce.BitTorrent:
		p.counters.Add(status.BitTorrent)
		return
	case announce.TLS:
		if conn, err = p.terminate(ctx, host, conn); err != nil {
			return
		}
	case announce.Other:
		p.counters.Add(status.Unreadable)
		return
	}
	err = announce.Serve(ctx, conn, c)
	switch {
	case errors.Is(err, announce.ErrWebSeed):
		p.counters.Add(status.WebSeed)
	case errors.Is(err, announce.ErrNoAnnounce):
		p.counters.Add(status.Web)
	case errors.Is(err, announce.ErrSilent):
		p.counters.Add(status.Silent)
	case errors.Is(err, announce.ErrTooLarge), errors.Is(err, announce.ErrMalformed):
		p.counters.Add(status.Unreadable)
	}
}

// terminate answers TLS as the tracker that the client means.
func (p handler) terminate(ctx context.Context, host string, conn net.Conn) (net.Conn, error) {
	out, err := p.tls.Handshake(ctx, conn, host)
	switch {
	case errors.Is(err, authority.ErrDistrusted):
		p.counters.Add(status.Certificate)
	case err != nil && ctx.Err() == nil:
		p.counters.Add(status.TLS)
	}
	return out, err
}

// Peer implements socks.Handler.
func (p handler) Peer(ctx context.Context, from socks.Origin, a netip.AddrPort) (socks.Session, error) {
	return p.peer(ctx, p.client(from.Client).seen(from, nil), a)
}

func (p handler) peer(ctx context.Context, c *client, a netip.AddrPort) (socks.Session, error) {
	peer, ok := p.table.Lookup(a.Addr())
	if !ok {
		return p.earlier(c, a)
	}
	if peer.Client != c.name {
		return nil, swarm.ErrUnknownPeer
	}
	s, ok := c.member(peer.Hash)
	if !ok {
		return nil, swarm.ErrUnknownPeer
	}
	call, err := p.desk.Dial(ctx, c.name, s, peer.Key)
	if err != nil {
		return nil, p.notReady(err)
	}
	return call, nil
}

// Tracker implements socks.Handler.
func (p handler) Tracker(ctx context.Context, from socks.Origin, to netip.Addr, packet []byte) []byte {
	return p.client(from.Client).seen(from, nil).udp.Answer(ctx, packet, to)
}

// DHT implements socks.Handler.
func (p handler) DHT(from socks.Origin, node netip.AddrPort, packet []byte) {
	if from.Assoc == nil {
		return
	}
	c := p.client(from.Client).seen(from, nil)
	c.mu.Lock()
	c.asked = true
	c.mu.Unlock()
	c.dht.Packet(packet, from.Assoc.Addr(), node)
}
