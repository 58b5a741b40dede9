package swarm

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/window"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

// Config is what memberships are made of; all fields must be set but the last three.
type Config struct {
	State    string // folder of the secrets
	Circuits *circuit.Client
	Chooser  *path.Chooser
	Relays   func() []path.Relay               // the directory as it is now
	Relay    func(onion.ID) (path.Relay, bool) // one of it
	Trackers func() []path.Relay               // the trackers, as last hops
	Budget   *window.Budget                    // the windows of all streams
	Now      func() time.Time                  // the network's time
	Heard    func(tracker onion.ID, err error) // told how each request to a tracker ended; may be nil
	Meetings int                               // meeting relays per membership; 0 means 2
	Pace     time.Duration                     // between starts; 0 means DefaultPace
}

// Net is the Network of a sidecar. Run must be running for memberships to live.
type Net struct {
	cfg Config

	mu      sync.Mutex
	ctx     context.Context // guarded by mu: Run's
	secrets map[Client]*announce.Secret
	members map[memberID]*member // guarded by mu: the newest of each
	alive   int                  // guarded by mu: members, also those that are leaving
	closing bool                 // guarded by mu: nobody joins any more
	unsaved bool                 // guarded by mu: the last write of a secret failed, and was logged
	wg      sync.WaitGroup
	starts  *rate.Limiter

	open    atomic.Int64
	in, out atomic.Uint64

	pace  time.Duration // of gossip
	again time.Duration // see askAgain
}

type memberID struct {
	client Client
	hash   Hash
}

// The bounds of one sidecar.
const (
	maxMembers = 4096
	maxClients = 256

	// startBurst is how many starts, first announces of a membership, need no
	// pace: they are what a user watches.
	startBurst = 16
)

// DefaultPace is the time between starts: they follow one by one, so that fifty
// torrents are not one person.
const DefaultPace = 600 * time.Millisecond

// New returns a network; nothing happens before Run.
func New(cfg Config) *Net {
	if cfg.Meetings == 0 {
		cfg.Meetings = 2
	}
	if cfg.Heard == nil {
		cfg.Heard = func(onion.ID, error) {}
	}
	if cfg.Pace == 0 {
		cfg.Pace = DefaultPace
	}
	return &Net{
		cfg:     cfg,
		secrets: make(map[Client]*announce.Secret),
		members: make(map[memberID]*member),
		starts:  rate.NewLimiter(rate.Every(cfg.Pace), startBurst),
		pace:    gossipPace,
		again:   askAgain,
	}
}

// Run keeps memberships until ctx ends, then withdraws them within a short
// time, and returns when all is over.
func (n *Net) Run(ctx context.Context) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	n.mu.Lock()
	n.ctx = life
	n.mu.Unlock()
	week := time.NewTicker(time.Minute)
	defer week.Stop()
	for over := false; !over; {
		select {
		case <-ctx.Done():
			over = true
		case <-week.C:
			n.mu.Lock()
			for _, s := range n.secrets {
				n.keep(s)
			}
			n.mu.Unlock()
		}
	}
	n.mu.Lock()
	n.closing = true
	n.mu.Unlock()
	var leaving sync.WaitGroup
	for _, m := range n.all() {
		leaving.Go(func() { <-m.Leave() })
	}
	leaving.Wait()
	cancel()
	n.wg.Wait()
}

// keep moves a secret to the present week, erases what is over and writes its
// file. A disk that is full keeps nobody from sharing: it is tried again every
// minute. Memberships follow, see turnWeek. Caller holds mu.
func (n *Net) keep(s *announce.Secret) {
	err := s.Keep(n.cfg.Now())
	if err != nil && !n.unsaved {
		slog.Error("a client's secret is not saved", "err", err)
	}
	n.unsaved = err != nil
}

func (n *Net) all() []*member {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*member
	for _, m := range n.members {
		out = append(out, m)
	}
	return out
}

// Join implements Network.
func (n *Net) Join(c Client, h Hash) (Swarm, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx == nil || n.closing {
		return nil, ErrNotReady
	}
	id := memberID{c, h}
	before := n.members[id]
	if before != nil && !before.leaving() {
		return before, nil
	}
	if n.alive >= maxMembers {
		return nil, fmt.Errorf("swarm: %w: %d torrents are running, at most %d", ErrLimit, n.alive, maxMembers)
	}
	secret := n.secrets[c]
	if secret == nil {
		if len(n.secrets) >= maxClients {
			return nil, fmt.Errorf("swarm: %w: %d clients use this sidecar, at most %d", ErrLimit, len(n.secrets), maxClients)
		}
		var err error
		if secret, err = announce.LoadSecret(n.cfg.State, string(c), n.cfg.Now()); err != nil {
			return nil, err
		}
		n.secrets[c] = secret
	}
	n.keep(secret)
	m := newMember(n, id, secret)
	if before != nil {
		m.sequence = before.lastSequence() // peers may have its last record still
	}
	n.members[id] = m
	n.alive++
	n.wg.Go(func() { m.run(before) })
	return m, nil
}

// Members implements Network.
func (n *Net) Members(c Client) []Swarm {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Swarm
	for id, m := range n.members {
		if id.client == c {
			out = append(out, m)
		}
	}
	return out
}

// Counts returns how many seeders and leechers c was last told of in h: zeros
// where it is no member.
func (n *Net) Counts(c Client, h Hash) (seeders, leechers int) {
	n.mu.Lock()
	m := n.members[memberID{c, h}]
	n.mu.Unlock()
	if m == nil {
		return 0, 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return int(m.seeds), int(m.leeches)
}

// Streams returns how many streams are open, and the bytes read from and
// written to streams since the start.
func (n *Net) Streams() (open int, in, out uint64) {
	return int(n.open.Load()), n.in.Load(), n.out.Load()
}

func (n *Net) forget(m *member) {
	n.mu.Lock()
	n.alive--
	if n.members[m.id] == m {
		delete(n.members, m.id)
	}
	n.mu.Unlock()
}

// pathKey is what a membership's circuits are isolated by.
func pathKey(m *announce.Member) path.Key {
	k := m.StreamKey()
	return path.Key(sha256.Sum256(append([]byte("shoal/1 circuits of a swarm"), k[:]...)))
}
