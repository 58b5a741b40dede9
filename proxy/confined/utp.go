package confined

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
	maxPorts  = 8   // ports of the command that speak it
	maxQueued = 256 // packets that wait for the µTP package: more than its windows allow

	utpDial = 45 * time.Second // for a peer to be reached
)

// portUTP is µTP with one port of the command: a utp.Wire, and the Socket on it.
type portUTP struct {
	net    *netns.Network
	client netip.AddrPort
	packet chan datagram
	woken  chan struct{} // holds one
	over   chan struct{} // closed by Close
	once   sync.Once
	sock   *utp.Socket // set before anybody else has the portUTP
}

type datagram struct {
	to   netip.AddrPort
	body []byte
}

// utp takes a packet that the command sent to a stand-in. b is the Socket's.
func (d *Door) utp(b []byte, src, dst netip.AddrPort) {
	d.mu.Lock()
	u, over := d.utps[src.Port()], d.utps == nil
	why := status.Full
	if u == nil && !over && len(d.utps) < maxPorts {
		u, why = d.newUTP(src), status.System
	}
	d.mu.Unlock()
	if u == nil {
		if !over {
			d.front.Count(why)
		}
		return
	}
	select {
	case u.packet <- datagram{dst, b}:
	default: // lost, as on any network
	}
}

// newUTP opens µTP with a port of the command, nil if it can't. d.mu is held.
func (d *Door) newUTP(client netip.AddrPort) *portUTP {
	u := &portUTP{net: d.net, client: client,
		packet: make(chan datagram, maxQueued), woken: make(chan struct{}, 1), over: make(chan struct{})}
	var err error
	// A port is open until the command is over, and Close ends it.
	u.sock, err = utp.New(context.Background(), utp.Config{
		Wire: u,
		Peer: func(ctx context.Context, standIn netip.AddrPort) (utp.Session, error) {
			return d.client().Peer(ctx, standIn)
		},
		Timeout: utpDial,
		Count:   d.front.Count,
	})
	if err != nil {
		return nil
	}
	d.utps[client.Port()] = u
	return u
}

// connected notes that the command has dialled a stand-in by TCP.
func (d *Door) connected(standIn netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range d.utps {
		u.sock.Connected(standIn)
	}
}

// Close ends what there is of µTP, when the command is over.
func (d *Door) Close() {
	d.mu.Lock()
	all := d.utps
	d.utps = nil
	d.mu.Unlock()
	for _, u := range all {
		u.sock.Close()
	}
}

// Next implements utp.Wire.
func (u *portUTP) Next() (netip.AddrPort, []byte, error) {
	select {
	case p := <-u.packet:
		return p.to, p.body, nil
	case <-u.woken:
		return netip.AddrPort{}, nil, utp.ErrWoken
	case <-u.over:
		return netip.AddrPort{}, nil, netns.ErrClosed
	}
}

// Wake implements utp.Wire.
func (u *portUTP) Wake() {
	select {
	case u.woken <- struct{}{}:
	default:
	}
}

// Send implements utp.Wire.
func (u *portUTP) Send(from netip.AddrPort, packet []byte) { u.net.WriteUDP(packet, from, u.client) }

// Close implements utp.Wire.
func (u *portUTP) Close() error {
	u.once.Do(func() { close(u.over) })
	return nil
}
