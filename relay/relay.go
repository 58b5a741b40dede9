// Package relay is a volunteer's program: it carries circuits on to the next
// hop, joins circuits that meet here, serves the views of the trackers, and
// tells the trackers that it is there.
// Not here: who uses it, which bytes it carries (nobody here knows), the
// switching of cells (package hop).
package relay

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
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/circuit/window"
	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// Config is what a relay is started with. Network, State and Listen must be set.
type Config struct {
	Network   directory.Network
	State     string         // folder of the keys and views, made 0700
	Listen    string         // address and port to accept links on
	Advertise netip.AddrPort // where others reach it; an address or port left out is found out
	Source    netip.Addr     // address to dial from; zero: the system's choice

	Rate    uint64     // bytes a second that it offers; 0 means 12.5 MB/s, or Limit when that is less
	Limit   uint64     // bytes a second that it sends at most, over all links; 0: no limit
	Contact string     // how to reach its owner, shown in the directory
	Family  []onion.ID // relays of the same owner
	Program string     // version of the program

	Log *slog.Logger // nil: slog.Default
}

// DefaultRate is what a relay offers that says nothing else, bytes per second.
const DefaultRate = 12_500_000

// Relay is one relay. Its counters may be read while it runs.
type Relay struct {
	cfg    Config
	keys   *hop.Keys
	keeper *directory.Keeper
	server *hop.Server
	client *circuit.Client
	links  *link.Pool
	ln     net.Listener
	locked *os.File // the state folder's

	mu    sync.Mutex
	hello []byte                  // guarded by mu: the descriptor as published
	renew chan struct{}           // guarded by mu: closes when trackers are to be told at once
	place hop.Place               // guarded by mu; Seen is kept in seen
	seen  map[onion.ID]netip.Addr // guarded by mu: where each tracker last saw this relay; in memory only
	found hop.Found               // guarded by mu: where others reach it
	moved time.Time               // guarded by mu: when that last changed
}

// New opens the state folder and starts to listen; nobody is served before Run.
// One process at a time may do so: another gets state.ErrInUse.
func New(cfg Config) (_ *Relay, err error) {
	if cfg.Rate == 0 {
		cfg.Rate = DefaultRate
	}
	if cfg.Limit > 0 {
		cfg.Rate = min(cfg.Rate, cfg.Limit)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if err := cfg.Network.Check(); err != nil {
		return nil, err
	}
	r := &Relay{cfg: cfg, renew: make(chan struct{}), seen: make(map[onion.ID]netip.Addr)}
	if r.locked, err = state.Lock(cfg.State); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.release()
		}
	}()
	if r.keys, err = hop.OpenKeys(cfg.State); err != nil {
		return nil, err
	}
	if _, err := r.keys.Rotate(time.Now()); err != nil {
		return nil, err
	}
	if r.keeper, err = directory.OpenKeeper(filepath.Join(cfg.State, "views"), cfg.Network, time.Now); err != nil {
		return nil, err
	}
	if err := r.connect(); err != nil {
		return nil, err
	}
	r.place = place(cfg)
	if r.ln, r.place.Listen, err = hop.Listen(cfg.Listen); err != nil {
		return nil, err
	}
	r.found = r.place.Find()
	if err := r.describe(); err != nil {
		return nil, err
	}
	if err := r.keys.LoadReplays(r.server); err != nil {
		return nil, err
	}
	return r, r.describe() // with the key that may be new
}

// connect makes what carries circuits: links, the server for those of others, and
// the client for the relay's own.
func (r *Relay) connect() error {
	cert, err := link.Certificate(r.keys.Identity)
	if err != nil {
		return err
	}
	limit := link.NewLimit(r.cfg.Limit)
	r.links = &link.Pool{DialTCP: link.DialFrom(r.cfg.Source), Certificate: &cert, Limit: limit, Changed: r.linkChanged}
	m := newMeeting(r.verify, window.NewBudget(meetingMemory/cell.FrameSize))
	r.server, err = hop.New(hop.Config{
		Identity: r.keys.Identity,
		Key:      r.keys.Get,
		Hello:    r.descriptor,
		Now:      r.now,
		Next:     r.keeper.Lookup,
		Known:    func(id onion.ID) bool { _, ok := r.keeper.Lookup(id); return ok },
		Last:     m.Last,
		Links:    r.links,
		Limit:    limit,
		Requests: map[byte]func(*hop.Circuit, []byte) ([]byte, error){
			cell.RequestViews: func(_ *hop.Circuit, b []byte) ([]byte, error) { return r.keeper.Answer(b) },
			cell.RequestEcho:  func(_ *hop.Circuit, b []byte) ([]byte, error) { return Echo(b) },
		},
	})
	if err != nil {
		return err
	}
	r.client = circuit.New(circuit.Config{
		Links:   r.links,
		Chooser: path.New(r.cfg.Network.Rules(), path.NewRand(), nil, nil),
		Relays:  r.keeper.Relays,
		Step:    r.step,
		Budget:  window.NewBudget(directory.MaxView / cell.FrameSize),
		Hello:   directory.Hello,
	})
	return nil
}

// release gives up what New took but for the keys, which stay as they are.
func (r *Relay) release() {
	if r.ln != nil {
		r.ln.Close()
	}
	r.locked.Close()
}

// Close gives up a relay that was never Run.
func (r *Relay) Close() error {
	defer r.release()
	return r.keys.SaveReplays(r.server)
}

// meetingMemory is what stream windows at this meeting point may promise
// above their floor, bytes.
const meetingMemory = 512 << 20

// ID returns the relay's identity.
func (r *Relay) ID() onion.ID { return r.server.ID() }

// Where returns where others reach it, as far as is known.
func (r *Relay) Where() hop.Found {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.found
}

// Counters returns the hop's counters.
func (r *Relay) Counters() *hop.Counters { return &r.server.Counters }

func (r *Relay) now() time.Time { return time.Now().Add(r.keeper.ClockError()) }

func (r *Relay) step() uint32 { return onion.Step(r.now()) }

func (r *Relay) verify(confirm [32]byte, body []byte) (token [cell.TokenSize]byte, life time.Duration, err error) {
	m, err := announce.ParseRegister(body)
	if err != nil {
		return token, 0, err
	}
	now := r.now()
	token, err = announce.VerifyRegister(m, r.ID(), confirm, now)
	return token, announce.RegistrationEnds(m.Day).Sub(now), err
}

// Echo answers RequestEcho: as many zero bytes as asked for, not to be changed.
func Echo(b []byte) ([]byte, error) {
	if len(b) != 4 {
		return nil, errors.New("relay: an echo request has four bytes")
	}
	n := binary.BigEndian.Uint32(b)
	if n > cell.MaxEcho {
		return nil, fmt.Errorf("relay: echo of %d bytes, at most %d", n, cell.MaxEcho)
	}
	return zeros[:n], nil
}

// zeros is what echoes are made of: answers are only read.
var zeros [cell.MaxEcho]byte

// Run serves until ctx ends, and returns when all it started is over.
func (r *Relay) Run(ctx context.Context) error {
	defer r.release()
	ctx, cancel := context.WithCancel(ctx)
	r.sayWhere()
	var wg sync.WaitGroup
	wg.Go(func() { r.links.Run(ctx) })
	wg.Go(func() { r.keeper.Follow(ctx, r.client, false, r.nextTracker) })
	wg.Go(func() { r.keepDescriptor(ctx) })
	wg.Go(func() { r.summarise(ctx) })
	for _, t := range r.trackers() {
		wg.Go(func() { r.publish(ctx, t) })
	}
	err := r.server.Serve(ctx, r.ln)
	cancel()
	wg.Wait()
	r.client.Close()
	return errors.Join(err, r.keys.SaveReplays(r.server))
}

// trackers returns the network's trackers as neighbours: address and identity.
func (r *Relay) trackers() (out []path.Relay) {
	for _, t := range r.cfg.Network.Trackers {
		out = append(out, path.Relay{ID: onion.ID(t.Key), Addr: t.Addr})
	}
	return out
}

// nextTracker returns a tracker that is not among asked: each knows its own views alone.
func (r *Relay) nextTracker(asked []onion.ID) (path.Relay, bool) {
	for _, t := range r.trackers() {
		if !slices.Contains(asked, t.ID) {
			return t, true
		}
	}
	return path.Relay{}, false
}
