// Package hop is the answering side of circuits: it accepts links, peels
// CREATE, switches cells to the next hop or, where it is the last, hands
// messages to their owner.
// Not here: which messages mean what (packages relay, tracker), layouts and
// keys (package onion), the client's side (package circuit).
package hop

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Config is what a Server is made of. Identity, Key and Step must be set; the
// rest has defaults.
type Config struct {
	Identity ed25519.PrivateKey

	// Key returns the onion key with this number, or nil when there is none (any more).
	Key func(number byte) *onion.PrivateKey

	// Hello returns what every link is told first: the descriptor. Nil: nothing.
	Hello func() []byte

	// Suite is how cell layers are sealed; the descriptor says so too.
	Suite onion.Suite

	// Step returns the present time step of the network (onion.Step).
	Step func() uint32

	// Next returns where the relay or tracker id listens, when the signed
	// directory lists it. Nil: circuits end here.
	Next func(id onion.ID) (netip.AddrPort, bool)

	// Known reports whether id is a relay of the directory: such links carry
	// the circuits of many and get a larger share of handshakes. Nil: none is.
	Known func(id onion.ID) bool

	// Last makes the owner of the messages of a circuit that ends here. Nil:
	// only requests are served.
	Last func(c *Circuit) Last

	// Requests answers REQUEST, by kind. A function may take its time; its
	// error goes to the log of nobody: the client hears BadRequest.
	Requests map[byte]func(c *Circuit, body []byte) ([]byte, error)

	// Links reaches next hops. Nil when Next is.
	Links *link.Pool

	MaxCircuits int   // at once; 0 means 50,000
	MaxLinks    int   // accepted at once; 0 means 20,000
	Memory      int64 // bytes that windows may promise above their floor; 0 means 512 MiB
	Replays     int   // CREATEs remembered; 0 means 2,000,000 (30 minutes)
}

// Counters are totals since the start; none joins two ends.
type Counters struct {
	Circuits                    atomic.Int64 // open now
	Created, Refused, Died      atomic.Uint64
	CellsForward, CellsBackward atomic.Uint64
}

// Server is one hop. Its counters may be read at any time.
type Server struct {
	Counters Counters

	cfg     Config
	id      onion.ID
	cert    tls.Certificate
	replays *onion.ReplayCache
	budget  *link.Budget
	work    chan handshake
	links   atomic.Int64
	wg      sync.WaitGroup // circuits on their way to the next hop
}

// handshake is a CREATE that waits for its turn.
type handshake struct {
	c      *link.Circuit
	create []byte
	slot   *slot
	at     time.Time
}

const (
	handshakeQueue = 1024 // CREATEs that wait
	handshakeWait  = 2 * time.Second
	workers        = 2
)

// The token buckets of CREATE, per link: handshakes a second, and at once.
const (
	clientRate, clientBurst = 50, 1000
	relayRate, relayBurst   = 5000, 10000
)

// New checks cfg and returns a server for it.
func New(cfg Config) (*Server, error) {
	if len(cfg.Identity) != ed25519.PrivateKeySize || cfg.Key == nil || cfg.Step == nil {
		return nil, errors.New("hop: Identity, Key and Step are needed")
	}
	if cfg.MaxCircuits == 0 {
		cfg.MaxCircuits = 50_000
	}
	if cfg.MaxLinks == 0 {
		cfg.MaxLinks = 20_000
	}
	if cfg.Memory == 0 {
		cfg.Memory = 512 << 20
	}
	if cfg.Replays == 0 {
		cfg.Replays = 2_000_000
	}
	cert, err := link.Certificate(cfg.Identity)
	if err != nil {
		return nil, err
	}
	return &Server{
		cfg:     cfg,
		id:      onion.ID(cfg.Identity.Public().(ed25519.PublicKey)),
		cert:    cert,
		replays: onion.NewReplayCache(cfg.Replays),
		budget:  link.NewBudget(cfg.Memory / cell.FrameSize),
		work:    make(chan handshake, handshakeQueue),
	}, nil
}

// Replays is the memory of CREATEs seen: what has to survive a restart as long
// as the onion keys do.
func (s *Server) Replays() *onion.ReplayCache { return s.replays }

// ID returns the server's identity.
func (s *Server) ID() onion.ID { return s.id }

// Serve accepts links on ln, which it closes, until ctx ends; it returns when
// all it started is over.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer s.wg.Wait()
	defer wg.Wait()
	defer cancel()
	for range workers {
		wg.Go(func() { s.shake(ctx) })
	}
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var pause time.Duration
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("hop: %w", err)
		}
		if err != nil { // out of descriptors, most likely: links that stand must not suffer
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		if s.links.Load() >= int64(s.cfg.MaxLinks) {
			conn.Close()
			continue
		}
		s.links.Add(1)
		wg.Go(func() {
			defer s.links.Add(-1)
			s.serve(ctx, conn)
		})
	}
}

// linkTimeout bounds the handshake of an accepted link.
const linkTimeout = 10 * time.Second

func (s *Server) serve(ctx context.Context, conn net.Conn) {
	shaking, cancel := context.WithTimeout(ctx, linkTimeout)
	var hello []byte
	if s.cfg.Hello != nil {
		hello = s.cfg.Hello()
	}
	l, err := link.Accept(shaking, conn, s.cert, hello)
	cancel()
	if err != nil {
		return // a stranger's mistake is not ours to log
	}
	r, burst := rate.Limit(clientRate), clientBurst
	if peer := l.Peer(); peer != (onion.ID{}) && s.cfg.Known != nil && s.cfg.Known(peer) {
		r, burst = relayRate, relayBurst
	}
	bucket := rate.NewLimiter(r, burst)
	l.Run(ctx, func(c *link.Circuit, create []byte) {
		h := &slot{}
		c.SetHandler(h)
		if !bucket.Allow() || s.Counters.Circuits.Load() >= int64(s.cfg.MaxCircuits) {
			s.Counters.Refused.Add(1)
			c.Destroy(cell.Busy)
			return
		}
		select {
		case s.work <- handshake{c, create, h, time.Now()}:
		default:
			s.Counters.Refused.Add(1)
			c.Destroy(cell.Busy)
		}
	})
}

// shake answers CREATEs, one after another.
func (s *Server) shake(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-s.work:
			if time.Since(h.at) > handshakeWait {
				s.refuse(h, cell.Busy)
				continue
			}
			s.answer(ctx, h)
		}
	}
}

// refuse ends a circuit before it stood.
func (s *Server) refuse(h handshake, r cell.Reason) {
	s.Counters.Refused.Add(1)
	h.c.Destroy(r)
}

// answer peels one CREATE and becomes its last hop or a hop on its way.
func (s *Server) answer(ctx context.Context, h handshake) {
	key := s.cfg.Key(onion.KeyNumber(h.create))
	if key == nil {
		s.refuse(h, cell.Protocol)
		return
	}
	p, err := onion.Peel(h.create, s.id, key)
	if err != nil {
		s.refuse(h, cell.Protocol)
		return
	}
	if r := s.replays.Add(s.cfg.Step(), p.Step, p.Replay); r != cell.OK {
		s.refuse(h, r)
		return
	}
	if p.Last {
		s.end(h, p)
		return
	}
	s.pass(ctx, h, p)
}

// slot stands in for a circuit's handler until the handshake is over. A cell
// that comes before CREATED went breaks the protocol and is dropped; the
// circuit then dies by its own counters.
type slot struct {
	real atomic.Pointer[link.Handler]

	mu   sync.Mutex
	gone bool // guarded by mu: DESTROY came before anybody was there to hear it
}

// become hands the circuit to h, unless it is over already.
func (s *slot) become(h link.Handler) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return false
	}
	s.real.Store(&h)
	return true
}

func (s *slot) Created([]byte) {}

func (s *slot) Cell(f *cell.Frame) {
	if h := s.real.Load(); h != nil {
		(*h).Cell(f)
		return
	}
	f.Free()
}

func (s *slot) Credit(total uint64) {
	if h := s.real.Load(); h != nil {
		(*h).Credit(total)
	}
}

func (s *slot) Sent(total uint64) {
	if h := s.real.Load(); h != nil {
		(*h).Sent(total)
	}
}

func (s *slot) Destroyed(r cell.Reason) {
	s.mu.Lock()
	s.gone = true
	h := s.real.Load()
	s.mu.Unlock()
	if h != nil {
		(*h).Destroyed(r)
	}
}
