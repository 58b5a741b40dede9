package linktest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// Net is a network in memory.
type Net struct {
	shape Shape

	mu        sync.Mutex
	listeners map[netip.AddrPort]*listener // guarded by mu
}

// NewNet returns a network whose wires have this shape.
func NewNet(s Shape) *Net {
	return &Net{shape: s, listeners: make(map[netip.AddrPort]*listener)}
}

// Listen returns a listener with an address of its own.
func (n *Net) Listen() (net.Listener, netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := len(n.listeners)
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 1)
	l := &listener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l, addr
}

// Dial reaches addr: a link.Pool's DialTCP.
func (n *Net) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("linktest: nobody listens on %v", addr)
	}
	a, b := Pipe(n.shape)
	select {
	case l.conns <- b:
		return a, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type listener struct {
	addr   netip.AddrPort
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }
