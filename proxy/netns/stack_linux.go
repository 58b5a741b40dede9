package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	nic = tcpip.NICID(1)

	// maxConnecting is how many connections of the command may wait for the
	// Handler at once; further ones are tried again by the kernel.
	maxConnecting = 2048

	// tcpBuffer is what the stack holds of one connection and direction,
	// bytes. The other end is microseconds away, so more would only be memory
	// that hundreds of slow peers fill, and delay for what comes behind it.
	tcpBuffer = 512 << 10

	// dnsIdle ends a DNS connection over TCP that says nothing.
	dnsIdle = 10 * time.Second
)

// Network is the outside end of a namespace's interface: every address that
// isn't the command's own is at this end.
type Network struct {
	handler Handler
	client  netip.Addr // the command's own
	stack   *stack.Stack
	link    *link

	ctx   context.Context // ends with the namespace
	end   context.CancelFunc
	tasks sync.WaitGroup // handlers of connections, readers of resolver sockets

	mu     sync.Mutex
	closed bool // guarded by mu; no task begins after it is set

	published []netip.AddrPort
}

// newNetwork takes ownership of l.
func newNetwork(ctx context.Context, l *link, h Handler, client netip.Addr) (*Network, error) {
	n := &Network{handler: h, client: client, link: l}
	n.ctx, n.end = context.WithCancel(ctx)
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	for _, opt := range []tcpip.SettableTransportProtocolOption{
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpBuffer, Max: tcpBuffer},
		&tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpBuffer, Max: tcpBuffer},
	} {
		if err := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			l.Close()
			return nil, fmt.Errorf("netns: %T: %v", opt, err)
		}
	}
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(n.stack, tcpBuffer, maxConnecting, n.tcp).HandlePacket)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, n.udp)
	n.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	if err := n.stack.CreateNIC(nic, l); err != nil {
		l.Close()
		return nil, fmt.Errorf("netns: interface: %v", err)
	}
	// Every address is ours: to be dialled, and to dial from.
	if err := n.stack.SetPromiscuousMode(nic, true); err != nil {
		return nil, errors.Join(fmt.Errorf("netns: interface: %v", err), n.close())
	}
	if err := n.stack.SetSpoofing(nic, true); err != nil {
		return nil, errors.Join(fmt.Errorf("netns: interface: %v", err), n.close())
	}
	return n, nil
}

// begin counts one task, unless the end has begun.
func (n *Network) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.tasks.Add(1)
	return true
}

// close resets what is open and returns when every handler has.
func (n *Network) close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.end()
	n.link.Close()
	n.stack.Destroy()
	n.tasks.Wait()
	return nil
}

// Published lists where this process listens for Config.Publish, in its order.
func (n *Network) Published() []netip.AddrPort { return n.published }

// tcp is called by the stack, in a goroutine of its own, for each SYN.
func (n *Network) tcp(r *tcp.ForwarderRequest) {
	if !n.begin() {
		r.Complete(true)
		return
	}
	defer n.tasks.Done()
	id := r.ID()
	src, dst := addrPort(id.RemoteAddress, id.RemotePort), addrPort(id.LocalAddress, id.LocalPort)
	serve, err := n.serveDNS, error(nil)
	if dst.Port() != dnsPort {
		serve, err = n.handler.TCP(n.ctx, src, dst)
	}
	if err != nil || serve == nil {
		r.Complete(true)
		return
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	r.Complete(terr != nil)
	if terr != nil {
		return
	}
	conn := gonet.NewTCPConn(&wq, ep)
	defer context.AfterFunc(n.ctx, func() { conn.Close() })()
	serve(conn)
}

// udp is called by the reader of the interface.
func (n *Network) udp(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	payload := pkt.Data().AsRange().ToSlice()
	src, dst := addrPort(id.RemoteAddress, id.RemotePort), addrPort(id.LocalAddress, id.LocalPort)
	if dst.Port() != dnsPort {
		n.handler.UDP(payload, src, dst)
		return true
	}
	if a := answerDNS(payload, n.handler.Name); a != nil {
		// An answer that is lost is asked for again.
		_ = n.link.writeUDP(a, dst, src)
	}
	return true
}

// serveDNS answers over TCP: each message has its length before it.
func (n *Network) serveDNS(conn Conn) {
	defer conn.Close()
	for {
		conn.SetDeadline(time.Now().Add(dnsIdle))
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		a := answerDNS(query, n.handler.Name)
		if a == nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...)); err != nil {
			return
		}
	}
}

// DialTCP connects to the command's port as from: the command sees a
// connection that comes from there. Port 0 of from means any. The caller owns
// the conn; it is reset when the namespace ends.
func (n *Network) DialTCP(ctx context.Context, from netip.AddrPort, port uint16) (Conn, error) {
	if n.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if !from.Addr().Is4() || from.Addr() == n.client {
		return nil, errors.New("netns: the source must be an IPv4 address other than the command's own")
	}
	conn, err := gonet.DialTCPWithBind(ctx, n.stack, fullAddr(from), fullAddr(netip.AddrPortFrom(n.client, port)), ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("netns: the command's port %d: %w", port, err)
	}
	return conn, nil
}

// WriteUDP sends a datagram to the command's address to (the src that a
// Handler's UDP was given) as if it came from from. It keeps no reference to
// payload. Like any datagram it may be lost.
func (n *Network) WriteUDP(payload []byte, from, to netip.AddrPort) error {
	if n.ctx.Err() != nil {
		return ErrClosed
	}
	return n.link.writeUDP(payload, from, to)
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a.As4()), port)
}

func fullAddr(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(a.Addr().As4()), Port: a.Port()}
}
