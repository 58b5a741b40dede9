package inbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// minPort is the least port that a client is believed to listen on. Below are
// the services of other programs.
const minPort = 1024

// tcpTimeout is how long a program on this computer may take to accept.
const tcpTimeout = 2 * time.Second

// TCP is the road to the port that a client announced itself: listens returns
// it with the client's address. The connection comes from a loopback address
// of the peer's own where the system has such.
func TCP(listens func(c swarm.Client, h swarm.Hash) (netip.AddrPort, bool)) Road {
	return func(ctx context.Context, c swarm.Client, h swarm.Hash, standIn netip.AddrPort) (swarm.Conn, error) {
		to, ok := listens(c, h)
		if !ok || to.Port() < minPort {
			return nil, ErrNoRoad
		}
		ctx, cancel := context.WithTimeout(ctx, tcpTimeout)
		defer cancel()
		var d net.Dialer
		if to.Addr().Unmap().Is4() && to.Addr().IsLoopback() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(peers.Source(standIn.Addr()), 0))
		}
		conn, err := d.DialContext(ctx, "tcp", to.String())
		if errors.Is(err, syscall.EADDRNOTAVAIL) && d.LocalAddr != nil {
			d.LocalAddr = nil // only Linux has all of 127.0.0.0/8
			conn, err = d.DialContext(ctx, "tcp", to.String())
		}
		if err != nil {
			return nil, fmt.Errorf("inbound: the client's port: %w", err)
		}
		return conn.(*net.TCPConn), nil
	}
}

// Dialer opens µTP connections into a client through its UDP association.
type Dialer interface {
	Dial(ctx context.Context, from netip.AddrPort) (swarm.Conn, error)
}

// utpTimeout is how long a client may take to answer a SYN. It covers the wait
// for its address to become known.
const utpTimeout = 10 * time.Second

// UTP is the road through a client's UDP association: of returns it, nil if
// the client has none.
func UTP(of func(c swarm.Client) Dialer) Road {
	return func(ctx context.Context, c swarm.Client, _ swarm.Hash, standIn netip.AddrPort) (swarm.Conn, error) {
		d := of(c)
		if d == nil {
			return nil, ErrNoRoad
		}
		ctx, cancel := context.WithTimeout(ctx, utpTimeout)
		defer cancel()
		return d.Dial(ctx, standIn)
	}
}
