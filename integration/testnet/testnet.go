// Package testnet starts a whole network on this machine: trackers, relays and
// sidecars as separate processes of the real programs, each listening on and
// dialling from an address of its own.
// Not here: torrent clients (package clients), what is expected of the network
// (the tests).
//
// Tracker N is at 127.1.0.N, relay N at 127.2.N.1, sidecar N dials from
// 127.3.N.1, and its SOCKS and status addresses are at 127.0.0.1. Where only
// 127.0.0.1 is an address of loopback (macOS, Windows) all are there. A second
// network on the same machine has a Block of its own: 127.21, 127.22, 127.23.
package testnet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/integration/delay"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// MaxBlock is the greatest Block.
const MaxBlock = 11

// MaxMembers bounds each kind: the number is a byte of an address.
const MaxMembers = 250

const (
	// DefaultReady is how long a network may take to carry traffic.
	DefaultReady = time.Minute

	// DefaultViewEvery is how soon a relay that starts or ends is noticed.
	DefaultViewEvery = time.Second

	// DefaultSettle is how long sidecars wait for the last relay.
	DefaultSettle = 15 * time.Second
)

// The kinds of error that Check returns.
var (
	ErrTooFewRelays = errors.New("too few relays")
	ErrUsage        = errors.New("no such network")
)

// Config says what to start.
type Config struct {
	Trackers, Relays, Sidecars int

	// Hops are the own relays of each sidecar's circuits; the last number
	// holds for all further sidecars. None: the program's default.
	Hops []int

	LinkDelay time.Duration // one way, on every link; 0: none
	State     string        // folder for keys, logs and the network file; made if missing
	Ready     time.Duration // how long it may take to be ready; 0: DefaultReady
	ViewEvery time.Duration // how often trackers sign a view; 0: DefaultViewEvery

	Shoal, Tracker string // the programs

	// Settle is how long sidecars wait before they start for every relay to know
	// every other one, as in a network that has long been there: the first
	// relays to be listed would become everybody's guards. Who is not listed by
	// then is done without. 0: DefaultSettle; below 0: sidecars start at once.
	Settle time.Duration

	// Block keeps several networks on one machine apart, 0 to MaxBlock: each has
	// addresses of its own.
	Block int

	// SidecarFlags and RelayFlags are given to every sidecar and every relay
	// besides what it needs.
	SidecarFlags, RelayFlags []string
}

// defaultHops is what `shoal proxy` uses when it is not told.
const defaultHops = 2

func (c Config) hops(sidecar int) (n int, set bool) {
	if len(c.Hops) == 0 {
		return defaultHops, false
	}
	return c.Hops[min(sidecar, len(c.Hops)-1)], true
}

// Check returns what is wrong with c: an ErrUsage or ErrTooFewRelays.
func (c Config) Check() error {
	for _, n := range []int{c.Trackers, c.Relays, c.Sidecars} {
		if n < 0 || n > MaxMembers {
			return fmt.Errorf("testnet: %w: %d of a kind, want 0 to %d", ErrUsage, n, MaxMembers)
		}
	}
	if c.Trackers < 1 {
		return fmt.Errorf("testnet: %w: it needs a tracker", ErrUsage)
	}
	for i := range max(c.Sidecars, len(c.Hops)) {
		hops, _ := c.hops(i)
		if hops < 0 {
			return fmt.Errorf("testnet: %w: %d hops", ErrUsage, hops)
		}
		if need := path.MinRelays(hops); c.Relays < need {
			return fmt.Errorf("testnet: %w: %d hops need %d, there are %d", ErrTooFewRelays, hops, need, c.Relays)
		}
	}
	if c.Block < 0 || c.Block > MaxBlock {
		return fmt.Errorf("testnet: %w: block %d, want 0 to %d", ErrUsage, c.Block, MaxBlock)
	}
	if c.LinkDelay < 0 {
		return fmt.Errorf("testnet: %w: a link delay of %v", ErrUsage, c.LinkDelay)
	}
	return nil
}

// Tracker is one running tracker.
type Tracker struct {
	Link string `json:"link"`
	Addr string `json:"addr"` // what others dial
	PID  int    `json:"pid"`

	Process *process.Process `json:"-"`
	State   string           `json:"-"`
}

// Relay is one running relay.
type Relay struct {
	ID   string `json:"id"`
	Addr string `json:"addr"` // what others dial
	PID  int    `json:"pid"`

	Process *process.Process `json:"-"`
	State   string           `json:"-"`
}

// Sidecar is one running sidecar.
type Sidecar struct {
	SOCKS  string `json:"socks"`
	Status string `json:"status"` // URL
	State  string `json:"state"`
	PID    int    `json:"pid"`

	Process *process.Process `json:"-"`
	Source  netip.Addr       `json:"-"` // what it dials from

	name string
	args []string
}

// Net is a running network. Its fields are what `shoal testnet` prints.
type Net struct {
	Network  string     `json:"network"` // the network file
	Trackers []*Tracker `json:"trackers"`
	Relays   []*Relay   `json:"relays"`
	Sidecars []*Sidecar `json:"sidecars"`

	config     Config
	forwarders []*delay.Forwarder
	ended      chan string // what ended that nobody stopped

	mu       sync.Mutex
	watched  []*process.Process // guarded by mu
	stopping bool               // guarded by mu
}

// Run starts a network, describes it on out once every sidecar is ready to
// carry traffic (as one line of JSON, else in words), and runs it until ctx
// ends. What ends by itself is told to warn. Nothing is left when Run returns.
func Run(ctx context.Context, c Config, out io.Writer, asJSON bool, warn io.Writer) error {
	n, err := Start(ctx, c)
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to leave before it was ready
		}
		return err
	}
	if asJSON {
		err = json.NewEncoder(out).Encode(n)
	} else {
		err = n.describe(out)
	}
	for err == nil && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case what := <-n.ended:
			fmt.Fprintln(warn, "shoal testnet:", what)
		}
	}
	return errors.Join(err, n.Close())
}

func (n *Net) describe(out io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "network file  %s\n", n.Network)
	for _, t := range n.Trackers {
		fmt.Fprintf(&b, "tracker       %s\n", t.Link)
	}
	for _, r := range n.Relays {
		fmt.Fprintf(&b, "relay         %s@%s\n", r.ID, r.Addr)
	}
	for _, s := range n.Sidecars {
		fmt.Fprintf(&b, "sidecar       SOCKS5 %s  status %s\n", s.SOCKS, s.Status)
	}
	b.WriteString("Everything runs. Ctrl-C stops it.\n")
	_, err := out.Write(b.Bytes())
	return err
}

// Start starts a network and returns once every sidecar is ready. On an error
// nothing is left.
func Start(ctx context.Context, c Config) (n *Net, err error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.Ready == 0 {
		c.Ready = DefaultReady
	}
	if c.ViewEvery == 0 {
		c.ViewEvery = DefaultViewEvery
	}
	if c.Settle == 0 {
		c.Settle = DefaultSettle
	}
	if c.State, err = filepath.Abs(c.State); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Ready, fmt.Errorf("not ready within %v", c.Ready))
	defer cancel()
	n = &Net{
		Network: filepath.Join(c.State, "network.json"),
		Relays:  []*Relay{}, Sidecars: []*Sidecar{}, // as JSON lists, also when empty
		config: c,
		ended:  make(chan string, 3*MaxMembers),
	}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("testnet: %w", err), n.Close())
	}
	return n, nil
}

func (n *Net) start(ctx context.Context) error {
	trackers, relays, err := n.plan(ctx)
	if err != nil {
		return err
	}
	if err := n.writeNetwork(trackers, relays); err != nil {
		return err
	}
	for i, p := range trackers {
		t, err := n.startTracker(ctx, i, p)
		if err != nil {
			return err
		}
		n.Trackers = append(n.Trackers, t)
	}
	for i, p := range relays {
		r, err := n.startRelay(i, p)
		if err != nil {
			return err
		}
		n.Relays = append(n.Relays, r)
	}
	if err := n.settle(ctx); err != nil {
		return err
	}
	for range n.config.Sidecars {
		if _, err := n.startSidecar(nil); err != nil {
			return err
		}
	}
	for _, s := range n.Sidecars {
		if err := s.awaitReady(ctx, n.processes()...); err != nil {
			return err
		}
	}
	return nil
}

// settle returns once every relay knows every other one, or Config.Settle is over.
func (n *Net) settle(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, n.config.Settle)
	defer cancel()
	network, err := directory.LoadNetwork(n.Network)
	if err != nil {
		return err
	}
	for _, r := range n.Relays {
		err := process.Until(patience, 50*time.Millisecond, func() (bool, error) {
			keeper, err := directory.OpenKeeper(filepath.Join(r.State, "views"), network, time.Now)
			return err == nil && len(keeper.Relays()) == len(n.Relays), err
		}, n.processes()...)
		if err != nil && patience.Err() == nil {
			return err
		}
	}
	return ctx.Err()
}

// processes returns what runs.
func (n *Net) processes() []*process.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.watched)
}

// place is where a server is and what it is called, before it runs.
type place struct {
	source     netip.Addr // what it dials from
	listen     netip.AddrPort
	advertised netip.AddrPort // what others dial: listen, or its forwarder
	state      string
	name       string // ID@ADDR
}

func (p place) flags() []string {
	return append(sourceFlag(p.source), "--state", p.state, "--listen", p.listen.String(), "--advertise", p.advertised.String())
}

// plan gives every server its place and its keys.
func (n *Net) plan(ctx context.Context) (trackers, relays []place, err error) {
	for i := range n.config.Trackers {
		p, err := n.place(n.config.address(1, 0, i+1), fmt.Sprintf("tracker-%d", i+1))
		if err != nil {
			return nil, nil, err
		}
		trackers = append(trackers, p)
	}
	for i := range n.config.Relays {
		p, err := n.place(n.config.address(2, i+1, 1), fmt.Sprintf("relay-%d", i+1))
		if err != nil {
			return nil, nil, err
		}
		relays = append(relays, p)
	}
	err = each(trackers, func(p *place) (err error) {
		p.name, err = firstLine(ctx, n.config.Tracker, append(p.flags(), "--print-id"))
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	err = each(relays, func(p *place) (err error) {
		p.name, err = firstLine(ctx, n.config.Shoal, append([]string{"relay", "--print-id"}, p.flags()...))
		return err
	})
	return trackers, relays, err
}

func (n *Net) place(at netip.Addr, name string) (place, error) {
	listen, err := process.FreePort(at)
	if err != nil {
		return place{}, err
	}
	p := place{source: at, listen: listen, advertised: listen, state: filepath.Join(n.config.State, name)}
	if n.config.LinkDelay > 0 {
		f, err := delay.Listen(netip.AddrPortFrom(at, 0), listen, n.config.LinkDelay)
		if err != nil {
			return place{}, err
		}
		n.forwarders = append(n.forwarders, f)
		p.advertised = f.Addr()
	}
	return p, os.MkdirAll(p.state, 0o700)
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// address returns 127.k.a.b of c's block where there is such an address. The
// blocks leave 127.18 and 127.19 alone: a sidecar's peers come from there.
func (c Config) address(kind, a, b int) netip.Addr {
	if runtime.GOOS != "linux" {
		return loopback
	}
	return netip.AddrFrom4([4]byte{127, byte(20*c.Block + kind), byte(a), byte(b)})
}

func sourceFlag(a netip.Addr) []string {
	if runtime.GOOS != "linux" {
		return nil
	}
	return []string{"--source", a.String()}
}

// each does f to every one of ps at the same time.
func each(ps []place, f func(*place) error) error {
	errs := make([]error, len(ps))
	var wg sync.WaitGroup
	for i := range ps {
		wg.Go(func() { errs[i] = f(&ps[i]) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// firstLine runs a program to its end and returns the first line it printed.
func firstLine(ctx context.Context, program string, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, bytes.TrimSpace(words.Bytes()))
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line), nil
}

func (n *Net) startTracker(ctx context.Context, i int, p place) (*Tracker, error) {
	read, write := io.Pipe()
	cmd := exec.Command(n.config.Tracker, append(p.flags(), "--network", n.Network)...)
	cmd.Stdout = write
	proc, err := n.startProcess(fmt.Sprintf("tracker %d", i+1), cmd, p.state)
	if err != nil {
		return nil, err
	}
	link := make(chan string, 1)
	go func() {
		link <- firstLink(read)
		io.Copy(io.Discard, read)
	}()
	go func() {
		<-proc.Gone()
		write.Close()
	}()
	t := &Tracker{Addr: p.advertised.String(), PID: proc.PID(), Process: proc, State: p.state}
	select {
	case t.Link = <-link:
		return t, nil
	case <-proc.Gone():
		return nil, proc.Err()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: tracker %d has not said its link", context.Cause(ctx), i+1)
	}
}

// firstLink returns the first link that a tracker prints for sidecars.
func firstLink(r io.Reader) string {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if l, err := directory.ParseLink(lines.Text()); err == nil && len(l.Entries) > 0 {
			return l.String()
		}
	}
	return ""
}

func (n *Net) startRelay(i int, p place) (*Relay, error) {
	cmd := exec.Command(n.config.Shoal, slices.Concat([]string{"relay", "--network", n.Network}, p.flags(), n.config.RelayFlags)...)
	proc, err := n.startProcess(fmt.Sprintf("relay %d", i+1), cmd, p.state)
	if err != nil {
		return nil, err
	}
	id, _, _ := strings.Cut(p.name, "@")
	return &Relay{ID: id, Addr: p.advertised.String(), PID: proc.PID(), Process: proc, State: p.state}, nil
}

// AddSidecar starts one more sidecar, with flags besides what it needs, and
// returns once it is ready.
func (n *Net) AddSidecar(ctx context.Context, flags ...string) (*Sidecar, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, n.config.Ready, fmt.Errorf("not ready within %v", n.config.Ready))
	defer cancel()
	s, err := n.startSidecar(flags)
	if err != nil {
		return nil, err
	}
	return s, s.awaitReady(ctx, s.Process)
}

func (n *Net) startSidecar(flags []string) (*Sidecar, error) {
	i := len(n.Sidecars)
	socks, err := process.FreePort(loopback)
	if err != nil {
		return nil, err
	}
	page, err := process.FreePort(loopback)
	if err != nil {
		return nil, err
	}
	s := &Sidecar{
		SOCKS:  socks.String(),
		Status: "http://" + page.String(),
		State:  filepath.Join(n.config.State, fmt.Sprintf("sidecar-%d", i+1)),
		Source: n.config.address(3, i+1, 1),
	}
	s.args = append([]string{"proxy", "--network", n.Network, "--state", s.State,
		"--socks", s.SOCKS, "--status", page.String()}, sourceFlag(s.Source)...)
	if hops, set := n.config.hops(i); set {
		s.args = append(s.args, "--hops", fmt.Sprint(hops))
	}
	s.args = slices.Concat(s.args, n.config.SidecarFlags, flags)
	s.name = fmt.Sprintf("sidecar %d", i+1)
	if err := n.run(s); err != nil {
		return nil, err
	}
	n.Sidecars = append(n.Sidecars, s)
	return s, nil
}

func (n *Net) run(s *Sidecar) (err error) {
	s.Process, err = n.startProcess(s.name, exec.Command(n.config.Shoal, s.args...), s.State)
	if err != nil {
		return err
	}
	s.PID = s.Process.PID()
	return nil
}

// Restart starts a sidecar again that was stopped, with the same flags and
// state, and returns once it is ready.
func (n *Net) Restart(ctx context.Context, s *Sidecar) error {
	ctx, cancel := context.WithTimeoutCause(ctx, n.config.Ready, fmt.Errorf("not ready within %v", n.config.Ready))
	defer cancel()
	n.forget(s.Process)
	if err := n.run(s); err != nil {
		return err
	}
	return s.awaitReady(ctx, s.Process)
}

// forget takes a process that was stopped on purpose off the watch.
func (n *Net) forget(p *process.Process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watched = slices.DeleteFunc(n.watched, func(w *process.Process) bool { return w == p })
}

// startProcess starts cmd, with the file log in its state folder, and watches it.
func (n *Net) startProcess(name string, cmd *exec.Cmd, state string) (*process.Process, error) {
	p, err := process.Start(name, cmd, filepath.Join(state, "log"))
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.watched = append(n.watched, p)
	n.mu.Unlock()
	go func() {
		<-p.Gone()
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.stopping {
			select {
			case n.ended <- p.Err().Error():
			default: // nobody listens, and there have been hundreds
			}
		}
	}()
	return p, nil
}

// awaitReady returns once s says that it can carry traffic; with an error when
// one of needed ends first.
func (s *Sidecar) awaitReady(ctx context.Context, needed ...*process.Process) error {
	err := process.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		now, err := s.ReadStatus(ctx)
		if err == nil {
			err = fmt.Errorf("it says: %s", now.Why)
		}
		return now.Ready, err
	}, needed...)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// Close stops everything, and returns when it is gone.
func (n *Net) Close() error {
	n.mu.Lock()
	n.stopping = true
	n.mu.Unlock()
	err := process.StopAll(n.processes())
	for _, f := range n.forwarders {
		f.Close()
	}
	return err
}

// maxStatus bounds a status that is read, bytes.
const maxStatus = 1 << 20

// ReadStatus asks a sidecar how it is.
func (s *Sidecar) ReadStatus(ctx context.Context) (status.Status, error) {
	var now status.Status
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Status+"/status.json", nil)
	if err != nil {
		return now, err
	}
	r.Close = true // a sidecar that was restarted is another server
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return now, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return now, fmt.Errorf("status: %s", resp.Status)
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&now)
	return now, err
}
