package socks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/utp"

	"github.com/shoal-p2p/shoal/proxy/front"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// sidecar is a Server on loopback, and a Handler that tells what it is asked.
type sidecar struct {
	*Server
	addr string

	peer    func(ctx context.Context, from Origin, a netip.AddrPort) (Session, error)
	where   chan elsewhere
	tracker func(from Origin, to netip.Addr, b []byte) []byte
	dht     chan netip.AddrPort

	mu     sync.Mutex
	counts map[status.Reason]int
}

type elsewhere struct {
	from Origin
	host string
	said string
}

// start starts a sidecar that is gone, with all its goroutines, at the end.
func start(t testing.TB, c Config) *sidecar {
	t.Helper()
	s := &sidecar{
		where:  make(chan elsewhere, 100),
		dht:    make(chan netip.AddrPort, 100),
		counts: make(map[status.Reason]int),
		peer: func(context.Context, Origin, netip.AddrPort) (Session, error) {
			return nil, swarm.ErrUnknownPeer
		},
		tracker: func(Origin, netip.Addr, []byte) []byte { return nil },
	}
	c.Count = func(r status.Reason) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.counts[r]++
	}
	s.Server = New(c, s)
	l, err := Listen("127.0.0.1:0", c.Password)
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Serve = %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve goes on")
		}
	})
	return s
}

func (s *sidecar) Elsewhere(_ context.Context, from Origin, host string, conn net.Conn) {
	b := make([]byte, 100)
	n, _ := conn.Read(b)
	s.where <- elsewhere{from, host, string(b[:n])}
	conn.Write([]byte("answer"))
}

func (s *sidecar) Peer(ctx context.Context, from Origin, a netip.AddrPort) (Session, error) {
	return s.peer(ctx, from, a)
}

func (s *sidecar) Packet(from Origin, to netip.AddrPort, b []byte, answer func([]byte)) {
	switch front.SortPacket(to.Addr(), b) {
	case front.Tracker:
		if out := s.tracker(from, to.Addr(), b); len(out) > 0 {
			answer(out)
		}
	case front.DHT:
		s.dht <- to
	default:
		s.Server.config.Count(status.Datagram)
	}
}

// counted waits until n of r were counted.
func (s *sidecar) counted(t *testing.T, r status.Reason, n int) {
	t.Helper()
	until(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.counts[r] == n
	}, func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Sprintf("counted %v, want %d of %v", s.counts, n, r)
	})
}

// until waits until ok, or fails.
func until(t testing.TB, ok func() bool, what func() string) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what())
		}
	}
}

// serving is a Session that does f.
type serving func(net.Conn)

func (f serving) Serve(_ context.Context, c swarm.Conn) { f(c) }
func (f serving) Cancel()                               { f(nil) }

// echo is a peer that says again what it hears, to the end.
func echo(c net.Conn) {
	if c != nil {
		io.Copy(c, c)
		c.(swarm.Conn).CloseWrite()
		io.Copy(io.Discard, c)
		c.Close()
	}
}

// client is a torrent client's side of SOCKS5, by hand.
type client struct {
	t    testing.TB
	conn *net.TCPConn
}

func dial(t testing.TB, s *sidecar) *client {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return &client{t, c.(*net.TCPConn)}
}

func (c *client) say(b ...byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) hear(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.conn, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// ended fails the test if the conn has not ended.
func (c *client) ended() {
	c.t.Helper()
	if b, err := io.ReadAll(c.conn); err != nil && errors.Is(err, context.DeadlineExceeded) || len(b) > 0 {
		c.t.Errorf("heard %x, %v, want the end", b, err)
	}
}

// login greets, with a user name if there is one. It returns the answer to the password.
func (c *client) login(user, password string) byte {
	c.t.Helper()
	if user == "" {
		c.say(5, 1, 0)
		if got := c.hear(2); got[1] != 0 {
			c.t.Fatalf("method %d, want 0", got[1])
		}
		return 0
	}
	c.say(5, 2, 0, 2) // as libtorrent: none first
	if got := c.hear(2); got[1] != 2 {
		c.t.Fatalf("method %d, want 2", got[1])
	}
	b := append([]byte{1, byte(len(user))}, user...)
	b = append(append(b, byte(len(password))), password...)
	c.say(b...)
	return c.hear(2)[1]
}

// request sends a command and returns the reply's code and address.
func (c *client) request(command byte, host string, port uint16) (byte, netip.AddrPort) {
	c.t.Helper()
	b := []byte{5, command, 0}
	if a, err := netip.ParseAddr(host); err == nil {
		b = append(append(b, 1), a.AsSlice()...)
	} else {
		b = append(append(b, 3, byte(len(host))), host...)
	}
	c.say(binary.BigEndian.AppendUint16(b, port)...)
	r := c.hear(10)
	if r[0] != 5 || r[2] != 0 || r[3] != 1 {
		c.t.Fatalf("reply %x", r)
	}
	return r[1], netip.AddrPortFrom(netip.AddrFrom4([4]byte(r[4:8])), binary.BigEndian.Uint16(r[8:]))
}

// connect is what a client does for a peer.
func connect(t testing.TB, s *sidecar, user, host string, port uint16) (*client, byte) {
	t.Helper()
	c := dial(t, s)
	c.login(user, "")
	code, _ := c.request(1, host, port)
	return c, code
}

// association is a client's UDP association: a PacketConn on which the
// stand-ins have their addresses.
type association struct {
	*net.UDPConn
	control *client
	relay   netip.AddrPort
}

func associate(t testing.TB, s *sidecar, user string) *association {
	t.Helper()
	c := dial(t, s)
	c.login(user, "")
	code, relay := c.request(3, "0.0.0.0", 0)
	if code != 0 {
		t.Fatalf("reply %d", code)
	}
	c.conn.SetDeadline(time.Time{})
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	u.SetReadBuffer(4 << 20)
	t.Cleanup(func() { u.Close() })
	return &association{u, c, relay}
}

// raw sends what is no packet of ours.
func (a *association) raw(t testing.TB, b []byte) {
	t.Helper()
	if _, err := a.WriteToUDPAddrPort(b, a.relay); err != nil {
		t.Fatal(err)
	}
}

// packet sends body to a host.
func (a *association) packet(t testing.TB, host string, port uint16, body []byte) {
	t.Helper()
	h := udpHeader{name: host, port: port}
	if ip, err := netip.ParseAddr(host); err == nil {
		h = udpHeader{addr: ip, port: port}
	}
	a.raw(t, append(h.append(nil), body...))
}

// answer returns the next packet and where it is from.
func (a *association) answer(t testing.TB) (udpHeader, []byte) {
	t.Helper()
	b := make([]byte, 64<<10)
	a.SetReadDeadline(time.Now().Add(patience))
	n, from, err := a.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	if from != a.relay {
		t.Fatalf("a packet from %v, want the relay", from)
	}
	h, body, err := parseHeader(b[:n])
	if err != nil {
		t.Fatal(err)
	}
	return h, body
}

// ReadFrom and WriteTo make it a PacketConn for a µTP socket.
func (a *association) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, _, err := a.ReadFromUDPAddrPort(b)
		if err != nil {
			return 0, nil, err
		}
		if h, body, err := parseHeader(b[:n]); err == nil {
			return copy(b, body), net.UDPAddrFromAddrPort(h.addrPort()), nil
		}
	}
}

func (a *association) WriteTo(b []byte, to net.Addr) (int, error) {
	p := to.(*net.UDPAddr).AddrPort()
	a.WriteToUDPAddrPort(append(udpHeader{addr: p.Addr().Unmap(), port: p.Port()}.append(nil), b...), a.relay)
	return len(b), nil
}

// utp puts a µTP socket on the association.
func (a *association) utp(t testing.TB) *utp.Socket {
	t.Helper()
	s, err := utp.NewSocketFromPacketConn(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.CloseNow() })
	return s
}
