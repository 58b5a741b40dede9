// Package proxy is the sidecar beside a torrent client. It wires together the
// packages below it, and starts and ends them: the doors (socks, confined) by
// which clients come, the front that serves them, the swarms, and the uplink to
// the network.
// Not here: what any of these does.
package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/circuit/window"
	"github.com/shoal-p2p/shoal/proxy/authority"
	"github.com/shoal-p2p/shoal/proxy/confined"
	"github.com/shoal-p2p/shoal/proxy/front"
	"github.com/shoal-p2p/shoal/proxy/memory"
	"github.com/shoal-p2p/shoal/proxy/socks"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
	"github.com/shoal-p2p/shoal/proxy/uplink"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// Config is what a sidecar is started with. Network and State must be set.
type Config struct {
	Network  directory.Network
	State    string     // folder of keys, guards and stand-ins, made 0700
	SOCKS    string     // where torrent clients connect; "" means DefaultSOCKS
	Password string     // of every SOCKS user; needed where others can reach the address
	Status   string     // where the status page is; "" means DefaultStatus
	Hops     int        // own relays on a circuit; see DefaultHops
	Source   netip.Addr // address to dial guards from; zero: the system's choice

	// NoSOCKS leaves the SOCKS address out, for Command.
	NoSOCKS bool

	// Strict refuses a client whose peers don't go through the proxy, instead of warning.
	Strict bool

	// BootstrapDirect lets a first start dial a tracker when the network names
	// no entry relay. The tracker then sees this computer's address.
	BootstrapDirect bool

	Program string // version of the program, for the status page

	Log *slog.Logger // nil: slog.Default
}

// ErrUsage is what New's error wraps when a setting can't be: the program exits
// with 2 then.
var ErrUsage = errors.New("wrong setting")

// The defaults.
const (
	DefaultSOCKS  = "127.0.0.1:1080"
	DefaultStatus = "127.0.0.1:1081"
	DefaultHops   = 2
)

const (
	streamMemory = 256 << 20 // all windows of streams, bytes

	// testPace is the pace of starts where nobody is hidden: two thousand
	// torrents take two minutes instead of twenty.
	testPace = swarm.DefaultPace / 10
)

// Sidecar is one sidecar.
type Sidecar struct {
	cfg      Config
	up       *uplink.Uplink
	swarms   *swarm.Net
	front    *front.Front
	confined *confined.Door // of a Command
	socks    *socks.Server
	tls      *authority.Authority
	counters status.Counters
	secret   [32]byte

	socksLn, statusLn net.Listener
	locked            *os.File
}

// complete sets the defaults, and returns an error for what can't be.
func (cfg *Config) complete() error {
	if cfg.SOCKS == "" {
		cfg.SOCKS = DefaultSOCKS
	}
	if cfg.Status == "" {
		cfg.Status = DefaultStatus
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if err := cfg.Network.Check(); err != nil {
		return err
	}
	if len(cfg.Network.Entries) == 0 && !cfg.BootstrapDirect {
		return errors.New("the network names no entry relay, where a sidecar enters: a link without any is for relays. Ask the tracker's operator for the link that shoal-tracker --print-link prints once relays have joined; or set --bootstrap-direct, and the first start dials a tracker, which then sees this computer's address")
	}
	if cfg.Hops < 0 || cfg.Hops > path.MaxOwn || cfg.Hops == 0 && !cfg.Network.Test {
		return fmt.Errorf("%w: --hops %d: want 1 to %d own relays (0 in a test network only)", ErrUsage, cfg.Hops, path.MaxOwn)
	}
	return nil
}

// New opens the state folder and listens; nothing is dialled before Run.
func New(cfg Config) (*Sidecar, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	p := &Sidecar{cfg: cfg}
	var err error
	if p.locked, err = state.Lock(cfg.State); err != nil {
		return nil, err
	}
	opened := false
	defer func() {
		if !opened {
			p.locked.Close()
		}
	}()
	if err := state.MakeDir(p.path("clients")); err != nil {
		return nil, err
	}
	if p.secret, err = secretFile(p.path("secret")); err != nil {
		return nil, err
	}
	if p.up, err = uplink.Open(uplink.Config{
		Network: cfg.Network, State: cfg.State, Secret: p.secret, Hops: cfg.Hops, Source: cfg.Source, Direct: cfg.BootstrapDirect, Log: cfg.Log,
	}); err != nil {
		return nil, err
	}
	if cfg.NoSOCKS { // a client of one session, that is handed the certificate
		p.tls, err = authority.New()
	} else {
		p.tls, err = authority.Open(p.path("authority"))
	}
	if err != nil {
		return nil, err
	}
	m, back, gone, err := openMemory(cfg)
	if err != nil {
		return nil, err
	}
	p.wire(m, back, gone)
	if !cfg.NoSOCKS {
		if p.socksLn, err = socks.Listen(cfg.SOCKS, cfg.Password); err != nil {
			return nil, err
		}
	}
	if p.statusLn, err = status.Listen(cfg.Status); err != nil {
		if p.socksLn != nil {
			p.socksLn.Close()
		}
		return nil, fmt.Errorf("status page: %w", err)
	}
	opened = true
	return p, nil
}

// wire makes the swarms, the front and its doors. m remembers clients for the
// next run; of an earlier one back are to be taken back, and gone are over.
func (p *Sidecar) wire(m *memory.Memory, back, gone []memory.Client) {
	pace := swarm.DefaultPace
	if p.cfg.Network.Test {
		pace = testPace
	}
	p.swarms = swarm.New(swarm.Config{
		State: p.path("clients"), Circuits: p.up.Circuits, Chooser: p.up.Chooser, Relays: p.up.Keeper.Relays, Relay: p.up.Keeper.Relay,
		Trackers: p.up.Trackers, Heard: p.up.Heard, Budget: window.NewBudget(streamMemory), Now: p.up.Now, Pace: pace,
	})
	p.front = front.New(front.Config{
		Secret: p.secret, Strict: p.cfg.Strict, Swarms: p.swarms, TLS: p.tls, Counters: &p.counters, NotReady: p.up.Why, Log: p.cfg.Log,
		Door: p.door, Await: func(ctx context.Context, c swarm.Client) { p.socks.Await(ctx, c) },
		Memory: m, Back: back, Gone: gone,
	})
	learned := func(k socks.Known) { m.Heard(k.Client, k.UDP, k.Owner) }
	p.socks = socks.New(socks.Config{Password: p.cfg.Password, Count: p.counters.Add, Earlier: known(back), Learned: learned}, handler{p.front})
	p.confined = confined.New(p.front, p.up.Why)
}

func (p *Sidecar) path(name string) string { return filepath.Join(p.cfg.State, name) }

var secretKind = &state.Kind{
	Name: "secret", Version: 1, Limit: 32, Policy: state.Erase, What: "the sidecar's secret",
	Lost: "every peer gets a new address in the clients, those that they remember lead to nobody, and new middle relays are drawn",
}

// secretFile returns the 32 bytes in file, made when missing or damaged.
func secretFile(file string) (secret [32]byte, err error) {
	found, err := secretKind.Load(file, func(b []byte) error {
		if len(b) != len(secret) {
			return fmt.Errorf("it holds %d bytes, want %d", len(b), len(secret))
		}
		secret = [32]byte(b)
		return nil
	})
	if err != nil || found {
		return secret, err
	}
	rand.Read(secret[:])
	return secret, secretKind.Save(file, secret[:])
}

// SOCKS returns the address that clients are to use.
func (p *Sidecar) SOCKS() net.Addr { return p.socksLn.Addr() }

// StatusURL returns where the status page is.
func (p *Sidecar) StatusURL() string { return "http://" + p.statusLn.Addr().String() }

// Run serves until ctx ends, and returns when all it started is over.
func (p *Sidecar) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	// What carries traffic outlives what makes it, so that records can be withdrawn.
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	var lower, upper sync.WaitGroup
	lower.Go(func() { p.up.Carry(below) })

	defer p.locked.Close()
	errs := make(chan error, 4)
	run := func(f func() error) {
		upper.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				errs <- err
				cancel()
			}
		})
	}
	run(func() error { p.up.Watch(ctx); return nil })
	run(func() error { p.swarms.Run(ctx); return nil })
	run(func() error { p.front.Run(ctx); return nil })
	run(func() error { return status.NewServer(source{p}, &p.counters).Run(ctx, p.statusLn) })
	if p.socksLn != nil {
		run(func() error { return p.socks.Serve(ctx, p.socksLn) })
	}
	upper.Wait()
	p.front.Close()
	stop()
	lower.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// source is what the status page shows.
type source struct{ *Sidecar }

// Status implements status.Source.
func (p source) Status() status.Status {
	s := status.Status{Version: p.cfg.Program, Ready: true, Hops: p.cfg.Hops}
	s.Warnings = p.counters.Advice(time.Now())
	s.Warnings = append(s.Warnings, p.front.Warnings()...)
	if p.confined.Silent() {
		s.Warnings = append(s.Warnings, "The client has announced no torrent and dialled no peer. If it has torrents that run, it may be set to use a network interface or address that does not exist under shoal run.")
	}
	if why := p.up.Why(); why != nil {
		s.Ready, s.Why, s.Cause, s.Advice = false, why.Text(), string(why.Cause), why.Advice
	} else if t := p.cfg.Network.Trusts(); t != "" {
		s.Why = fault.Sentence(t)
	}
	n := p.up.Tally()
	s.Trackers = status.Trackers{All: n.All, Asked: n.Asked, Answer: n.Answer}
	s.Warnings = append(s.Warnings, p.up.Warnings()...)
	for _, c := range p.up.Circuits.Circuits() {
		s.Circuits = append(s.Circuits, status.Circuit{Use: string(c.Use()), Hops: c.Hops(), State: "open"})
	}
	s.Streams, s.BytesIn, s.BytesOut = p.swarms.Streams()
	return s
}
