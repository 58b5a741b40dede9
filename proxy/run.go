package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/proxy/announce"
	"github.com/shoal-p2p/shoal/proxy/dht"
	"github.com/shoal-p2p/shoal/proxy/inbound"
	"github.com/shoal-p2p/shoal/proxy/netns"
	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
	"github.com/shoal-p2p/shoal/proxy/utp"
)

// confined is the client of a Run: the command in its namespace.
const confined swarm.Client = "confined"

// Command runs a sidecar and, in a namespace whose only way out is this
// sidecar, a command. It returns the command's exit code, once both are over.
// cfg.Handler, cfg.Trust and cfg.Ready are set here.
func (p *Sidecar) Command(ctx context.Context, cfg netns.Config) (code int, err error) {
	if err := refuseAddr(cfg); err != nil {
		return netns.ExitNotStarted, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	failed := make(chan error, 1)
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			failed <- err
			cancel()
		}
	})
	defer running.Wait()
	defer cancel()
	if cfg.Say == nil {
		cfg.Say = func(line string) { fmt.Fprintln(os.Stderr, "shoal: "+line) }
	}
	g := newGuest(p, p.up.Why)
	p.mu.Lock()
	p.guest = g
	p.mu.Unlock()
	cfg.Handler, cfg.Trust = g, p.tls.PEM()
	settings := cfg
	cfg.Ready = func(starting context.Context, n *netns.Network) {
		g.enter(n)
		if ready := awaitReady(starting, g.notReady, cfg.Say); starting.Err() == nil {
			running.Go(func() { g.attend(ctx, ready, cfg.Say, settings) })
		}
	}
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	// A session bus leads nowhere: what listens there fetches, and outside.
	cfg.Env = append(cfg.Env, "DBUS_SESSION_BUS_ADDRESS=disabled:")
	code, err = netns.Run(ctx, cfg)
	g.close()
	select {
	case sidecar := <-failed:
		return code, sidecar // which ended the command, too
	default:
		return code, err
	}
}

// guest is the command's side of a Command: all that it sends comes here.
type guest struct {
	p      *Sidecar
	heard  atomic.Bool // the command has sent what a torrent client sends
	silent atomic.Bool // it had not after some time

	notReady func() *fault.Fault // why the sidecar is not ready; nil when it is

	names peers.Names

	mu   sync.Mutex
	net  *netns.Network       // guarded by mu: set before the command starts
	utps map[uint16]*guestUTP // guarded by mu: by the command's port; nil when the command is over
}

func newGuest(p *Sidecar, notReady func() *fault.Fault) *guest {
	return &guest{p: p, notReady: notReady, utps: make(map[uint16]*guestUTP)}
}

func (g *guest) enter(n *netns.Network) {
	g.mu.Lock()
	g.net = n
	g.mu.Unlock()
}

func (g *guest) network() *netns.Network {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.net
}

// Name implements netns.Handler: every name has an address, the sidecar's.
func (g *guest) Name(name string) netip.Addr {
	a := g.names.Addr(name)
	if !a.IsValid() {
		g.p.counters.Add(status.Full)
	}
	return a
}

// host returns what the command means by a: the name that it looked up, or a.
func (g *guest) host(a netip.Addr) string {
	if name, ok := g.names.Name(a); ok {
		return name
	}
	return a.String()
}

func (g *guest) client() *client {
	c := g.p.client(confined)
	c.mu.Lock()
	c.guest = g
	c.mu.Unlock()
	return c
}

// TCP implements netns.Handler.
func (g *guest) TCP(ctx context.Context, _, dst netip.AddrPort) (func(netns.Conn), error) {
	c := g.client()
	dst = peers.Meant(dst)
	if !peers.Is(dst.Addr()) {
		return func(conn netns.Conn) {
			defer conn.Close()
			handler{g.p}.elsewhere(ctx, c, g.host(dst.Addr()), conn)
		}, nil
	}
	g.heard.Store(true)
	g.connected(dst.Addr())
	session, err := handler{g.p}.peer(ctx, c, dst)
	if err != nil {
		g.p.refuse(ctx, err)
		return nil, err
	}
	return func(conn netns.Conn) { session.Serve(ctx, conn) }, nil
}

// UDP implements netns.Handler.
func (g *guest) UDP(b []byte, src, dst netip.AddrPort) {
	c := g.client()
	switch {
	case peers.Is(dst.Addr()) && utp.Is(b):
		g.heard.Store(true)
		g.utp(b, src, dst)
	case dht.IsPacket(b):
		g.heard.Store(true)
		c.mu.Lock()
		c.asked = true
		c.mu.Unlock()
		c.dht.Packet(b, src, dst)
	case announce.IsUDP(b):
		g.heard.Store(true)
		g.p.wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if answer := c.udp.Answer(ctx, b, dst.Addr()); len(answer) > 0 {
				g.network().WriteUDP(answer, dst, src)
			}
		})
	default:
		g.p.counters.Add(status.Datagram)
	}
}

// road is the way into a confined client: TCP to the port it announced, from
// the peer's own stand-in.
func (p *Sidecar) road(ctx context.Context, name swarm.Client, h swarm.Hash, standIn netip.AddrPort) (swarm.Conn, error) {
	p.mu.Lock()
	g := p.guest
	p.mu.Unlock()
	if name != confined || g == nil || g.network() == nil {
		return nil, inbound.ErrNoRoad
	}
	c := p.client(name)
	c.mu.Lock()
	port := c.listens[h]
	c.mu.Unlock()
	if port == 0 {
		return nil, inbound.ErrNoRoad
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := g.network().DialTCP(ctx, netip.AddrPortFrom(standIn.Addr(), 0), port)
	if err != nil {
		return nil, fmt.Errorf("proxy: the command's port: %w", err)
	}
	return conn, nil
}
