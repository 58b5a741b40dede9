package dht

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// Wait is how long a get_peers waits for its peers. libtorrent gives up on a
// node after 15 s, and turns to others after one.
const Wait = 2 * time.Second

// Handler is the sidecar behind a Server. Its methods are called from several
// goroutines at once.
type Handler interface {
	// Peers returns stand-ins of h's members, best first, as far as they are
	// known when ctx ends.
	Peers(ctx context.Context, h swarm.Hash) []netip.AddrPort

	// Announced says that the client shares a torrent. It must not block.
	Announced(a Announced)

	// Send sends a packet to the client. It must not block.
	Send(p Packet)

	// Refused says why a packet was not served in full.
	Refused(err error)
}

// Server drives a Node. Safe for concurrent use.
type Server struct {
	handler Handler
	ctx     context.Context
	cancel  context.CancelFunc
	asks    sync.WaitGroup

	mu   sync.Mutex
	node *Node // guarded by mu
}

// NewServer returns a Server for one client.
func NewServer(cfg Config, h Handler) *Server {
	s := &Server{handler: h, node: NewNode(cfg)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends what the Server waits for, and returns when nothing runs any more.
// No other method may be called once it was.
func (s *Server) Close() {
	s.cancel()
	s.asks.Wait()
}

// Packet takes packet b that client sent to the node at to. It doesn't block
// and doesn't keep b. The asks that wait are at most one for each info-hash.
func (s *Server) Packet(b []byte, client, to netip.AddrPort) {
	s.mu.Lock()
	eff := s.node.Handle(b, client, to, time.Now())
	s.mu.Unlock()
	s.send(eff.Replies)
	for _, a := range eff.Announced {
		s.handler.Announced(a)
	}
	if eff.Refused != nil {
		s.handler.Refused(eff.Refused)
	}
	for _, h := range eff.Ask {
		s.asks.Go(func() { s.ask(h) })
	}
}

// Greet makes the client at addr know the node, when it has yet to send its
// first DHT packet.
func (s *Server) Greet(client netip.AddrPort) {
	s.mu.Lock()
	p := s.node.Greet(client)
	s.mu.Unlock()
	s.send(p)
}

func (s *Server) ask(h swarm.Hash) {
	ctx, cancel := context.WithTimeout(s.ctx, Wait)
	defer cancel()
	peers := s.handler.Peers(ctx, h)
	if s.ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	p := s.node.Answer(h, peers, time.Now())
	s.mu.Unlock()
	s.send(p)
}

func (s *Server) send(packets []Packet) {
	for _, p := range packets {
		s.handler.Send(p)
	}
}
