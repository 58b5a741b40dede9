package socks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/proxy/front"
	"github.com/shoal-p2p/shoal/proxy/proc"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
	"github.com/shoal-p2p/shoal/proxy/utp"
)

const (
	udpBuffer = 4 << 20 // asked of the kernel, in both directions

	// reopening is how long an association that a client has closed may take to
	// be forgotten, when it opens the next at once.
	reopening = 200 * time.Millisecond
)

// Association is a client's UDP association: the only way into a client that
// proxies its peers. One µTP socket serves all of it, to which the client looks
// like many: the stand-ins are the addresses.
type Association struct {
	server *Server
	user   string // SOCKS user name, may be empty
	owner  proc.ID
	client swarm.Client
	beacon netip.AddrPort
	remote netip.Addr // where the client's packets come from

	ctx context.Context
	udp *net.UDPConn
	utp *utp.Socket

	buf [64 << 10]byte // owned by Next

	mu     sync.Mutex
	addr   netip.AddrPort // the client's; zero until known
	locked bool           // addr was seen, not announced
	given  bool           // the beacon was

	heard    chan struct{} // closed when addr is known
	admitted chan struct{} // closed when client and beacon are set, or never will be
}

// associate serves a UDP association until the client closes conn, or ctx ends.
func (s *Server) associate(ctx context.Context, conn swarm.Conn, user string, port int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a, err := s.newAssociation(ctx, conn, user, port)
	if err != nil {
		why := status.System
		if errors.Is(err, errMany) {
			why = status.Full
		}
		s.config.Count(why)
		conn.Write(associated(1, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))) // a general failure
		return
	}
	relay := a.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, err = conn.Write(associated(0, relay)); err == nil {
		io.Copy(io.Discard, conn)
	}
	s.remove(a)
	cancel()
	a.utp.Close()
}

// newAssociation opens the relay, and makes it one of the server's.
func (s *Server) newAssociation(ctx context.Context, conn swarm.Conn, user string, port int) (*Association, error) {
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), 0)))
	if err != nil {
		return nil, err
	}
	udp.SetReadBuffer(udpBuffer)
	udp.SetWriteBuffer(udpBuffer)
	a := &Association{
		server:   s,
		user:     user,
		remote:   remote.Addr().Unmap(),
		ctx:      ctx,
		udp:      udp,
		heard:    make(chan struct{}),
		admitted: make(chan struct{}),
	}
	a.owner = ownerOf(conn)
	if user == "" {
		if !a.owner.Known() && s.Associations() > 0 {
			sleep(ctx, reopening) // it may be the same client's, whose old one is just ending
		}
	}
	if port != 0 { // the client says where it will send from
		a.guess(netip.AddrPortFrom(a.remote, uint16(port)))
	}
	a.utp, err = utp.New(ctx, utp.Config{
		Wire: (*datagrams)(a),
		Peer: func(ctx context.Context, standIn netip.AddrPort) (utp.Session, error) {
			return s.handler.Peer(ctx, Origin{Client: a.client, Assoc: a}, standIn)
		},
		Timeout: s.config.Dial,
		Count:   s.config.Count,
	})
	if err != nil {
		return nil, err
	}
	ok := s.add(a)
	close(a.admitted)
	if !ok {
		a.utp.Close()
		return nil, errMany
	}
	return a, nil
}

var errMany = errors.New("socks: too many UDP associations")

// associated is the reply to ASSOCIATE: its code, and where the relay is.
func associated(code byte, a netip.AddrPort) []byte {
	b := []byte{5, code, 0, kindIPv4}
	ip := a.Addr().Unmap()
	if ip.Is6() {
		b[3] = kindIPv6
	}
	b = append(b, ip.AsSlice()...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// Client returns whose association it is.
func (a *Association) Client() swarm.Client { return a.client }

// Addr returns the client's UDP address, invalid as long as it is not known.
func (a *Association) Addr() netip.AddrPort {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.addr
}

// Known says if the client's own UDP address is known, or guessed from its last
// association: only then can Dial work.
func (a *Association) Known() bool {
	select {
	case <-a.heard:
		return true
	default:
		return false
	}
}

// TakeBeacon returns the association's beacon, once, and only while the
// client's UDP address is not known: a stand-in of the sidecar's own that the
// client will try by µTP as soon as it is told of it.
func (a *Association) TakeBeacon() (netip.AddrPort, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.given || a.locked {
		return netip.AddrPort{}, false
	}
	a.given = true
	return a.beacon, true
}

var errOver = errors.New("socks: the client has no UDP association")

// Dial opens a µTP connection into the client, coming from stand-in from. It
// waits until the client's address is known. A nil Association has no way in.
func (a *Association) Dial(ctx context.Context, from netip.AddrPort) (swarm.Conn, error) {
	if a == nil {
		return nil, errOver
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	select {
	case <-a.heard:
	case <-ctx.Done():
		return nil, fmt.Errorf("socks: the client's UDP address is not known: %w", ctx.Err())
	}
	if a.ctx.Err() != nil {
		return nil, errOver
	}
	return a.utp.Dial(ctx, from)
}

// WriteFrom sends the client a packet that comes from node.
func (a *Association) WriteFrom(node netip.AddrPort, body []byte) {
	a.send(udpHeader{addr: node.Addr().Unmap(), port: node.Port()}, body)
}

var packets = sync.Pool{New: func() any { return new([2048]byte) }}

// send sends the client a packet. It never blocks: a loopback socket drops
// what its reader leaves.
func (a *Association) send(from udpHeader, body []byte) {
	a.mu.Lock()
	to := a.addr
	a.mu.Unlock()
	if !to.IsValid() {
		return
	}
	buf := packets.Get().(*[2048]byte)
	defer packets.Put(buf)
	a.udp.WriteToUDPAddrPort(append(from.append(buf[:0]), body...), to)
}

// datagrams is what a's µTP socket has for a network.
type datagrams Association

// Next returns the client's next µTP packet, and answers all others on its way.
func (d *datagrams) Next() (netip.AddrPort, []byte, error) {
	a := (*Association)(d)
	<-a.admitted
	for {
		n, src, err := a.udp.ReadFromUDPAddrPort(a.buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			a.udp.SetReadDeadline(time.Time{})
			return netip.AddrPort{}, nil, utp.ErrWoken
		}
		if err != nil {
			return netip.AddrPort{}, nil, errOver // no address into the µTP package's log
		}
		if to, body, ok := a.receive(src, a.buf[:n]); ok {
			return to, body, nil
		}
	}
}

// Wake implements utp.Wire.
func (d *datagrams) Wake() { d.udp.SetReadDeadline(time.Unix(1, 0)) }

// Send implements utp.Wire.
func (d *datagrams) Send(from netip.AddrPort, body []byte) { (*Association)(d).WriteFrom(from, body) }

// Close implements utp.Wire.
func (d *datagrams) Close() error { return d.udp.Close() }

// receive looks at a packet from src. It returns those for the µTP socket.
func (a *Association) receive(src netip.AddrPort, b []byte) (to netip.AddrPort, packet []byte, ok bool) {
	count := a.server.config.Count
	if src.Addr().Unmap() != a.remote {
		count(status.Datagram)
		return to, nil, false
	}
	h, body, err := parseHeader(b)
	if err != nil {
		count(status.Datagram)
		return to, nil, false
	}
	if !a.from(netip.AddrPortFrom(a.remote, src.Port())) {
		count(status.Datagram)
		return to, nil, false
	}
	if front.SortPacket(h.addr, body) == front.UTP {
		return h.addrPort(), body, true
	}
	a.server.handler.Packet(Origin{Client: a.client, Assoc: a}, h.addrPort(), body, func(answer []byte) { a.send(h, answer) })
	return to, nil, false
}

// from says if src is the client, which the first packet decides.
func (a *Association) from(src netip.AddrPort) bool {
	a.mu.Lock()
	if a.locked {
		defer a.mu.Unlock()
		return a.addr == src
	}
	if !a.addr.IsValid() {
		close(a.heard)
	}
	a.addr, a.locked = src, true
	a.mu.Unlock()
	a.server.learned(Known{a.client, src, a.owner})
	return true
}

// guess takes to for the client's address until its first packet tells.
func (a *Association) guess(to netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.addr.IsValid() && to.Addr() == a.remote && to.Port() != 0 {
		a.addr = to
		close(a.heard)
	}
}
