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
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/seldom"
	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/circuit/window"
	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/directory"
	"github.com/shoal-p2p/shoal/tracker/swarm"
)

// Config is what a tracker is started with. State and Listen must be set.
type Config struct {
	State     string         // folder of the keys, the views and the records, made 0700
	Listen    string         // address and port to accept links on
	Advertise netip.AddrPort // where others reach it; an address or port left out is found out
	Source    netip.Addr     // address to dial relays from; zero: the system's choice

	// Network is read for its kind and its entry relays only: a tracker asks no
	// other.
	Network directory.Network

	Program   string        // version of the program
	Redis     string        // redis://…: where records are kept; empty: in memory, with a copy in State
	Interval  time.Duration // between announces; 0 means DefaultInterval, at most announce.MaxInterval
	StampBits int           // what a record must be stamped with, at most announce.MaxStampBits; 0: nothing

	// Linked is called once, from a goroutine of Run, with the first link that
	// sidecars can use: at the start, or when enough relays have been reached.
	Linked func(directory.Link)

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
	found  hop.Found // where others reach it
	store  swarm.Store
	memory *swarm.Memory // store, when it is this process's
	redis  *redis.Client // of store, when it is not
	book   *book
	locked *os.File // the state folder's

	saved   string // owned by book.run: the link in the state folder
	linked  bool   // owned by book.run: Config.Linked was called
	reached int    // owned by book.run: entry relays logged

	often seldom.Log
}

// New opens the state folder and starts to listen; nobody is served before Run.
// One process at a time may do so: another gets state.ErrInUse.
func New(cfg Config) (_ *Tracker, err error) {
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	switch {
	case cfg.Interval < time.Second || cfg.Interval > announce.MaxInterval:
		return nil, fmt.Errorf("tracker: interval %v, want 1s to %v", cfg.Interval, announce.MaxInterval)
	case cfg.StampBits < 0 || cfg.StampBits > announce.MaxStampBits:
		return nil, fmt.Errorf("tracker: stamp of %d bits, want 0 to %d", cfg.StampBits, announce.MaxStampBits)
	}
	t := &Tracker{cfg: cfg}
	if t.locked, err = state.Lock(cfg.State); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			t.release()
		}
	}()
	if t.keys, err = hop.OpenKeys(cfg.State); err != nil {
		return nil, err
	}
	if _, err := t.keys.Rotate(time.Now()); err != nil {
		return nil, err
	}
	t.links = &link.Pool{DialTCP: link.DialFrom(cfg.Source), DialTimeout: 5 * time.Second}
	t.client = circuit.New(circuit.Config{
		Links:   t.links,
		Chooser: path.New(cfg.Network.Rules(), path.NewRand(), nil, nil),
		Relays:  func() []path.Relay { return nil },
		Step:    step,
		Budget:  window.NewBudget(directory.MaxView / cell.FrameSize),
	})
	if t.server, err = hop.New(hop.Config{
		Identity: t.keys.Identity,
		Key:      t.keys.Get,
		Hello:    t.hello,
		Now:      time.Now,
		Requests: map[byte]func(*hop.Circuit, []byte) ([]byte, error){
			cell.RequestAnnounce: t.announce,
			cell.RequestPublish:  t.publish,
			cell.RequestViews:    t.views,
		},
	}); err != nil {
		return nil, err
	}
	if err := t.openStore(); err != nil {
		return nil, err
	}
	if t.ln, t.found, err = listen(cfg); err != nil {
		return nil, err
	}
	if t.book, err = openBook(t); err != nil {
		return nil, err
	}
	return t, t.keys.LoadReplays(t.server)
}

// openStore opens where records are kept.
func (t *Tracker) openStore() (err error) {
	if t.cfg.Redis == "" {
		if t.memory, err = swarm.Load(t.path("swarms"), swarm.Limits{}, time.Now()); err != nil {
			return err
		}
		t.store = t.memory
		return nil
	}
	options, err := redis.ParseURL(t.cfg.Redis)
	if err != nil { // which may hold the URL, and that a password
		return errors.New("redis: the address is not of the form redis://USER:PASSWORD@HOST:PORT/NUMBER")
	}
	redis.SetLogger(quiet{})
	t.redis = redis.NewClient(options)
	prefix := "shoal:" + t.server.ID().String() + ":"
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	store := swarm.NewRedis(t.redis, prefix, swarm.Limits{})
	if _, _, err := store.Get(ctx, nil, [32]byte{}, 1, time.Now()); err != nil {
		return fmt.Errorf("redis: the server can't be reached, or is older than 6.2: %w", err)
	}
	t.store = store
	return nil
}

// quiet keeps the Redis client from writing logs of its own: it returns what it says.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// release gives up what New took but for the keys, which stay as they are.
func (t *Tracker) release() {
	if t.ln != nil {
		t.ln.Close()
	}
	if t.redis != nil {
		t.redis.Close()
	}
	t.locked.Close()
}

func (t *Tracker) path(name string) string { return filepath.Join(t.cfg.State, name) }

func step() uint32 { return onion.Step(time.Now()) }

// Where returns where others reach the tracker.
func (t *Tracker) Where() hop.Found { return t.found }

// Close gives up a tracker that was never Run.
func (t *Tracker) Close() error {
	defer t.release()
	return t.keys.SaveReplays(t.server)
}

const (
	saveEvery   = 5 * time.Minute
	expireEvery = 20 * time.Second
)

// Run serves until ctx ends, saves, and returns when all it started is over.
func (t *Tracker) Run(ctx context.Context) error {
	defer t.release()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { t.links.Run(ctx) })
	wg.Go(func() { t.book.run(ctx) })
	wg.Go(func() { t.keep(ctx) })
	wg.Go(func() { t.often.Run(ctx) })
	err := t.server.Serve(ctx, t.ln)
	cancel()
	wg.Wait()
	t.client.Close()
	return errors.Join(err, t.save(), t.keys.SaveReplays(t.server))
}

// keep rotates onion keys, expires records and saves what must survive.
func (t *Tracker) keep(ctx context.Context) {
	expire, save := time.NewTicker(expireEvery), time.NewTicker(saveEvery)
	defer expire.Stop()
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-expire.C:
			if _, err := t.keys.Rotate(time.Now()); err != nil {
				t.often.Note("keys", func(uint64) {
					t.cfg.Log.Error("the onion key could not be renewed; circuits to this tracker fail when it is too old", "err", err)
				})
			}
			for {
				n, err := t.store.Expire(ctx, time.Now())
				if err != nil && ctx.Err() == nil {
					t.failed("expired", err)
				}
				if n == 0 || err != nil {
					break
				}
			}
		case <-save.C:
			if err := t.save(); err != nil {
				t.cfg.Log.Error("the records could not be saved; without that a restart loses those of the last minutes", "err", err)
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

// announce answers one member: whom it does not know, for a swarm that it can't name.
func (t *Tracker) announce(c *hop.Circuit, b []byte) ([]byte, error) {
	r, err := announce.ParseRequest(b)
	if err != nil {
		return nil, err
	}
	if err := visitorOf(c).announces(r, time.Now()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	now := time.Now()
	a := &announce.Answer{Status: t.take(ctx, r, now), StampBits: t.cfg.StampBits, Interval: t.cfg.Interval}
	answer, counts, err := t.store.Get(ctx, make([]byte, announce.AnswerHeader), r.Name, r.NumWant, now)
	if err != nil {
		t.failed("read", err)
		return nil, err
	}
	a.Seeders, a.Leechers = uint32(counts.Seeders), uint32(counts.Leechers)
	a.PutHeader(answer)
	return answer, nil
}

// failed logs that records could not be kept, at once and then seldom.
func (t *Tracker) failed(what string, err error) {
	if errors.Is(err, swarm.ErrFull) {
		t.often.Note("full", func(times uint64) {
			t.cfg.Log.Warn("announces were refused: the store of records, or the part of one swarm, is full", "times", times)
		})
		return
	}
	t.often.Note(what, func(times uint64) {
		t.cfg.Log.Error("records could not be "+what, "times", times, "err", err)
	})
}

// take stores or removes what r brings.
func (t *Tracker) take(ctx context.Context, r *announce.Request, now time.Time) announce.Status {
	switch {
	case r.Withdraw != nil:
		if r.Withdraw.Verify(r.Name) != nil {
			return announce.Invalid
		}
		if err := t.store.Remove(ctx, r.Name, r.Withdraw.T); err != nil {
			t.failed("removed", err)
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
			t.failed("taken", err)
			return announce.Full
		}
	}
	return announce.Done
}

// publish takes a relay's descriptor, has the relay tried, and tells it where it
// was seen.
func (t *Tracker) publish(c *hop.Circuit, b []byte) ([]byte, error) {
	d, err := directory.ParseDescriptor(b)
	if err != nil {
		return nil, err
	}
	if err := visitorOf(c).publishes(d.ID); err != nil {
		return nil, err
	}
	p := directory.Published{Standing: t.book.take(d)}
	if id, from := c.Neighbour(); id == d.ID {
		p.Seen = from
	}
	return p.Append(nil), nil
}

// views answers who asks for this tracker's newest view.
func (t *Tracker) views(_ *hop.Circuit, b []byte) ([]byte, error) {
	have, err := directory.ParseHave(b)
	if err != nil {
		return nil, err
	}
	v, answer := t.book.view()
	if v == nil {
		return nil, nil
	}
	for _, h := range have {
		if h.Tracker == v.Tracker() && h.Number >= v.Number {
			return nil, nil
		}
	}
	return answer, nil
}

// hello is the tracker's own descriptor.
func (t *Tracker) hello() []byte {
	d, err := t.book.self()
	if err != nil {
		return nil
	}
	return d.Append(nil)
}

const (
	echoSize  = 256 << 10 // what a tracker has a relay send it to see how fast it is, bytes
	echoTimes = 2         // windows are small on a fresh circuit: the better one counts
)

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
	for range echoTimes {
		start := time.Now()
		got, err := c.Request(ctx, cell.RequestEcho, binary.BigEndian.AppendUint32(nil, echoSize), echoSize)
		if err == nil && len(got) != echoSize {
			err = fmt.Errorf("tracker: echo of %d bytes, asked for %d", len(got), echoSize)
		}
		if err != nil {
			return 0, err
		}
		rate = max(rate, uint64(echoSize/max(time.Since(start).Seconds(), 1e-6)))
	}
	return rate, nil
}
