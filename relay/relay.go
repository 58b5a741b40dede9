// Package relay is a volunteer's program: it carries circuits on to the next
// hop, joins circuits that meet here, serves the views of the trackers, and
// tells the trackers that it is there.
// Not here: who uses it, which bytes it carries (nobody here knows), the
// switching of cells (package hop).
package relay

import (
	"context"
	"crypto/ed25519"
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
	Advertise netip.AddrPort // where others reach it; zero: where it listens
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
	addr   netip.AddrPort
	locked *os.File // the state folder's

	mu      sync.Mutex
	hello   []byte        // guarded by mu: the descriptor as published
	rotated chan struct{} // guarded by mu: closes when hello has a new onion key
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
	r := &Relay{cfg: cfg, rotated: make(chan struct{})}
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
	cert, err := link.Certificate(r.keys.Identity)
	if err != nil {
		return nil, err
	}
	limit := link.NewLimit(cfg.Limit)
	r.links = &link.Pool{DialTCP: link.DialFrom(cfg.Source), Certificate: &cert, Limit: limit}
	m := newMeeting(r.verify, window.NewBudget(meetingMemory/cell.FrameSize))
	r.server, err = hop.New(hop.Config{
		Identity: r.keys.Identity,
		Key:      r.keys.Get,
		Hello:    r.descriptor,
		Step:     r.step,
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
		return nil, err
	}
	r.client = circuit.New(circuit.Config{
		Links:   r.links,
		Chooser: path.New(cfg.Network.Rules(), path.NewRand(), nil, nil),
		Relays:  r.keeper.Relays,
		Step:    r.step,
		Budget:  window.NewBudget(directory.MaxView / cell.FrameSize),
		Hello:   directory.Hello,
	})
	if r.ln, r.addr, err = hop.Listen(cfg.Listen, cfg.Advertise); err != nil {
		return nil, err
	}
	if err := r.describe(); err != nil {
		return nil, err
	}
	if err := r.keys.LoadReplays(r.server); err != nil {
		return nil, err
	}
	return r, r.describe() // with the key that may be new
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

// Name makes the keys in cfg.State, if there are none, and returns how network
// files call the relay: ID@ADDR.
func Name(cfg Config) (string, error) {
	keys, err := hop.OpenKeys(cfg.State)
	if err != nil {
		return "", err
	}
	ln, addr, err := hop.Listen(cfg.Listen, cfg.Advertise)
	if err != nil {
		return "", err
	}
	ln.Close()
	return fmt.Sprintf("%v@%v", onion.ID(keys.Identity.Public().(ed25519.PublicKey)), addr), nil
}

// meetingMemory is what stream windows at this meeting point may promise
// above their floor, bytes.
const meetingMemory = 512 << 20

// ID returns the relay's identity.
func (r *Relay) ID() onion.ID { return r.server.ID() }

// Addr returns where others reach it.
func (r *Relay) Addr() netip.AddrPort { return r.addr }

// Counters returns the hop's counters.
func (r *Relay) Counters() *hop.Counters { return &r.server.Counters }

func (r *Relay) step() uint32 { return onion.Step(time.Now().Add(r.keeper.ClockError())) }

func (r *Relay) verify(confirm [32]byte, body []byte) (token [cell.TokenSize]byte, life time.Duration, err error) {
	m, err := announce.ParseRegister(body)
	if err != nil {
		return token, 0, err
	}
	now := time.Now().Add(r.keeper.ClockError())
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
	var wg sync.WaitGroup
	wg.Go(func() { r.links.Run(ctx) })
	wg.Go(func() { r.keeper.Follow(ctx, r.client, false, r.nextTracker) })
	wg.Go(func() { r.keepKeys(ctx) })
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

// descriptor returns what the relay says of itself now.
func (r *Relay) descriptor() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hello
}

func (r *Relay) describe() error {
	d := &directory.Descriptor{
		ID: r.ID(), Published: time.Now().Add(r.keeper.ClockError()).Unix(), Addrs: []netip.AddrPort{r.addr},
		Keys: []onion.PublicKey{r.keys.Current()}, Rate: r.cfg.Rate, Family: r.cfg.Family,
		Contact: r.cfg.Contact, Program: r.cfg.Program,
	}
	if err := d.Sign(r.keys.Identity); err != nil {
		return err
	}
	r.mu.Lock()
	r.hello = d.Append(nil)
	r.mu.Unlock()
	return nil
}

const (
	keysEvery    = time.Minute // between looks whether an onion key has had its day
	describeTime = time.Hour   // how old the descriptor's time may become
)

// keepKeys rotates the onion keys, and keeps the descriptor of now.
func (r *Relay) keepKeys(ctx context.Context) {
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	described := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		fresh, err := r.keys.Rotate(time.Now())
		if fresh || err == nil && time.Since(described) >= describeTime {
			err = errors.Join(err, r.describe())
			described = time.Now()
		}
		if err != nil {
			r.cfg.Log.Error("onion keys", "err", err)
			continue
		}
		if fresh {
			r.cfg.Log.Info("a new onion key, as every day")
			r.mu.Lock()
			close(r.rotated)
			r.rotated = make(chan struct{})
			r.mu.Unlock()
		}
	}
}

const (
	publishEvery   = time.Hour        // to a tracker that reaches this relay
	publishRetry   = 30 * time.Second // to one that does not, or can't be reached
	publishRefused = 10 * time.Minute // to one that takes it not
	publishSoon    = time.Second      // after a tracker took it, until it has tried the relay; then longer
)

// publish tells one tracker of this relay, again when its onion key changes,
// and says whenever it changes whether the tracker reaches it.
func (r *Relay) publish(ctx context.Context, t path.Relay) {
	const unsaid, silent directory.Standing = 0, 255
	said := unsaid
	soon := publishSoon
	for {
		r.mu.Lock()
		rotated := r.rotated
		r.mu.Unlock()
		standing, err := r.tell(ctx, t)
		if ctx.Err() != nil {
			return
		}
		next := publishEvery
		switch {
		case err != nil:
			standing, next = silent, publishRetry
			if said != silent {
				r.cfg.Log.Warn("a tracker could not be told of this relay; trying again", "tracker", t.ID, "every", publishRetry, "err", err)
			}
		case standing == directory.Untested:
			next = soon
			soon = min(2*soon, publishRetry)
		case standing == directory.Unreachable:
			next = publishRetry
		case standing == directory.Rejected:
			next = publishRefused
		}
		if standing != directory.Untested {
			soon = publishSoon
			if said != standing && err == nil {
				r.report(t.ID, standing)
			}
			said = standing
		}
		select {
		case <-ctx.Done():
			return
		case <-rotated:
		case <-time.After(next):
		}
	}
}

func (r *Relay) report(tracker onion.ID, s directory.Standing) {
	switch s {
	case directory.Reachable:
		r.cfg.Log.Info("this relay is reachable from outside", "tracker", tracker)
	case directory.Unreachable:
		r.cfg.Log.Warn("this relay is NOT reachable from outside: open its port in the firewall and router, or set --advertise to the address that others see", "tracker", tracker, "address", r.addr)
	case directory.Rejected:
		r.cfg.Log.Error("the tracker does not take this relay: its address is not public, or this clock is wrong", "tracker", tracker, "address", r.addr)
	}
}

func (r *Relay) tell(ctx context.Context, t path.Relay) (directory.Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, answer, err := r.client.Request(ctx, circuit.Want{Use: circuit.ForTracker, Last: t, Direct: true},
		cell.RequestPublish, r.descriptor(), 16)
	if c != nil {
		defer c.Close()
	}
	if err != nil {
		return 0, err
	}
	return directory.ParseStanding(answer)
}
