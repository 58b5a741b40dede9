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

	"github.com/anacrolix/utp"

	"github.com/shoal-p2p/shoal/proxy/announce"
	"github.com/shoal-p2p/shoal/proxy/dht"
	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

const (
	maxJobs   = 256     // packets of an association being answered at once
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
	owner  owner
	client swarm.Client
	beacon netip.AddrPort
	remote netip.Addr // where the client's packets come from

	ctx  context.Context
	udp  *net.UDPConn
	sock *utp.Socket
	syns syns
	wg   sync.WaitGroup
	jobs chan struct{}

	buf [64 << 10]byte // owned by ReadFrom

	mu     sync.Mutex
	addr   netip.AddrPort // the client's; zero until known
	locked bool           // addr was seen, not announced
	given  bool           // the beacon was
	inject []packet       // for ReadFrom
	flows  flows
	fins   fins
	ready  map[netip.AddrPort][]Session
	live   map[*utpConn]struct{} // nil when the association is over

	heard    chan struct{} // closed when addr is known
	admitted chan struct{} // closed when client and beacon are set, or never will be
}

type packet struct {
	from netip.AddrPort
	body []byte
}

// associate serves a UDP association until the client closes conn, or ctx ends.
func (s *Server) associate(ctx context.Context, conn swarm.Conn, user string, port int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a, err := s.newAssociation(ctx, conn, user, port)
	if err != nil {
		s.config.Count(status.Full)
		conn.Write(associated(1, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))) // a general failure
		return
	}
	a.wg.Go(a.acceptLoop)
	relay := a.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, err = conn.Write(associated(0, relay)); err == nil {
		io.Copy(io.Discard, conn)
	}
	s.remove(a)
	cancel()
	a.sock.CloseNow()
	a.closeLive()
	a.wg.Wait()
	for _, l := range a.ready {
		for _, session := range l {
			session.Cancel()
		}
	}
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
		syns:     newSyns(),
		jobs:     make(chan struct{}, maxJobs),
		fins:     make(fins),
		ready:    make(map[netip.AddrPort][]Session),
		live:     make(map[*utpConn]struct{}),
		heard:    make(chan struct{}),
		admitted: make(chan struct{}),
	}
	if user == "" {
		a.owner = ownerOf(conn)
		if a.owner == (owner{}) && s.Associations() > 0 {
			sleep(ctx, reopening) // it may be the same client's, whose old one is just ending
		}
	}
	if port != 0 { // the client says where it will send from
		a.guess(netip.AddrPortFrom(a.remote, uint16(port)))
	}
	if a.sock, err = utp.NewSocketFromPacketConn((*virtual)(a)); err != nil {
		udp.Close()
		return nil, err
	}
	ok := s.add(a)
	close(a.admitted)
	if !ok {
		a.sock.CloseNow()
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
	c, err := a.sock.DialContext(ctx, "", from.String())
	if err != nil {
		return nil, fmt.Errorf("socks: µTP to the client: %w", err)
	}
	return a.keep(c), nil
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

// utpConn is a µTP connection with the client. µTP has no half-close: a
// connection whose one side is done is done.
type utpConn struct {
	net.Conn
	assoc *Association
}

func (c *utpConn) CloseWrite() error { return c.Close() }

func (c *utpConn) Close() error {
	c.assoc.mu.Lock()
	delete(c.assoc.live, c)
	c.assoc.mu.Unlock()
	return c.Conn.Close()
}

// keep remembers c for the end of the association. The µTP package closes its
// connections with the socket, but for those that it has lost: it forgets a
// connection when an older one of the same number times out.
func (a *Association) keep(c net.Conn) *utpConn {
	u := &utpConn{c, a}
	a.mu.Lock()
	over := a.live == nil
	if !over {
		a.live[u] = struct{}{}
	}
	a.mu.Unlock()
	if over {
		c.Close()
	}
	return u
}

func (a *Association) closeLive() {
	a.mu.Lock()
	live := a.live
	a.live = nil
	a.mu.Unlock()
	for c := range live {
		c.Conn.Close()
	}
}

// acceptLoop takes the connections whose SYN was let through.
func (a *Association) acceptLoop() {
	for {
		c, err := a.accept()
		if err != nil {
			return
		}
		if c == nil {
			continue
		}
		session := a.session(c)
		if session == nil {
			c.Close()
			continue
		}
		a.wg.Go(func() { session.Serve(a.ctx, a.keep(c)) })
	}
}

// accept returns nil without an error when the µTP package could not make
// sense of a SYN, which it says by a panic.
func (a *Association) accept() (c net.Conn, err error) {
	defer func() {
		if recover() != nil {
			a.server.config.Count(status.Datagram)
			c, err = nil, nil
		}
	}()
	return a.sock.Accept()
}

// session returns the session that waits for c.
func (a *Association) session(c net.Conn) Session {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.ready[from]
	if len(l) == 0 {
		return nil
	}
	if len(l) == 1 {
		delete(a.ready, from)
	} else {
		a.ready[from] = l[1:]
	}
	return l[0]
}

// open reaches the peer behind a stand-in that the client dials by µTP, and
// then lets its SYN through.
func (a *Association) open(k synKey, syn []byte) {
	s := a.server
	ctx, cancel := context.WithTimeout(a.ctx, s.config.Dial)
	defer cancel()
	session, err := s.handler.Peer(ctx, Origin{Client: a.client, Assoc: a}, k.addr)
	a.syns.opened(k, err == nil, time.Now())
	if err != nil {
		reason := status.Unreachable
		if errors.Is(err, swarm.ErrUnknownPeer) {
			reason = status.UnknownStandIn
		}
		s.config.Count(reason)
		a.send(udpHeader{addr: k.addr.Addr(), port: k.addr.Port()}, resetFor(syn))
		return
	}
	a.mu.Lock()
	a.ready[k.addr] = append(a.ready[k.addr], session)
	a.inject = append(a.inject, packet{k.addr, syn})
	a.mu.Unlock()
	a.udp.SetReadDeadline(time.Unix(1, 0)) // wakes ReadFrom
}

// virtual is what the µTP socket takes for its network: an unconnected UDP
// socket on which each stand-in has its own address.
type virtual Association

// ReadFrom returns the next µTP packet, and answers all others on its way.
func (v *virtual) ReadFrom(b []byte) (int, net.Addr, error) {
	a := (*Association)(v)
	<-a.admitted
	for {
		if p, ok := a.injected(); ok {
			return copy(b, p.body), net.UDPAddrFromAddrPort(p.from), nil
		}
		n, src, err := a.udp.ReadFromUDPAddrPort(a.buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			a.udp.SetReadDeadline(time.Time{}) // before looking at inject again
			continue
		}
		if err != nil {
			return 0, nil, errOver // no address into the µTP package's log
		}
		if p, ok := a.receive(src, a.buf[:n]); ok {
			return copy(b, p.body), net.UDPAddrFromAddrPort(p.from), nil
		}
	}
}

func (a *Association) injected() (packet, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.inject) == 0 {
		return packet{}, false
	}
	p := a.inject[0]
	a.inject = a.inject[1:]
	return p, true
}

// WriteTo sends a µTP packet to the client. The µTP package holds its one lock
// meanwhile, and takes a short count or an error for the end of things: a
// packet that could not be sent is simply lost.
func (v *virtual) WriteTo(b []byte, from net.Addr) (int, error) {
	if u, ok := from.(*net.UDPAddr); ok {
		p := netip.AddrPortFrom(u.AddrPort().Addr().Unmap(), u.AddrPort().Port())
		a := (*Association)(v)
		a.mu.Lock()
		now := time.Now()
		a.flows.toClient(p, b, now)
		a.fins.sent(p, b, now)
		a.mu.Unlock()
		a.send(udpHeader{addr: p.Addr(), port: p.Port()}, b)
	}
	return len(b), nil
}

func (v *virtual) Close() error                     { return v.udp.Close() }
func (v *virtual) LocalAddr() net.Addr              { return v.udp.LocalAddr() }
func (v *virtual) SetDeadline(time.Time) error      { return nil }
func (v *virtual) SetReadDeadline(time.Time) error  { return nil }
func (v *virtual) SetWriteDeadline(time.Time) error { return nil }

// receive looks at a packet from src. It returns those for the µTP socket.
func (a *Association) receive(src netip.AddrPort, b []byte) (packet, bool) {
	count := a.server.config.Count
	if src.Addr().Unmap() != a.remote {
		count(status.Datagram)
		return packet{}, false
	}
	h, body, err := parseHeader(b)
	if err != nil {
		count(status.Datagram)
		return packet{}, false
	}
	if !a.from(netip.AddrPortFrom(a.remote, src.Port())) {
		count(status.Datagram)
		return packet{}, false
	}
	standIn := h.name == "" && peers.Is(h.addr)
	switch {
	case standIn && isUTP(body):
		return a.receiveUTP(h, body)
	case h.name == "" && dht.IsPacket(body):
		a.server.handler.DHT(Origin{Client: a.client, Assoc: a}, h.addrPort(), body)
	case !standIn && announce.IsUDP(body):
		a.job(body, func(from Origin, b []byte) {
			if out := a.server.handler.Tracker(a.ctx, from, b); len(out) > 0 {
				a.send(h, out)
			}
		})
	default:
		count(status.Datagram)
	}
	return packet{}, false
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
	a.server.learned(a.client, src)
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

// receiveUTP decides about a µTP packet to a stand-in.
func (a *Association) receiveUTP(h udpHeader, body []byte) (packet, bool) {
	to := h.addrPort()
	a.mu.Lock()
	now := time.Now()
	a.flows.fromClient(to, body, now)
	ack := a.fins.answer(to, body, now)
	a.mu.Unlock()
	if ack != nil {
		a.send(h, ack)
	}
	if utpType(body) != utpSyn {
		return packet{to, body}, !peers.IsBeacon(to.Addr())
	}
	if peers.IsBeacon(to.Addr()) { // it has done its work
		a.send(h, resetFor(body))
		return packet{}, false
	}
	k := synKey{to, utpConnID(body)}
	switch a.syns.judge(k, now) {
	case through:
		return packet{to, body}, true
	case refuse:
		a.send(h, resetFor(body))
	case open:
		syn := append([]byte(nil), body...)
		a.wg.Go(func() { a.open(k, syn) })
	}
	return packet{}, false
}

// job answers a packet outside of ReadFrom.
func (a *Association) job(body []byte, answer func(Origin, []byte)) {
	select {
	case a.jobs <- struct{}{}:
	default:
		a.server.config.Count(status.Full)
		return
	}
	body = append([]byte(nil), body...)
	a.wg.Go(func() {
		defer func() { <-a.jobs }()
		answer(Origin{Client: a.client, Assoc: a}, body)
	})
}
