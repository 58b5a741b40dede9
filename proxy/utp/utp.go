// Package utp speaks µTP (BEP 29) with one torrent client, to which it looks
// like many: each stand-in has an address of its own. It decides which of the
// client's connections are taken.
// Not here: how packets go to and come from the client (the Wire's business),
// who is behind a stand-in (packages peers, inbound).
package utp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/utp"

	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// Wire carries packets between a Socket and the client.
type Wire interface {
	// Next returns the client's next µTP packet, for which Is says true, and
	// the stand-in that it is for; packet is the Socket's until the next call.
	// After Wake it returns ErrWoken, and once the wire is over another error,
	// without an address in it. It is called by one goroutine.
	Next() (to netip.AddrPort, packet []byte, err error)

	// Wake ends one call of Next: the one that waits, or the next one.
	Wake()

	// Send sends the client a packet. It never blocks, and keeps no reference.
	Send(from netip.AddrPort, packet []byte)

	Close() error
}

// ErrWoken is what a Wire's Next returns after Wake.
var ErrWoken = errors.New("utp: woken")

// Session is a peer that was reached, waiting for the client's connection.
// One of its methods is called, once.
type Session interface {
	// Serve carries the client's connection until it is over. It owns conn.
	Serve(ctx context.Context, conn swarm.Conn)

	// Cancel says that the client is gone.
	Cancel()
}

// Config is what a Socket needs.
type Config struct {
	Wire

	// Peer returns once the peer behind a stand-in is reached. Its errors are
	// those of swarm.Swarm's Dial.
	Peer func(ctx context.Context, standIn netip.AddrPort) (Session, error)

	Timeout time.Duration       // of Peer
	Count   func(status.Reason) // told of what is refused
}

// Socket is one client's µTP.
type Socket struct {
	config Config
	ctx    context.Context
	cancel context.CancelFunc
	sock   *utp.Socket
	syns   syns
	wg     sync.WaitGroup

	mu     sync.Mutex
	inject []packet // for ReadFrom
	flows  flows
	fins   fins
	ready  map[netip.AddrPort][]Session
	live   map[*conn]struct{} // nil when the socket is over
}

type packet struct {
	from netip.AddrPort
	body []byte
}

// New returns a Socket, which owns the Wire of c; after an error it is closed.
// The Socket must be closed, also when ctx ends.
func New(ctx context.Context, c Config) (*Socket, error) {
	s := &Socket{
		config: c,
		syns:   newSyns(),
		fins:   make(fins),
		ready:  make(map[netip.AddrPort][]Session),
		live:   make(map[*conn]struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	var err error
	if s.sock, err = utp.NewSocketFromPacketConn((*virtual)(s)); err != nil {
		s.cancel()
		c.Close()
		return nil, err
	}
	s.wg.Go(s.acceptLoop)
	return s, nil
}

// Close ends every connection, and returns when all that the Socket started has.
func (s *Socket) Close() {
	s.cancel()
	s.sock.CloseNow()
	s.mu.Lock()
	live := s.live
	s.live = nil
	s.mu.Unlock()
	for c := range live {
		c.Conn.Close()
	}
	s.wg.Wait()
	for _, l := range s.ready {
		for _, session := range l {
			session.Cancel()
		}
	}
}

// Dial opens a connection into the client, coming from stand-in from.
func (s *Socket) Dial(ctx context.Context, from netip.AddrPort) (swarm.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	c, err := s.sock.DialContext(ctx, "", from.String())
	if err != nil {
		return nil, fmt.Errorf("utp: to the client: %w", err)
	}
	return s.keep(c), nil
}

// Connected notes that the client has dialled a stand-in by TCP.
func (s *Socket) Connected(standIn netip.Addr) { s.syns.connected(standIn) }

// conn is a connection with the client. µTP has no half-close: a connection
// whose one side is done is done.
type conn struct {
	net.Conn
	sock *Socket
}

// CloseWrite closes the whole connection.
func (c *conn) CloseWrite() error { return c.Close() }

// Close implements net.Conn.
func (c *conn) Close() error {
	c.sock.mu.Lock()
	delete(c.sock.live, c)
	c.sock.mu.Unlock()
	return c.Conn.Close()
}

// keep remembers c for the end of the socket. The µTP package closes its
// connections with the socket, but for those that it has lost: it forgets a
// connection when an older one of the same number times out.
func (s *Socket) keep(c net.Conn) *conn {
	u := &conn{c, s}
	s.mu.Lock()
	over := s.live == nil
	if !over {
		s.live[u] = struct{}{}
	}
	s.mu.Unlock()
	if over {
		c.Close()
	}
	return u
}

// acceptLoop takes the connections whose SYN was let through.
func (s *Socket) acceptLoop() {
	for {
		c, err := s.accept()
		if err != nil {
			return
		}
		if c == nil {
			continue
		}
		session := s.session(c)
		if session == nil {
			c.Close()
			continue
		}
		s.wg.Go(func() { session.Serve(s.ctx, s.keep(c)) })
	}
}

// accept returns nil without an error when the µTP package could not make
// sense of a SYN, which it says by a panic.
func (s *Socket) accept() (c net.Conn, err error) {
	defer func() {
		if recover() != nil {
			s.config.Count(status.Datagram)
			c, err = nil, nil
		}
	}()
	return s.sock.Accept()
}

// session returns the session that waits for c.
func (s *Socket) session(c net.Conn) Session {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.ready[from]
	if len(l) == 0 {
		return nil
	}
	if len(l) == 1 {
		delete(s.ready, from)
	} else {
		s.ready[from] = l[1:]
	}
	return l[0]
}

// open reaches the peer behind a stand-in that the client dials, and then lets
// its SYN through.
func (s *Socket) open(k synKey, syn []byte) {
	ctx, cancel := context.WithTimeout(s.ctx, s.config.Timeout)
	defer cancel()
	session, err := s.config.Peer(ctx, k.addr)
	s.syns.opened(k, err == nil, time.Now())
	if err != nil {
		if why, ok := swarm.Refusal(ctx, err); ok {
			s.config.Count(why)
		}
		s.config.Send(k.addr, resetFor(syn))
		return
	}
	s.mu.Lock()
	s.ready[k.addr] = append(s.ready[k.addr], session)
	s.inject = append(s.inject, packet{k.addr, syn})
	s.mu.Unlock()
	s.config.Wake()
}

// receive decides about a packet to a stand-in: the µTP package gets those for
// which it is true.
func (s *Socket) receive(to netip.AddrPort, b []byte) bool {
	s.mu.Lock()
	now := time.Now()
	s.flows.fromClient(to, b, now)
	ack := s.fins.answer(to, b, now)
	s.mu.Unlock()
	if ack != nil {
		s.config.Send(to, ack)
	}
	if kind(b) != typeSyn {
		return true
	}
	if peers.IsBeacon(to.Addr()) { // it has done its work
		s.config.Send(to, resetFor(b))
		return false
	}
	k := synKey{to, connection(b)}
	switch s.syns.judge(k, turns(b), now) {
	case through:
		return true
	case refuse:
		s.config.Send(to, resetFor(b))
	case open:
		syn := append([]byte(nil), b...)
		s.wg.Go(func() { s.open(k, syn) })
	}
	return false
}

// virtual is what the µTP package takes for its network: an unconnected UDP
// socket on which each stand-in has its own address.
type virtual Socket

// ReadFrom returns the next packet that is for the µTP package.
func (v *virtual) ReadFrom(b []byte) (int, net.Addr, error) {
	s := (*Socket)(v)
	for {
		if p, ok := s.injected(); ok {
			return copy(b, p.body), net.UDPAddrFromAddrPort(p.from), nil
		}
		to, body, err := s.config.Next()
		if errors.Is(err, ErrWoken) {
			continue
		}
		if err != nil {
			return 0, nil, err
		}
		if s.receive(to, body) {
			return copy(b, body), net.UDPAddrFromAddrPort(to), nil
		}
	}
}

func (s *Socket) injected() (packet, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.inject) == 0 {
		return packet{}, false
	}
	p := s.inject[0]
	s.inject = s.inject[1:]
	return p, true
}

// WriteTo sends a packet to the client. The µTP package holds its one lock
// meanwhile, and takes a short count or an error for the end of things: a
// packet that could not be sent is simply lost.
func (v *virtual) WriteTo(b []byte, from net.Addr) (int, error) {
	if u, ok := from.(*net.UDPAddr); ok {
		p := netip.AddrPortFrom(u.AddrPort().Addr().Unmap(), u.AddrPort().Port())
		s := (*Socket)(v)
		s.mu.Lock()
		now := time.Now()
		s.flows.toClient(p, b, now)
		s.fins.sent(p, b, now)
		s.mu.Unlock()
		s.config.Send(p, b)
	}
	return len(b), nil
}

// nowhere is an address that means nothing: the µTP package only asks for one.
var nowhere = &net.UDPAddr{IP: net.IPv4zero}

func (v *virtual) Close() error                     { return v.config.Close() }
func (v *virtual) LocalAddr() net.Addr              { return nowhere }
func (v *virtual) SetDeadline(time.Time) error      { return nil }
func (v *virtual) SetReadDeadline(time.Time) error  { return nil }
func (v *virtual) SetWriteDeadline(time.Time) error { return nil }
