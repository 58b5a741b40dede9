package proxy

import (
	"context"
	"net"
	"net/netip"

	"github.com/shoal-p2p/shoal/proxy/front"
	"github.com/shoal-p2p/shoal/proxy/inbound"
	"github.com/shoal-p2p/shoal/proxy/socks"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// door returns the newest door of a client, nil when it has none.
func (p *Sidecar) door(name swarm.Client) front.Door {
	if name == front.Confined {
		return p.confined
	}
	if p.socks == nil { // New asks before it is made
		return nil
	}
	return doorOf(p.socks.Association(name))
}

// association is a UDP association as a door.
type association struct{ *socks.Association }

func doorOf(a *socks.Association) front.Door {
	if a == nil {
		return nil
	}
	return association{a}
}

// Dial implements front.Door.
func (association) Dial(context.Context, netip.AddrPort, uint16) (swarm.Conn, error) {
	return nil, inbound.ErrNoRoad
}

// DialUTP implements front.Door.
func (a association) DialUTP(ctx context.Context, from netip.AddrPort) (swarm.Conn, error) {
	return a.Association.Dial(ctx, from)
}

// Send implements front.Door.
func (a association) Send(p front.Packet) { a.WriteFrom(p.From, p.Data) }

// handler is the front as the SOCKS door sees it.
type handler struct{ front *front.Front }

// client returns who asks. Caller releases it.
func (h handler) client(from socks.Origin, at netip.Addr) *front.Client {
	c := h.front.Hold(from.Client)
	c.Use(doorOf(from.Assoc), at)
	return c
}

// Elsewhere implements socks.Handler.
func (h handler) Elsewhere(ctx context.Context, from socks.Origin, host string, conn net.Conn) {
	var at netip.Addr
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		at = a.AddrPort().Addr().Unmap()
	}
	c := h.client(from, at)
	defer c.Release()
	c.Connect(ctx, host, conn)
}

// Peer implements socks.Handler.
func (h handler) Peer(ctx context.Context, from socks.Origin, a netip.AddrPort) (socks.Session, error) {
	c := h.client(from, netip.Addr{})
	defer c.Release()
	session, err := c.Peer(ctx, a)
	if err != nil {
		return nil, err
	}
	return c.Attend(session), nil
}

// Packet implements socks.Handler.
func (h handler) Packet(from socks.Origin, to netip.AddrPort, packet []byte, answer func([]byte)) {
	c := h.client(from, netip.Addr{})
	defer c.Release()
	c.Packet(packet, from.Assoc.Addr(), to, answer)
}
