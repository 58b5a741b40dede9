package utp

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anacrolix/utp"

	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

var standIn = netip.MustParseAddrPort("198.18.7.7:6881")

// underway is a packet and when it was sent.
type underway struct {
	packet
	at time.Time
}

// cable is a Wire in memory; its other end is the client's network.
type cable struct {
	delay    atomic.Int64 // nanoseconds
	up, down chan underway
	lost     atomic.Int64 // packets
	woken    chan struct{}
	over     chan struct{}
	once     sync.Once
}

func newCable() *cable { return cableFor(1000) }

// cableFor returns a cable that holds so many packets each way, and loses more.
func cableFor(packets int) *cable {
	return &cable{up: make(chan underway, packets), down: make(chan underway, packets), woken: make(chan struct{}, 1), over: make(chan struct{})}
}

func (c *cable) Next() (netip.AddrPort, []byte, error) {
	select {
	case p := <-c.up:
		c.wait(p)
		return p.from, p.body, nil
	case <-c.woken:
		return netip.AddrPort{}, nil, ErrWoken
	case <-c.over:
		return netip.AddrPort{}, nil, net.ErrClosed
	}
}

func (c *cable) Wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

func (c *cable) Send(from netip.AddrPort, b []byte) { c.put(c.down, from, b) }

// wait returns when p has come all the way.
func (c *cable) wait(p underway) { time.Sleep(time.Until(p.at.Add(time.Duration(c.delay.Load())))) }

func (c *cable) put(to chan underway, at netip.AddrPort, b []byte) {
	select {
	case to <- underway{packet{at, append([]byte(nil), b...)}, time.Now()}:
	default:
		c.lost.Add(1)
	}
}

func (c *cable) Close() error {
	c.once.Do(func() { close(c.over) })
	return nil
}

// far is the client's end as a net.PacketConn.
type far struct {
	c      *cable
	closed context.Context
	close  context.CancelFunc
}

func (f far) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-f.c.down:
		f.c.wait(p)
		return copy(b, p.body), net.UDPAddrFromAddrPort(p.from), nil
	case <-f.closed.Done():
		return 0, nil, net.ErrClosed
	}
}

func (f far) WriteTo(b []byte, to net.Addr) (int, error) {
	if Is(b) { // which the owner of a Wire looks for
		a := to.(*net.UDPAddr).AddrPort()
		f.c.put(f.c.up, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), b)
	}
	return len(b), nil
}

func (f far) Close() error {
	f.close()
	return nil
}
func (f far) LocalAddr() net.Addr              { return nowhere }
func (f far) SetDeadline(time.Time) error      { return nil }
func (f far) SetReadDeadline(time.Time) error  { return nil }
func (f far) SetWriteDeadline(time.Time) error { return nil }

type echo struct{}

func (echo) Cancel() {}
func (echo) Serve(_ context.Context, c swarm.Conn) {
	defer c.Close()
	io.Copy(c, c)
}

// patience is how long a test waits for what must happen.
const patience = time.Minute

// start returns a Socket that is closed with the test, and its cable.
func start(t testing.TB, peer func(context.Context, netip.AddrPort) (Session, error), count func(status.Reason)) (*Socket, *cable) {
	t.Helper()
	if count == nil {
		count = func(status.Reason) {}
	}
	c := newCable()
	s, err := New(t.Context(), Config{Wire: c, Peer: peer, Timeout: 10 * time.Second, Count: count})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, c
}

// client puts the µTP package at the client's end.
func client(t testing.TB, c *cable) *utp.Socket {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := utp.NewSocketFromPacketConn(far{c, ctx, cancel})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.CloseNow() })
	return s
}

func reached(context.Context, netip.AddrPort) (Session, error) { return echo{}, nil }

// TestWhoDoesNotTurnToTCPIsTakenAtOnce: Transmission would be gone for a
// quarter of an hour.
func TestWhoDoesNotTurnToTCPIsTakenAtOnce(t *testing.T) {
	_, cable := start(t, reached, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := client(t, cable).DialContext(ctx, "", standIn.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("hello"))
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("heard %q, %v", got, err)
	}
}

// TestWhoTurnsToTCPIsRefusedOnce: at that libtorrent dials by TCP.
func TestWhoTurnsToTCPIsRefusedOnce(t *testing.T) {
	s, cable := start(t, reached, nil)
	for i, want := range []byte{typeReset, typeState, typeReset, typeState} {
		if i == 2 {
			s.Connected(standIn.Addr())
		}
		syn := make([]byte, headerSize)
		syn[0] = typeSyn<<4 | 1
		binary.BigEndian.PutUint16(syn[2:], uint16(100*i))
		cable.put(cable.up, standIn, syn)
		select {
		case p := <-cable.down:
			if kind(p.body) != want || p.from != standIn {
				t.Errorf("SYN %d is answered by %x from %v, want type %d", i, p.body, p.from, want)
			}
		case <-time.After(patience):
			t.Fatalf("SYN %d is not answered", i)
		}
	}
}

func TestAPeerThatIsNotReachedIsReset(t *testing.T) {
	counts := make(chan status.Reason, 1)
	_, cable := start(t, func(context.Context, netip.AddrPort) (Session, error) { return nil, swarm.ErrUnreachable },
		func(r status.Reason) { counts <- r })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := client(t, cable).DialContext(ctx, "", standIn.String()); err == nil || ctx.Err() != nil {
		t.Errorf("Dial = %v, want a reset", err)
	}
	if got := <-counts; got != status.Unreachable {
		t.Errorf("counted %v", got)
	}
}

// TestCloseEndsEverything, in the middle of a transfer and of a dial.
func TestCloseEndsEverything(t *testing.T) {
	dialling := make(chan struct{})
	s, cable := start(t, func(ctx context.Context, to netip.AddrPort) (Session, error) {
		if to == standIn {
			return echo{}, nil
		}
		close(dialling)
		<-ctx.Done()
		return nil, swarm.ErrUnreachable
	}, nil)
	sock := client(t, cable)
	c, err := sock.DialContext(t.Context(), "", standIn.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("hello"))
	io.ReadFull(c, make([]byte, 5))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go sock.DialContext(ctx, "", "198.18.7.8:6881")
	<-dialling
	done := make(chan struct{})
	go func() {
		s.Close()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("Close hangs")
	}
	if _, err := s.Dial(t.Context(), standIn); err == nil {
		t.Error("dialled from a socket that is closed")
	}
}

// FuzzSocket gives the µTP package, in the middle of transfers, whatever passes
// our look at it. It has no way to fail but to panic.
func FuzzSocket(f *testing.F) {
	for _, l := range packets(f) {
		f.Add([]byte(l[1]), false)
		f.Add([]byte(l[1]), true)
	}
	s, cable := start(f, reached, nil)
	sock := client(f, cable)
	go func() {
		for {
			c, err := sock.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()
	live, err := s.Dial(f.Context(), standIn)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { live.Close() })
	go io.Copy(io.Discard, live)
	f.Fuzz(func(t *testing.T, b []byte, flood bool) {
		give := func() {
			if Is(b) {
				cable.put(cable.up, standIn, b)
			}
		}
		give()
		if len(b) >= headerSize && flood { // all the neighbouring connections, too
			for id := range uint16(64) {
				b[0] = b[0]&0xf0 | 1
				binary.BigEndian.PutUint16(b[2:], binary.BigEndian.Uint16(b[2:])+id*1024)
				give()
			}
		}
		live.SetWriteDeadline(time.Now().Add(time.Millisecond))
		live.Write(b)
	})
}
