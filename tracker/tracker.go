// Package tracker is the tracker's program: it keeps sealed records under names
// that it can't read, and says which relays it reaches. It is reached only as
// the last hop of circuits, and takes no part in choosing one.
// Not here: what is in a record (package announce), what a view is (package
// directory), where records are kept (package swarm).
package tracker

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/directory"
	"github.com/shoal-p2p/shoal/tracker/swarm"
)

// Config is what a tracker is started with. State and Listen must be set.
type Config struct {
	State     string         // folder of the keys, the views and the records, made 0700
	Listen    string         // address and port to accept links on
	Advertise netip.AddrPort // where others reach it; zero: where it listens
	Source    netip.Addr     // address to dial relays from; zero: the system's choice

	// Network is read for its test flags and entry relays only: a tracker asks
	// no other.
	Network directory.Network

	Program   string        // version of the program
	Store     swarm.Store   // nil: in memory, with a copy in State
	Interval  time.Duration // between announces; 0 means DefaultInterval
	StampBits int           // what a record must be stamped with; 0: nothing

	Log *slog.Logger // nil: slog.Default
}

// DefaultInterval is what members are told to wait between announces.
const DefaultInterval = 10 * time.Minute

// Tracker is one tracker.
type Tracker struct {
	cfg    Config
	keys   *hop.Keys
	server *hop.Server
	client *circuit.Client
	links  *link.Pool
	ln     net.Listener
	addr   netip.AddrPort
	store  swarm.Store
	memory *swarm.Memory // store, when it is this process's
	book   *book
}

// New opens the state folder and starts to listen; nobody is served before Run.
func New(cfg Config) (*Tracker, error) {
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	t := &Tracker{cfg: cfg}
	var err error
	if t.keys, err = hop.OpenKeys(cfg.State); err != nil {
		return nil, err
	}
	if _, err := t.keys.Rotate(time.Now()); err != nil {
		return nil, err
	}
	if t.store = cfg.Store; t.store == nil {
		if t.memory, err = swarm.Load(t.path("swarms"), swarm.Limits{}, time.Now()); err != nil {
			return nil, err
		}
		t.store = t.memory
	}
	t.links = &link.Pool{DialTCP: link.DialFrom(cfg.Source), DialTimeout: 5 * time.Second}
	t.client = circuit.New(circuit.Config{
		Links:   t.links,
		Chooser: path.New(cfg.Network.Rules(), path.NewRand(), nil, nil),
		Relays:  func() []path.Relay { return nil },
		Step:    step,
		Budget:  link.NewBudget(directory.MaxView / cell.FrameSize),
	})
	if t.server, err = hop.New(hop.Config{
		Identity: t.keys.Identity,
		Key:      t.keys.Get,
		Hello:    t.hello,
		Step:     step,
		Requests: map[byte]func(*hop.Circuit, []byte) ([]byte, error){
			cell.RequestAnnounce: t.announce,
			cell.RequestPublish:  t.publish,
			cell.RequestViews:    t.views,
		},
	}); err != nil {
		return nil, err
	}
	if err := t.keys.LoadReplays(t.server); err != nil {
		return nil, err
	}
	if t.ln, t.addr, err = hop.Listen(cfg.Listen, cfg.Advertise); err != nil {
		return nil, err
	}
	if t.book, err = openBook(t); err != nil {
		t.ln.Close()
		return nil, err
	}
	return t, nil
}

func (t *Tracker) path(name string) string { return filepath.Join(t.cfg.State, name) }

func step() uint32 { return onion.Step(time.Now()) }

// Link returns the tracker link to hand out, with the network's entry relays.
func (t *Tracker) Link() directory.Link {
	return directory.Link{Tracker: directory.Tracker{Key: [32]byte(t.server.ID()), Addr: t.addr}, Entries: t.cfg.Network.Entries}
}

// Close gives up a tracker that was never Run.
func (t *Tracker) Close() error { return errors.Join(t.ln.Close(), t.keys.SaveReplays(t.server)) }

const (
	saveEvery   = 5 * time.Minute
	expireEvery = 20 * time.Second
)

// Run serves until ctx ends, saves, and returns when all it started is over.
func (t *Tracker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { t.links.Run(ctx) })
	wg.Go(func() { t.book.run(ctx) })
	wg.Go(func() { t.keep(ctx) })
	err := t.server.Serve(ctx, t.ln)
	cancel()
	t.client.Close()
	wg.Wait()
	return errors.Join(err, t.save(), t.keys.SaveReplays(t.server))
}

// keep expires records and saves what must survive.
func (t *Tracker) keep(ctx context.Context) {
	expire, save := time.NewTicker(expireEvery), time.NewTicker(saveEvery)
	defer expire.Stop()
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-expire.C:
			for {
				n, err := t.store.Expire(ctx, time.Now())
				if err != nil && ctx.Err() == nil {
					t.cfg.Log.Error("expiring records", "err", err)
				}
				if n == 0 || err != nil {
					break
				}
			}
		case <-save.C:
			if err := t.save(); err != nil {
				t.cfg.Log.Error("saving", "err", err)
			}
		}
	}
}

func (t *Tracker) save() error {
	if t.memory == nil {
		return nil
	}
	return t.memory.Save(t.path("swarms"))
}

// maxNames is how many names one circuit may announce under: a swarm has two
// around the change of its day.
const maxNames = 2

// names are what one announce circuit spoke of.
type names struct {
	mu   sync.Mutex
	seen [maxNames][32]byte // guarded by mu
	n    int                // guarded by mu
}

// allow reports whether a circuit may speak of name too.
func (n *names) allow(name [32]byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.seen[:n.n] {
		if s == name {
			return true
		}
	}
	if n.n == maxNames {
		return false
	}
	n.seen[n.n] = name
	n.n++
	return true
}

// announce answers one member: whom it does not know, for a swarm that it can't name.
func (t *Tracker) announce(c *hop.Circuit, b []byte) ([]byte, error) {
	r, err := announce.ParseRequest(b)
	if err != nil {
		return nil, err
	}
	if !c.Value(func() any { return new(names) }).(*names).allow(r.Name) {
		return nil, errors.New("tracker: a circuit announces one swarm")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	now := time.Now()
	a := &announce.Answer{Status: t.take(ctx, r, now), StampBits: t.cfg.StampBits, Interval: t.cfg.Interval}
	records, counts, err := t.store.Get(ctx, r.Name, r.NumWant, now)
	if err != nil {
		return nil, err
	}
	a.Records, a.Seeders, a.Leechers = records, uint32(counts.Seeders), uint32(counts.Leechers)
	return a.Append(nil), nil
}

// take stores or removes what r brings.
func (t *Tracker) take(ctx context.Context, r *announce.Request, now time.Time) announce.Status {
	switch {
	case r.Withdraw != nil:
		if r.Withdraw.Verify(r.Name) != nil {
			return announce.Invalid
		}
		if t.store.Remove(ctx, r.Name, r.Withdraw.T) != nil {
			return announce.Full
		}
	case r.Outer != nil:
		if t.cfg.StampBits > 0 && !announce.Check(r.Name, r.Outer.T, r.Outer.Stamp, t.cfg.StampBits) {
			return announce.StampNeeded
		}
		if r.Outer.Verify(r.Name, now) != nil {
			return announce.Invalid
		}
		if err := t.store.Put(ctx, r.Name, r.Outer, now); err != nil && !errors.Is(err, swarm.ErrStale) {
			return announce.Full
		}
	}
	return announce.Done
}

// publish takes a relay's descriptor, and has the relay tried.
func (t *Tracker) publish(_ *hop.Circuit, b []byte) ([]byte, error) {
	d, err := directory.ParseDescriptor(b)
	if err != nil {
		return nil, err
	}
	return []byte{byte(t.book.take(d))}, nil
}

// views answers who asks for this tracker's newest view.
func (t *Tracker) views(_ *hop.Circuit, b []byte) ([]byte, error) {
	have, err := directory.ParseHave(b)
	if err != nil {
		return nil, err
	}
	v := t.book.view()
	if v == nil {
		return nil, nil
	}
	for _, h := range have {
		if h.Tracker == v.Tracker() && h.Number >= v.Number {
			return nil, nil
		}
	}
	return directory.AppendView(nil, v.Raw()), nil
}

// hello is the tracker's own descriptor.
func (t *Tracker) hello() []byte {
	d, err := t.book.self()
	if err != nil {
		return nil
	}
	return d.Append(nil)
}

// echoSize is what a tracker has a relay send it to see how fast it is, bytes.
const echoSize = 256 << 10

// try builds a circuit to a relay and has it send something. It returns the
// bytes per second that came.
func (t *Tracker) try(ctx context.Context, d *directory.Descriptor) (rate uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	relay := path.Relay{ID: d.ID, Addr: d.Addrs[0], Key: d.Keys[0], Suite: d.Suite}
	c, err := t.client.Build(ctx, circuit.Want{Use: circuit.ForTracker, Last: relay, Direct: true})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	start := time.Now()
	if _, err := c.Request(ctx, cell.RequestEcho, binary.BigEndian.AppendUint32(nil, echoSize), echoSize+1<<10); err != nil {
		return 0, err
	}
	return uint64(echoSize / max(time.Since(start).Seconds(), 1e-6)), nil
}
