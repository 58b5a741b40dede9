// Package front is what every torrent client of this sidecar finds in front of
// it, by whatever door it came: its announces, scrapes and DHT are answered, its
// connections to stand-ins are joined to streams, and the streams of peers are
// brought to it. dispatch.go alone decides what a packet or a connection is for.
// Not here: how a client gets in (packages socks and confined, the doors), and
// what its swarms are (package swarm).
package front

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/proxy/announce"
	"github.com/shoal-p2p/shoal/proxy/authority"
	"github.com/shoal-p2p/shoal/proxy/dht"
	"github.com/shoal-p2p/shoal/proxy/inbound"
	"github.com/shoal-p2p/shoal/proxy/memory"
	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// Confined is the client of a command in a namespace.
const Confined swarm.Client = "confined"

// Config is what a Front is made with. Nothing may be nil.
type Config struct {
	Secret   [32]byte
	Strict   bool // a client whose peers don't go through the proxy is refused, not warned
	Swarms   *swarm.Net
	TLS      *authority.Authority
	Counters *status.Counters
	NotReady func() *fault.Fault // why the sidecar can carry no traffic; nil when it can
	Log      *slog.Logger

	// Door returns the newest door of a client, nil when it has none.
	Door func(swarm.Client) Door

	// Await returns when a client has a door, or ctx ends.
	Await func(context.Context, swarm.Client)

	Memory *memory.Memory
	Back   []memory.Client // clients of an earlier run that are to be taken back
	Gone   []memory.Client // and those that are gone
}

// Front is all clients of this sidecar.
type Front struct {
	cfg     Config
	table   *peers.Table
	desk    *inbound.Desk
	journal *journal

	restoring []restored // until Run

	tasks chan func(context.Context) // to be started by Run
	over  chan struct{}              // closed when Run starts no more

	closing sync.WaitGroup // of forgotten clients

	mu      sync.Mutex
	clients map[swarm.Client]*Client // guarded by mu
}

// New returns a Front, which has to be Run.
func New(cfg Config) *Front {
	f := &Front{
		cfg: cfg, table: peers.New(cfg.Secret), journal: &journal{log: cfg.Log},
		tasks: make(chan func(context.Context)), over: make(chan struct{}), clients: make(map[swarm.Client]*Client),
	}
	cfg.Counters.Told = f.journal.refused
	f.desk = inbound.New(inbound.Config{
		StandIn: f.standIn, StandIns: f.standIns,
		Roads: []inbound.Road{f.road, inbound.TCP(f.listens)},
		Bell:  f.bell,
		Last:  inbound.UTP(f.dialer),
		Count: cfg.Counters.Add,
	})
	f.restoring = f.earlier(cfg.Back, cfg.Gone)
	f.cfg.Back, f.cfg.Gone = nil, nil
	return f
}

// Run serves until ctx ends, and returns when all that clients began is over.
func (f *Front) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { f.journal.often.Run(ctx) })
	wg.Go(func() { f.table.Run(ctx) })
	wg.Go(func() { f.cfg.Memory.Run(ctx) })
	restoring := f.restoring
	f.restoring = nil // it names torrents
	wg.Go(func() { f.restore(ctx, restoring) })
	for {
		select {
		case task := <-f.tasks:
			wg.Go(func() { task(ctx) })
		case <-ctx.Done():
			close(f.over)
			return
		}
	}
}

// begin starts what outlives the request that asks for it. It is false when the
// Front is over.
func (f *Front) begin(task func(context.Context)) bool {
	select {
	case f.tasks <- task:
		return true
	case <-f.over:
		return false
	}
}

// Close ends what clients asked of the DHT. No door may be open any more.
func (f *Front) Close() {
	f.mu.Lock()
	all := f.clients
	f.clients = make(map[swarm.Client]*Client)
	f.mu.Unlock()
	for _, c := range all {
		c.dht.Close()
	}
	f.closing.Wait()
}

// maxIdle is how many clients are remembered that are in no swarm, have no door
// and ask for nothing: a program may give a new user name each time.
const maxIdle = 64

// Hold returns the client called name, which is not forgotten before Release.
func (f *Front) Hold(name swarm.Client) *Client {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.clients[name]
	if c == nil {
		f.forget()
		c = newClient(f, name)
		f.clients[name] = c
		f.journal.client(name)
	}
	c.holds++
	return c
}

// hold is Hold, for what the client itself begins. It is false when the client
// is forgotten.
func (c *Client) hold() bool {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if c.f.clients[c.name] != c {
		return false
	}
	c.holds++
	return true
}

// Release ends a Hold.
func (c *Client) Release() {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.holds--
}

// forget forgets idle clients when there are more than maxIdle clients. Caller
// holds mu.
func (f *Front) forget() {
	if len(f.clients) < maxIdle {
		return
	}
	for name, c := range f.clients {
		if c.holds == 0 && f.cfg.Door(name) == nil && c.rests() {
			delete(f.clients, name)
			f.closing.Go(c.dht.Close)
		}
	}
}

// client returns the client called name, nil if there is none.
func (f *Front) client(name swarm.Client) *Client {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clients[name]
}

// Acted reports whether a client has done what a torrent client does.
func (f *Front) Acted(name swarm.Client) bool {
	c := f.client(name)
	return c != nil && c.acted.Load()
}

// Warnings returns what the status page says of clients. It names none of them.
func (f *Front) Warnings() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.clients {
		if c.mute.shows(time.Now()) {
			return []string{textMute}
		}
	}
	return nil
}

func newClient(f *Front, name swarm.Client) *Client {
	c := &Client{
		f: f, name: name, jobs: make(chan struct{}, maxJobs),
		listens: make(map[swarm.Hash]uint16), runs: make(map[swarm.Hash]swarm.Swarm),
		rejoined: make(map[swarm.Hash]time.Time), silent: make(map[swarm.Hash]chan struct{}),
	}
	c.udp = announce.NewUDP(c)
	c.dht = dht.NewServer(dht.Config{
		Key:      sha256.Sum256(append(append([]byte("shoal/1 dht"), f.cfg.Secret[:]...), name...)),
		Rule:     c.rule,
		External: netip.AddrPortFrom(peers.Beacon(0), peers.Port),
	}, c)
	return c
}

// Count counts a refusal.
func (f *Front) Count(r status.Reason) { f.cfg.Counters.Add(r) }

// Refuse counts an announce or a stream that failed with err. What is no refusal
// but a fault of the sidecar's own is logged.
func (f *Front) Refuse(ctx context.Context, err error) {
	err = f.notReady(err)
	why, ok := swarm.Refusal(ctx, err)
	switch {
	case !ok:
	case why == status.Unreachable && !errors.Is(err, swarm.ErrUnreachable):
		f.journal.failed(err)
	default:
		f.cfg.Counters.Add(why)
	}
}

// notReady adds swarm.ErrNotReady to an error while the sidecar is not ready.
func (f *Front) notReady(err error) error {
	if errors.Is(err, swarm.ErrUnreachable) && !errors.Is(err, swarm.ErrConnected) && f.cfg.NotReady() != nil {
		return fmt.Errorf("%w: %w", swarm.ErrNotReady, err)
	}
	return err
}
