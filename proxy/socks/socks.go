// Package socks is the SOCKS5 address that a torrent client is told to use
// (RFC 1928, RFC 1929): CONNECT, UDP ASSOCIATE with µTP (package utp) inside, and
// Tor's RESOLVE.
// It knows which client a connection or packet is from, and dials nothing: what
// goes to a stand-in is for a peer, and what else there is package front sorts,
// serves or refuses. No name is resolved.
// Not here: what the client is answered (package front), what it may say to a
// peer (package scrub).
package socks

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/armon/go-socks5"

	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/proc"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
	"github.com/shoal-p2p/shoal/proxy/utp"
)

// Config is how a Server listens.
type Config struct {
	Password    string              // of every user; empty: none is asked, any is taken
	Handshake   time.Duration       // for the SOCKS5 handshake, and for the first bytes after it; 10 s if 0
	Dial        time.Duration       // for a peer to be reached; 45 s if 0
	Connections int                 // at once; 4096 if 0
	Count       func(status.Reason) // told of everything refused, from many goroutines; may be nil

	// Earlier are the clients of an earlier run, as Learned was called with
	// them; may be nil. A client keeps its UDP port when the sidecar is started
	// again, and is silent for long: until it speaks it is looked for there.
	Earlier []Known

	// Learned is called when a client's packets come from somewhere new; may be nil.
	Learned func(Known)
}

// Known is where a client with a UDP association was.
type Known struct {
	Client swarm.Client
	UDP    netip.AddrPort
	Owner  proc.ID // its process
}

// Origin is who asks.
type Origin struct {
	Client swarm.Client
	Assoc  *Association // the client's newest, nil when it has none

	// Unsure: several clients give no user name, and this computer doesn't tell
	// their processes apart, so Client is a guess. They should be given one each.
	Unsure bool
}

// Handler is the sidecar behind the SOCKS address. Its methods are called from
// many goroutines at once.
type Handler interface {
	// Elsewhere serves a connection to host, a name or an address that is no
	// stand-in: the client takes it for connected, and has said nothing that was
	// read. The conn is closed when it returns.
	Elsewhere(ctx context.Context, from Origin, host string, conn net.Conn)

	// Peer returns once the peer behind stand-in a is reached. An error that is
	// swarm.ErrUnknownPeer is told the client as refused, any other as
	// unreachable; the text is told nobody.
	Peer(ctx context.Context, from Origin, a netip.AddrPort) (Session, error)

	// Packet takes a packet that is not for µTP, which the association has for
	// itself, from a client with an association. to is where it goes, with the zero
	// Addr where the client gave a name. answer sends the client an answer as from
	// there. It must not block, nor keep packet.
	Packet(from Origin, to netip.AddrPort, packet []byte, answer func([]byte))
}

// Session is a peer that was reached, waiting for the client's connection, by
// TCP as by µTP.
type Session = utp.Session

// Listen listens on a TCP address for Serve. An address that others than this
// computer's programs can reach needs a password.
func Listen(addr, password string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("socks: %w", err)
	}
	a, ok := l.Addr().(*net.TCPAddr)
	if password == "" && (!ok || !a.IP.IsLoopback()) {
		l.Close()
		return nil, fmt.Errorf("socks: %s can be reached from other computers: listen on 127.0.0.1, or set a password", addr)
	}
	return l, nil
}

// Server serves the clients of one SOCKS address.
type Server struct {
	config  Config
	handler Handler

	mu     sync.Mutex
	conns  int
	assocs []*Association                // live, oldest first
	added  chan struct{}                 // closed and replaced when there is one more
	known  map[swarm.Client]Known        // where a client's last association was
	beacon int                           // of the next association
	names  map[swarm.Client]*peers.Names // resolved by RESOLVE
}

// New returns a server that asks h.
func New(c Config, h Handler) *Server {
	if c.Handshake == 0 {
		c.Handshake = 10 * time.Second
	}
	if c.Dial == 0 {
		c.Dial = 45 * time.Second
	}
	if c.Connections == 0 {
		c.Connections = 4096
	}
	if c.Count == nil {
		c.Count = func(status.Reason) {}
	}
	if c.Learned == nil {
		c.Learned = func(Known) {}
	}
	s := &Server{config: c, handler: h, beacon: randomBeacon(), added: make(chan struct{}), known: make(map[swarm.Client]Known),
		names: make(map[swarm.Client]*peers.Names)}
	for _, k := range c.Earlier {
		s.known[k.Client] = k
	}
	return s
}

// Serve accepts connections until ctx ends or l fails. Everything that it
// started has ended when it returns; l is closed.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return ctx.Err()
		}
		if err != nil {
			if t, ok := err.(interface{ Temporary() bool }); ok && t.Temporary() { // out of files: it passes
				s.config.Count(status.System)
				sleep(ctx, 100*time.Millisecond)
				continue
			}
			l.Close()
			return fmt.Errorf("socks: %w", err)
		}
		conn, ok := c.(swarm.Conn)
		if !ok || !s.enter() {
			s.config.Count(status.Full)
			c.Close()
			continue
		}
		wg.Go(func() {
			defer s.leave()
			s.serve(ctx, conn)
		})
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns >= s.config.Connections {
		return false
	}
	s.conns++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	s.conns--
	s.mu.Unlock()
}

// serve serves one connection, with a go-socks5 server of its own: that
// package gives its callbacks no deadline and no way to the connection.
func (s *Server) serve(ctx context.Context, conn swarm.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(s.config.Handshake))
	greeting, err := s.greeting(conn)
	if err != nil {
		if r, counts := reasonOf(err); counts {
			s.config.Count(r)
		}
		return
	}
	r := &request{server: s, ctx: ctx, conn: conn}
	c := socks5.Config{
		AuthMethods: s.methods(r),
		Resolver:    r,
		Rewriter:    r,
		Rules:       r,
		Dial:        r.dial,
		Logger:      log.New(io.Discard, "", 0), // it would log where a client goes
	}
	server, err := socks5.New(&c)
	if err != nil {
		return // never: New checks nothing
	}
	greeted := &prefixed{Conn: conn, first: greeting}
	server.ServeConn(greeted)
	if !r.understood && !greeted.ended { // one that only looks whether the proxy is there ends without a request
		s.config.Count(status.Unreadable)
	}
}

// methods returns how clients may say who they are.
func (s *Server) methods(r *request) []socks5.Authenticator {
	m := []socks5.Authenticator{socks5.UserPassAuthenticator{Credentials: r}}
	if s.config.Password == "" {
		m = append(m, socks5.NoAuthAuthenticator{})
	}
	return m
}

// prefixed gives what was read before. Without the promoted methods of a
// *net.TCPConn: go-socks5's copying would take them over our heads.
type prefixed struct {
	net.Conn
	first []byte
	ended bool // the client has closed
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	n, err := p.Conn.Read(b)
	p.ended = p.ended || err == io.EOF
	return n, err
}

// request is what go-socks5 asks about one connection.
type request struct {
	server     *Server
	ctx        context.Context
	conn       swarm.Conn
	understood bool // the handshake was one
}

// Valid checks the password (socks5.CredentialStore).
func (r *request) Valid(user, password string) bool {
	want := r.server.config.Password
	ok := want == "" || subtle.ConstantTimeCompare([]byte(password), []byte(want)) == 1
	if !ok {
		r.understood = true
		r.server.config.Count(status.Password)
	}
	return ok
}

// Resolve leaves a name as it is (socks5.NameResolver).
func (r *request) Resolve(ctx context.Context, name string) (context.Context, net.IP, error) {
	return ctx, nil, nil
}

// userKey is where Allow leaves the user name for dial.
type userKey struct{}

// Allow lets CONNECT pass and serves a UDP association to its end: it is the
// one place where go-socks5 lets go of the connection (socks5.RuleSet).
func (r *request) Allow(ctx context.Context, req *socks5.Request) (context.Context, bool) {
	r.conn.SetDeadline(time.Time{})
	user := req.AuthContext.Payload["Username"]
	switch req.Command {
	case socks5.ConnectCommand:
		return context.WithValue(ctx, userKey{}, user), true
	case socks5.AssociateCommand:
		r.server.associate(r.ctx, r.conn, user, req.DestAddr.Port)
		r.conn.Close() // or it would hear a second reply
		return ctx, false
	}
	r.server.config.Count(status.Command)
	return ctx, true // and is answered: not supported
}

// The errors that go-socks5 turns into replies 5 and 4. It goes by the text.
var (
	errRefused     = errors.New("refused")
	errUnreachable = errors.New("unreachable host")
)

// dial returns a target that takes the connection over (socks5.Config.Dial).
func (r *request) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	s := r.server
	user, _ := ctx.Value(userKey{}).(string)
	a, err := netip.ParseAddrPort(addr)
	if err != nil || !peers.Is(a.Addr()) { // a name, or an address out there
		host, _, _ := net.SplitHostPort(addr)
		if ctx.Value(resolving{}) != nil {
			return s.resolve(s.origin(user, r.conn).Client, host)
		}
		return newTaken(r.conn, func(first []byte) {
			from := s.origin(user, r.conn)
			s.handler.Elsewhere(r.ctx, from, s.meant(from.Client, host), &resumed{Conn: r.conn, first: first})
		}, nil), nil
	}
	if ctx.Value(resolving{}) != nil {
		return resolved{addr: a.Addr()}, nil
	}
	if peers.IsBeacon(a.Addr()) {
		return nil, errRefused // it has done its work
	}
	from := s.origin(user, r.conn)
	s.connected(from.Client, a.Addr())
	dialling, cancel := context.WithTimeout(r.ctx, s.config.Dial)
	defer cancel()
	heard, stop := watch(r.conn, cancel)
	session, err := s.handler.Peer(dialling, from, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	stop()
	if err != nil {
		if why, ok := swarm.Refusal(dialling, err); ok {
			s.config.Count(why)
		}
		if errors.Is(err, swarm.ErrUnknownPeer) {
			return nil, errRefused
		}
		return nil, errUnreachable
	}
	serve := func(first []byte) {
		first = append(first, heard()...)
		session.Serve(r.ctx, &resumed{Conn: r.conn, first: first})
	}
	return newTaken(r.conn, serve, session.Cancel), nil
}
