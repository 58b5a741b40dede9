package inbound

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// pipe returns the ends of a connection in memory, with what a TCP one has:
// buffers, half-close and deadlines. What is written arrives after delay.
func pipe(delay time.Duration) (a, b *end) {
	x, y := newHalf(delay), newHalf(delay)
	return &end{in: x, out: y}, &end{in: y, out: x}
}

type end struct{ in, out *half }

// half is one direction.
type half struct {
	delay time.Duration

	mu     sync.Mutex
	cond   *sync.Cond
	chunks []chunk
	gone   bool // the reader closed
	read   limit
	write  limit
}

type chunk struct {
	b   []byte
	at  time.Time // when it arrives
	err error     // instead of b: the end
}

type limit struct {
	at    time.Time
	timer *time.Timer
}

func newHalf(delay time.Duration) *half {
	h := &half{delay: delay}
	h.cond = sync.NewCond(&h.mu)
	return h
}

func (h *half) set(l *limit, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.at, l.timer = t, nil
	if wait := time.Until(t); wait > 0 {
		l.timer = time.AfterFunc(wait, h.cond.Broadcast)
	}
	h.cond.Broadcast()
}

func (l limit) over() bool { return !l.at.IsZero() && !time.Now().Before(l.at) }

func (h *half) Read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case h.read.over():
			return 0, os.ErrDeadlineExceeded
		case len(h.chunks) > 0:
			c := &h.chunks[0]
			if wait := time.Until(c.at); wait > 0 {
				time.AfterFunc(wait, h.cond.Broadcast)
				break
			}
			if c.err != nil {
				return 0, c.err
			}
			n := copy(b, c.b)
			if c.b = c.b[n:]; len(c.b) == 0 {
				h.chunks = h.chunks[1:]
			}
			return n, nil
		}
		h.cond.Wait()
	}
}

func (h *half) put(c chunk) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.chunks); h.gone || n > 0 && h.chunks[n-1].err != nil {
		return net.ErrClosed
	}
	c.at = time.Now().Add(h.delay)
	h.chunks = append(h.chunks, c)
	h.cond.Broadcast()
	return nil
}

func (h *half) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	h.cond.Broadcast()
}

func (e *end) Read(b []byte) (int, error) { return e.in.Read(b) }
func (e *end) Write(b []byte) (int, error) {
	return len(b), e.out.put(chunk{b: bytes.Clone(b)})
}
func (e *end) CloseWrite() error { return e.out.put(chunk{err: io.EOF}) }
func (e *end) Close() error {
	e.out.put(chunk{err: io.EOF})
	e.in.stop()
	return nil
}
func (e *end) SetReadDeadline(t time.Time) error  { e.in.set(&e.in.read, t); return nil }
func (e *end) SetWriteDeadline(t time.Time) error { return nil }
func (e *end) SetDeadline(t time.Time) error      { return e.SetReadDeadline(t) }
func (e *end) LocalAddr() net.Addr                { return new(net.TCPAddr) }
func (e *end) RemoteAddr() net.Addr               { return new(net.TCPAddr) }

var hash = swarm.Hash{1, 2, 3}

// net is members that reach each other after delay.
type network struct {
	delay time.Duration
	mu    sync.Mutex
	all   map[swarm.Key]*member
}

// member is a swarm.Swarm.
type member struct {
	net  *network
	self swarm.Key
	in   chan arrival
	fail error // of Dial
	dial int   // how often Dial was called; guarded by net.mu

	later chan []swarm.Key
}

type arrival struct {
	from   swarm.Key
	stream swarm.Conn
}

func (n *network) join(self swarm.Key) *member {
	m := &member{net: n, self: self, in: make(chan arrival, 1000), later: make(chan []swarm.Key, 10)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = make(map[swarm.Key]*member)
	}
	n.all[self] = m
	return m
}

func (m *member) Hash() swarm.Hash       { return hash }
func (m *member) Self() swarm.Key        { return m.self }
func (m *member) Leave() <-chan struct{} { return nil }
func (m *member) Announce(context.Context, swarm.Announce) (swarm.Answer, error) {
	return swarm.Answer{}, nil
}

func (m *member) Later(ctx context.Context) ([]swarm.Key, error) {
	select {
	case k := <-m.later:
		return k, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Dial takes a round trip, as a circuit does.
func (m *member) Dial(ctx context.Context, peer swarm.Key) (swarm.Conn, error) {
	m.net.mu.Lock()
	m.dial++
	to, fail := m.net.all[peer], m.fail
	m.net.mu.Unlock()
	if !nap(ctx, m.net.delay) {
		return nil, ctx.Err()
	}
	if fail != nil {
		return nil, fail
	}
	if to == nil {
		return nil, swarm.ErrUnknownPeer
	}
	a, b := pipe(m.net.delay)
	to.in <- arrival{m.self, b}
	if !nap(ctx, m.net.delay) {
		a.Close()
		return nil, ctx.Err()
	}
	return a, nil
}

func (m *member) Accept(ctx context.Context) (swarm.Key, swarm.Conn, error) {
	select {
	case a := <-m.in:
		if !nap(ctx, m.net.delay) { // confirmed by a third message
			a.stream.Close()
			return swarm.Key{}, nil, ctx.Err()
		}
		return a.from, a.stream, nil
	case <-ctx.Done():
		return swarm.Key{}, nil, ctx.Err()
	}
}

func nap(ctx context.Context, d time.Duration) bool {
	if d == 0 { // go1.26's race detector crashes when two timers of a bubble are due at once
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// hello is a client's handshake.
func hello(h swarm.Hash, id byte) []byte {
	b := append([]byte("\x13BitTorrent protocol"), make([]byte, 8)...)
	b = append(b, h[:]...)
	return append(b, bytes.Repeat([]byte{id}, 20)...)
}

// have is a message that passes as it is.
func have(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0, 0, 0, 5, 4}, n) }

// expect reads a handshake for hash, or what else was wanted.
func expectHello(c net.Conn) error {
	b := make([]byte, 68)
	if _, err := io.ReadFull(c, b); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if !bytes.Equal(b[28:48], hash[:]) || string(b[:20]) != "\x13BitTorrent protocol" {
		return fmt.Errorf("%x is no handshake of the swarm", b)
	}
	return nil
}

func expect(c net.Conn, want []byte) error {
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil {
		return fmt.Errorf("message: %w", err)
	}
	if !bytes.Equal(b, want) {
		return fmt.Errorf("got %x, want %x", b, want)
	}
	return nil
}

// expectEnd reads the end of a connection, clean or not.
func expectEnd(c net.Conn) error {
	b, err := io.ReadAll(c)
	if len(b) > 0 {
		return fmt.Errorf("got %x (%v), want the end", b, err)
	}
	return nil
}

// sidecar is a Desk and what it was asked for.
type sidecar struct {
	desk   *Desk
	swarm  *member
	client swarm.Client
	stop   context.CancelFunc

	mu     sync.Mutex
	counts map[status.Reason]int
	tried  int // roads
}

// newSidecar runs a Desk for one client. accept is the client's listener, nil for none.
func newSidecar(t *testing.T, m *member, accept func(net.Conn)) *sidecar {
	s := &sidecar{swarm: m, client: "c", counts: make(map[status.Reason]int)}
	s.desk = New(Config{
		StandIn: func(swarm.Client, swarm.Hash, swarm.Key) (netip.AddrPort, error) {
			return netip.MustParseAddrPort("198.18.7.7:6881"), nil
		},
		StandIns: func(_ swarm.Client, _ swarm.Hash, found []swarm.Key) (out []netip.AddrPort) {
			for _, k := range found {
				out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 7, k[0]}), peers.Port))
			}
			return out
		},
		Roads: []Road{
			func(context.Context, swarm.Client, swarm.Hash, netip.AddrPort) (swarm.Conn, error) {
				return nil, ErrNoRoad
			},
			func(context.Context, swarm.Client, swarm.Hash, netip.AddrPort) (swarm.Conn, error) {
				s.mu.Lock()
				s.tried++
				s.mu.Unlock()
				if accept == nil {
					return nil, ErrNoRoad
				}
				a, b := pipe(0)
				go accept(b)
				return a, nil
			},
		},
		Count: func(r status.Reason) {
			s.mu.Lock()
			s.counts[r]++
			s.mu.Unlock()
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		s.desk.Run(ctx, s.client, m)
		close(done)
	}()
	s.stop = func() { cancel(); <-done }
	t.Cleanup(s.stop)
	return s
}

// dial is what a client's CONNECT does: it returns the client's end.
func (s *sidecar) dial(ctx context.Context, peer swarm.Key) (*end, error) {
	call, err := s.desk.Dial(ctx, s.client, s.swarm, peer)
	if err != nil {
		return nil, err
	}
	a, b := pipe(0)
	go call.Serve(ctx, b)
	return a, nil
}

func (s *sidecar) count(r status.Reason) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[r]
}

// idle fails the test if the Desk remembers anything.
func (s *sidecar) idle(t *testing.T) {
	t.Helper()
	s.desk.mu.Lock()
	defer s.desk.mu.Unlock()
	if len(s.desk.pairs) != 0 || s.desk.visits != 0 || s.desk.waiting != 0 {
		t.Errorf("%d pairs, %d visits, %d waiting are left", len(s.desk.pairs), s.desk.visits, s.desk.waiting)
	}
}

var (
	small = swarm.Key{1}
	great = swarm.Key{2}
)
