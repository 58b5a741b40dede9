// Package uplink is the sidecar's side towards the network: it follows the
// directory, keeps a link to a guard, and knows whether traffic can be carried,
// why not, and which trackers answer.
// Not here: what the circuits are used for (package swarm), and what of it the
// user is shown (package proxy).
package uplink

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/window"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// circuitMemory bounds the windows of all circuits above their floor, in bytes.
const circuitMemory = 256 << 20

// Config is what an Uplink is opened with.
type Config struct {
	Network directory.Network
	State   string     // the sidecar's state folder: its views and guards are here
	Secret  [32]byte   // draws the middle relays
	Hops    int        // own relays on a circuit
	Source  netip.Addr // address to dial guards from; zero: the system's choice
	Direct  bool       // a first start may dial a tracker when there is no entry relay
	Log     *slog.Logger
}

// Uplink is the sidecar's way into the network.
type Uplink struct {
	Keeper   *directory.Keeper
	Chooser  *path.Chooser
	Circuits *circuit.Client

	cfg      Config
	links    *link.Pool
	ready    readiness
	trackers trackers
	journal  *journal

	patience int // owned by Follow's goroutine: rounds that an entry relay may fail

	mu        sync.Mutex
	asked     string // guarded by mu: who was last asked for lists of relays
	linkFault string // guarded by mu: why there was no link, as last logged
	unsaved   error  // guarded by mu: why the guards could not be written
}

// Open reads the directory and the guards. Nothing is dialled before Carry.
func Open(cfg Config) (*Uplink, error) {
	u := &Uplink{cfg: cfg, patience: entryPatience, journal: newJournal(cfg.Log)}
	var err error
	if u.Keeper, err = directory.OpenKeeper(filepath.Join(cfg.State, "views"), cfg.Network, time.Now); err != nil {
		return nil, err
	}
	guards, err := path.LoadGuards(u.guardsFile())
	if err != nil {
		return nil, err
	}
	u.Chooser = path.New(cfg.Network.Rules(), path.NewRand(), guards, path.NewPins(cfg.Secret))
	u.links = &link.Pool{DialTCP: link.DialFrom(cfg.Source), DialTimeout: guardDial, Changed: u.linkChanged}
	u.Circuits = circuit.New(circuit.Config{
		Links: u.links, Chooser: u.Chooser, Relays: u.Keeper.Relays, Step: u.step, Own: cfg.Hops,
		Budget: window.NewBudget(circuitMemory / cell.FrameSize), Hello: directory.Hello, Lost: u.circuitLost,
	})
	return u, nil
}

func (u *Uplink) guardsFile() string { return filepath.Join(u.cfg.State, "guards") }

// Carry keeps the links and follows the directory until ctx ends. All circuits
// are over when it returns.
func (u *Uplink) Carry(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { u.links.Run(ctx) })
	wg.Go(func() { u.Keeper.Follow(ctx, u.Circuits, true, u.nextSource) })
	<-ctx.Done()
	u.Circuits.Close()
}

// Watch finds out whether circuits can be built and whether trackers answer,
// until ctx ends.
func (u *Uplink) Watch(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { u.keepWarm(ctx) })
	wg.Go(func() { u.askTrackers(ctx) })
}

// Now returns the time by the trackers' clocks.
func (u *Uplink) Now() time.Time { return time.Now().Add(u.Keeper.ClockError()) }

func (u *Uplink) step() uint32 { return onion.Step(u.Now()) }

// Warnings returns what the user must act on, one sentence each.
func (u *Uplink) Warnings() (out []string) {
	u.mu.Lock()
	unsaved := u.unsaved
	u.mu.Unlock()
	if unsaved != nil {
		out = append(out, "A restart would draw new guards, since these could not be saved: "+unsaved.Error()+".")
	}
	if behind := u.Keeper.ClockError(); behind > time.Minute {
		out = append(out, "This computer's clock is "+fault.Span(behind)+" behind that of the trackers. Shoal allows for it; set the clock.")
	}
	for _, err := range u.Keeper.Faults() {
		out = append(out, err.Error())
	}
	return out
}
