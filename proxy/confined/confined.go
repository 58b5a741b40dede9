// Package confined is the door of a command that runs in a network namespace of
// its own, whose only way out is this sidecar: the command dials and sends as it
// always does, and everything comes here.
// Not here: the namespace (package netns), and what the command's connections
// and packets are for (package front).
package confined

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/proxy/front"
	"github.com/shoal-p2p/shoal/proxy/inbound"
	"github.com/shoal-p2p/shoal/proxy/netns"
	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// dialTimeout is how long the command may take to accept.
const dialTimeout = 5 * time.Second

// Door is the command's front.Door, and the netns.Handler of its namespace.
type Door struct {
	front    *front.Front
	notReady func() *fault.Fault // why the sidecar is not ready; nil when it is

	heard  atomic.Bool // the command has dialled a peer
	silent atomic.Bool // it had done nothing that a torrent client does after some time

	names peers.Names

	mu   sync.Mutex
	net  *netns.Network      // guarded by mu: set before the command starts
	utps map[uint16]*portUTP // guarded by mu: by the command's port; nil when the command is over
}

// New returns a Door.
func New(f *front.Front, notReady func() *fault.Fault) *Door {
	return &Door{front: f, notReady: notReady, utps: make(map[uint16]*portUTP)}
}

// Enter sets the namespace, before the command starts.
func (d *Door) Enter(n *netns.Network) {
	d.mu.Lock()
	d.net = n
	d.mu.Unlock()
}

func (d *Door) network() *netns.Network {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.net
}

func (d *Door) client() *front.Client {
	c := d.front.Hold(front.Confined)
	defer c.Release() // a client with a door is not forgotten
	c.Use(d, netip.Addr{})
	return c
}

// acted reports whether the command has done what a torrent client does.
func (d *Door) acted() bool {
	return d.heard.Load() || d.front != nil && d.front.Acted(front.Confined)
}

// Silent reports whether the command still has done nothing, after some time,
// that a torrent client does.
func (d *Door) Silent() bool { return d.silent.Load() && !d.acted() }

// Name implements netns.Handler: every name has an address, the sidecar's.
func (d *Door) Name(name string) netip.Addr {
	a := d.names.Addr(name)
	if !a.IsValid() {
		d.front.Count(status.Full)
	}
	return a
}

// host returns what the command means by a: the name that it looked up, or a.
func (d *Door) host(a netip.Addr) string {
	if name, ok := d.names.Name(a); ok {
		return name
	}
	return a.String()
}

// TCP implements netns.Handler.
func (d *Door) TCP(ctx context.Context, _, dst netip.AddrPort) (func(netns.Conn), error) {
	c := d.client()
	dst = peers.Meant(dst)
	if !peers.Is(dst.Addr()) {
		return func(conn netns.Conn) {
			defer conn.Close()
			c.Connect(ctx, d.host(dst.Addr()), conn)
		}, nil
	}
	d.heard.Store(true)
	d.connected(dst.Addr())
	session, err := c.Peer(ctx, dst)
	if err != nil {
		d.front.Refuse(ctx, err)
		return nil, err
	}
	return func(conn netns.Conn) { session.Serve(ctx, conn) }, nil
}

// UDP implements netns.Handler.
func (d *Door) UDP(b []byte, src, dst netip.AddrPort) {
	c := d.client()
	if front.SortPacket(dst.Addr(), b) == front.UTP {
		d.heard.Store(true)
		d.utp(b, src, dst)
		return
	}
	c.Packet(b, src, dst, func(answer []byte) { d.network().WriteUDP(answer, dst, src) })
}

// Dial implements front.Door: the connection comes from the stand-in.
func (d *Door) Dial(ctx context.Context, from netip.AddrPort, port uint16) (swarm.Conn, error) {
	n := d.network()
	if n == nil {
		return nil, inbound.ErrNoRoad
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := n.DialTCP(ctx, netip.AddrPortFrom(from.Addr(), 0), port)
	if err != nil {
		return nil, fmt.Errorf("confined: the command's port: %w", err)
	}
	return conn, nil
}

// DialUTP implements front.Door: TCP leads in, and is faster.
func (d *Door) DialUTP(context.Context, netip.AddrPort) (swarm.Conn, error) {
	return nil, inbound.ErrNoRoad
}

// Send implements front.Door.
func (d *Door) Send(p front.Packet) { d.network().WriteUDP(p.Data, p.From, p.To) }

// Addr implements front.Door: the command may send from several ports.
func (d *Door) Addr() netip.AddrPort { return netip.AddrPort{} }

// TakeBeacon implements front.Door.
func (d *Door) TakeBeacon() (netip.AddrPort, bool) { return netip.AddrPort{}, false }
