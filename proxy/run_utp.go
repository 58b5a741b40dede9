package proxy

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/proxy/netns"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/utp"
)

// The limits of a command's µTP.
const (
	maxGuestUTP = 8   // ports of the command that speak it
	maxQueued   = 256 // packets that wait for the µTP package: more than its windows allow

	utpDial = 45 * time.Second // for a peer to be reached
)

// guestUTP is µTP with one port of the command: a utp.Wire, and the Socket on it.
type guestUTP struct {
	net    *netns.Network
	client netip.AddrPort
	packet chan datagram
	woken  chan struct{} // holds one
	over   chan struct{} // closed by Close
	once   sync.Once
	sock   *utp.Socket // set before anybody else has the guestUTP
}

type datagram struct {
	to   netip.AddrPort
	body []byte
}

// utp takes a packet that the command sent to a stand-in. b is the Socket's.
func (g *guest) utp(b []byte, src, dst netip.AddrPort) {
	g.mu.Lock()
	u, over := g.utps[src.Port()], g.utps == nil
	why := status.Full
	if u == nil && !over && len(g.utps) < maxGuestUTP {
		u, why = g.newUTP(src), status.System
	}
	g.mu.Unlock()
	if u == nil {
		if !over {
			g.p.counters.Add(why)
		}
		return
	}
	select {
	case u.packet <- datagram{dst, b}:
	default: // lost, as on any network
	}
}

// newUTP opens µTP with a port of the command, nil if it can't. g.mu is held.
func (g *guest) newUTP(client netip.AddrPort) *guestUTP {
	u := &guestUTP{net: g.net, client: client,
		packet: make(chan datagram, maxQueued), woken: make(chan struct{}, 1), over: make(chan struct{})}
	var err error
	u.sock, err = utp.New(context.Background(), utp.Config{
		Wire: u,
		Peer: func(ctx context.Context, standIn netip.AddrPort) (utp.Session, error) {
			return handler{g.p}.peer(ctx, g.client(), standIn)
		},
		Timeout: utpDial,
		Count:   g.p.counters.Add,
	})
	if err != nil {
		return nil
	}
	g.utps[client.Port()] = u
	return u
}

// connected notes that the command has dialled a stand-in by TCP.
func (g *guest) connected(standIn netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, u := range g.utps {
		u.sock.Connected(standIn)
	}
}

// close ends what there is of µTP, when the command is over.
func (g *guest) close() {
	g.mu.Lock()
	all := g.utps
	g.utps = nil
	g.mu.Unlock()
	for _, u := range all {
		u.sock.Close()
	}
}

// Next implements utp.Wire.
func (u *guestUTP) Next() (netip.AddrPort, []byte, error) {
	select {
	case d := <-u.packet:
		return d.to, d.body, nil
	case <-u.woken:
		return netip.AddrPort{}, nil, utp.ErrWoken
	case <-u.over:
		return netip.AddrPort{}, nil, netns.ErrClosed
	}
}

// Wake implements utp.Wire.
func (u *guestUTP) Wake() {
	select {
	case u.woken <- struct{}{}:
	default:
	}
}

// Send implements utp.Wire.
func (u *guestUTP) Send(from netip.AddrPort, packet []byte) { u.net.WriteUDP(packet, from, u.client) }

// Close implements utp.Wire.
func (u *guestUTP) Close() error {
	u.once.Do(func() { close(u.over) })
	return nil
}
