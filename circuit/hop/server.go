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
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// Config is what a Server is made of. Identity, Key and Now must be set; the
// rest has defaults.
type Config struct {
	Identity ed25519.PrivateKey

	// Key returns the onion key with this number, or nil when there is none (any more).
	Key func(number byte) *onion.PrivateKey

	// Hello returns what every link is told first: the descriptor. Nil: nothing.
	Hello func() []byte

	// Suite is how cell layers are sealed; the descriptor says so too.
	Suite onion.Suite

	// Now returns the network's time.
	Now func() time.Time

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

	// Limit is what the accepted links share, with Links when that has it, too.
	// Nil: none.
	Limit *link.Limit

	MaxCircuits int   // at once; 0 means 50,000
	MaxLinks    int   // accepted at once; 0 means 20,000
	Memory      int64 // bytes of cells that may wait here, promised to neighbours by windows; 0 means 2 GiB
	Replays     int   // CREATEs remembered; 0 means 2,000,000 (30 minutes)
}

// Counters are totals since the start; none joins two ends.
type Counters struct {
	Circuits               atomic.Int64 // open now
	Created, Refused, Died atomic.Uint64
	Outdated               atomic.Uint64 // links refused that speak another version

	cells atomic.Uint64 // opened or sealed; circuits count for themselves and add up now and then
}

// Cells returns how many cells were carried, both ways, but for up to some
// dozens of each circuit that is open.
func (c *Counters) Cells() uint64 { return c.cells.Load() }

// Server is one hop. Its counters may be read at any time.
type Server struct {
	Counters Counters

	cfg     Config
	id      onion.ID
	cert    tls.Certificate
	replays *onion.ReplayCache
	budget  *window.Budget
	work    chan handshake
	pace    pace
	doors   doors
	wg      sync.WaitGroup // circuits on their way to the next hop, requests being answered

	answers atomic.Int64 // bytes of replies that wait for their clients
}

// handshake is a CREATE that waits for its turn.
type handshake struct {
	c      *link.Circuit
	create []byte
	from   *share
	at     time.Time
}

const (
	handshakeQueue = 1024 // CREATEs that wait
	handshakeWait  = 2 * time.Second
)

// share is what one neighbour may have of what is scarce here: clients one by
// one little, relays, who bring the circuits of many, more.
type share struct {
	bucket       *rate.Limiter // CREATEs
	maxWaiting   int32         // in the queue of handshakes
	maxExtending int32         // on their way to the next hop

	waiting, extending atomic.Int32
}

func newShare(relay bool) *share {
	if relay {
		return &share{bucket: rate.NewLimiter(5000, 10000), maxWaiting: 512, maxExtending: 8192}
	}
	return &share{bucket: rate.NewLimiter(50, 1000), maxWaiting: 128, maxExtending: 256}
}

// take counts one more in n, unless there are max.
func take(n *atomic.Int32, max int32) bool {
	if n.Add(1) > max {
		n.Add(-1)
		return false
	}
	return true
}

// New checks cfg and returns a server for it.
func New(cfg Config) (*Server, error) {
	if len(cfg.Identity) != ed25519.PrivateKeySize || cfg.Key == nil || cfg.Now == nil {
		return nil, errors.New("hop: Identity, Key and Now are needed")
	}
	if cfg.MaxCircuits == 0 {
		cfg.MaxCircuits = 50_000
	}
	if cfg.MaxLinks == 0 {
		cfg.MaxLinks = 20_000
	}
	if cfg.Memory == 0 {
		cfg.Memory = 2 << 30
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
		budget:  window.NewBudget(cfg.Memory / cell.FrameSize),
		work:    make(chan handshake, handshakeQueue),
		doors:   doors{max: cfg.MaxLinks},
	}, nil
}

// Replays is the memory of CREATEs seen: what has to survive a restart as long
// as the onion keys do.
func (s *Server) Replays() *onion.ReplayCache { return s.replays }

// Links returns how many links others have to this hop, handshakes counted.
func (s *Server) Links() int {
	s.doors.mu.Lock()
	defer s.doors.mu.Unlock()
	return s.doors.links
}

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
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() { s.shake(ctx) })
	}
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var pause time.Duration
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
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
		in, ok := s.doors.enter(conn.RemoteAddr())
		if !ok {
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer in.leave()
			s.serve(ctx, conn, in)
		})
	}
}

// linkTimeout bounds the handshake of an accepted link.
const linkTimeout = 10 * time.Second

func (s *Server) serve(ctx context.Context, conn net.Conn, in *visit) {
	shaking, cancel := context.WithTimeout(ctx, linkTimeout)
	var hello []byte
	if s.cfg.Hello != nil {
		hello = s.cfg.Hello()
	}
	l, err := link.Accept(shaking, conn, s.cert, s.cfg.Now(), hello)
	cancel()
	if err != nil { // a stranger's mistake is not ours to log
		if fault.Of(err).Cause == fault.Version {
			s.Counters.Outdated.Add(1)
		}
		return
	}
	peer := l.Peer()
	from := newShare(peer != onion.ID{} && s.cfg.Known != nil && s.cfg.Known(peer))
	l.Limit(s.cfg.Limit)
	in.stand()
	l.Run(ctx, func(c *link.Circuit, create []byte) { s.queue(handshake{c, create, from, time.Now()}) })
}

// queue takes a CREATE on the link's reader.
func (s *Server) queue(h handshake) {
	switch {
	case !h.from.bucket.AllowN(h.at, 1), s.Counters.Circuits.Load() >= int64(s.cfg.MaxCircuits):
	case !take(&h.from.waiting, h.from.maxWaiting):
	default:
		select {
		case s.work <- h:
			return
		default:
			h.from.waiting.Add(-1)
		}
	}
	s.refuse(h, cell.Busy)
}

// shake answers CREATEs, one after another.
func (s *Server) shake(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-s.work:
			h.from.waiting.Add(-1)
			began := time.Now()
			if began.Sub(h.at) > handshakeWait {
				s.refuse(h, cell.Busy)
				continue
			}
			s.answer(ctx, h)
			rest := s.pace.rest(time.Since(began), s.Counters.Cells(), runtime.GOMAXPROCS(0))
			if rest == 0 {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(rest):
			}
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
	if r := s.replays.Add(onion.Step(s.cfg.Now()), p.Step, p.Replay); r != cell.OK {
		s.refuse(h, r)
		return
	}
	if p.Last {
		s.end(h.c, p)
		return
	}
	s.pass(ctx, h, p)
}
