package front

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/shoal-p2p/shoal/proxy/announce"
	"github.com/shoal-p2p/shoal/proxy/authority"
	"github.com/shoal-p2p/shoal/proxy/dht"
	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/utp"
)

// maxJobs is how many packets of a client are being answered at once.
const maxJobs = 256

// Kind is what a client's packet is for.
type Kind uint8

// The kinds.
const (
	Refused Kind = iota
	UTP          // a peer, by µTP
	DHT          // a DHT node
	Tracker      // a UDP tracker
)

// SortPacket tells what a packet to an address is for. The address is the zero
// Addr where the client gave a name.
func SortPacket(to netip.Addr, b []byte) Kind {
	standIn := to.IsValid() && peers.Is(to)
	switch {
	case standIn && utp.Is(b):
		return UTP
	case to.IsValid() && dht.IsPacket(b):
		return DHT
	case !standIn && announce.IsUDP(b):
		return Tracker
	}
	return Refused
}

// Packet takes a packet of the client that is not for µTP: it was sent from src
// to dst. answer sends the answer, if there is one, before Packet returns or
// later. It keeps no reference to b.
func (c *Client) Packet(b []byte, src, dst netip.AddrPort, answer func([]byte)) {
	switch SortPacket(dst.Addr(), b) {
	case DHT:
		c.acts()
		c.mu.Lock()
		c.asked = true
		c.mu.Unlock()
		c.dht.Packet(b, src, dst)
	case Tracker:
		c.acts()
		c.answer(b, dst.Addr(), answer)
	default:
		c.f.cfg.Counters.Add(status.Datagram)
	}
}

// answer answers a packet for a UDP tracker.
func (c *Client) answer(b []byte, to netip.Addr, send func([]byte)) {
	select {
	case c.jobs <- struct{}{}:
	default:
		c.f.cfg.Counters.Add(status.Full)
		return
	}
	b = slices.Clone(b)
	started := c.f.begin(func(ctx context.Context) {
		defer func() { <-c.jobs }()
		if out := c.udp.Answer(ctx, b, to); len(out) > 0 {
			send(out)
		}
	})
	if !started {
		<-c.jobs
	}
}

// Connect serves a connection to host, a name or an address that is no stand-in:
// the client takes it for connected, and has said nothing that was read.
func (c *Client) Connect(ctx context.Context, host string, conn net.Conn) {
	count := c.f.cfg.Counters.Add
	conn, kind, err := announce.Peek(conn)
	if err != nil {
		if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() { // else it was the client who left
			count(status.Silent)
		}
		return
	}
	switch kind {
	case announce.BitTorrent:
		count(status.BitTorrent)
		return
	case announce.TLS:
		if conn, err = c.f.terminate(ctx, host, conn); err != nil {
			return
		}
	case announce.Other:
		count(status.Unreadable)
		return
	}
	err = announce.Serve(ctx, conn, c)
	switch {
	case errors.Is(err, announce.ErrWebSeed):
		count(status.WebSeed)
	case errors.Is(err, announce.ErrNoAnnounce):
		count(status.Web)
	case errors.Is(err, announce.ErrSilent):
		count(status.Silent)
	case errors.Is(err, announce.ErrTooLarge), errors.Is(err, announce.ErrMalformed):
		count(status.Unreadable)
	}
}

// terminate answers TLS as the tracker that the client means.
func (f *Front) terminate(ctx context.Context, host string, conn net.Conn) (net.Conn, error) {
	out, err := f.cfg.TLS.Handshake(ctx, conn, host)
	switch {
	case errors.Is(err, authority.ErrDistrusted):
		f.cfg.Counters.Add(status.Certificate)
	case err != nil && ctx.Err() == nil:
		f.cfg.Counters.Add(status.TLS)
	}
	return out, err
}
