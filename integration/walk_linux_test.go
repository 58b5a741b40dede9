package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/hosts"
	"github.com/shoal-p2p/shoal/integration/manual"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// walk is a network that is no test, made on machines of its own by those who
// read the pages and nothing else. It counts what they do.
type walk struct {
	net *hosts.Net

	trackers, relays []*reader
	members          int
	plan             plan

	mu       sync.Mutex
	commands int // guarded by mu: typed
	pasted   int // guarded by mu: links, as they were printed
	files    int // guarded by mu: the network file, on so many machines
}

// plan is where a walk's machines are.
type plan struct {
	trackers, relays []netip.Addr
	member           func(n int) netip.Addr
	within           string // where the addresses are, when they are not public
}

// public is a network whose machines have addresses as on the internet, each in
// a /16 of its own.
var public = plan{
	trackers: addresses("5.9.17.3", "23.88.4.20", "45.76.130.9"),
	relays:   addresses("62.210.5.6", "81.2.69.142", "94.130.7.1", "109.74.200.3", "138.201.9.9"),
	member:   func(n int) netip.Addr { return netip.AddrFrom4([4]byte{176, byte(9 + n), 40, 7}) },
}

// lan is a network in private addresses, such as a company or a VPN has.
var lan = plan{
	trackers: addresses("10.1.0.2", "10.1.0.3", "10.2.0.2"),
	relays:   addresses("10.1.0.11", "10.1.0.12", "10.2.0.11", "10.3.7.1", "10.3.7.2"),
	member:   func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 4, 0, byte(20 + n)}) },
	within:   "10.0.0.0/8",
}

func addresses(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// own is the section that a walk follows.
const own = "A network of your own, step by step"

// steps are whom a step of that section is for, by the sentence in front of it.
var steps = []struct {
	who  *regexp.Regexp
	them func(*walk) []*reader
}{
	{regexp.MustCompile(`(?i)\beach tracker's machine\b`), func(w *walk) []*reader { return w.trackers }},
	{regexp.MustCompile(`(?i)\bfirst tracker's machine\b`), func(w *walk) []*reader { return w.trackers[:1] }},
	{regexp.MustCompile(`(?i)\beach relay's machine\b`), func(w *walk) []*reader { return w.relays }},
}

// newWalk makes the network. Its machines are gone at the end of the test.
func newWalk(t *testing.T, ctx context.Context, p plan) *walk {
	t.Helper()
	w := &walk{net: newHosts(t), plan: p}
	for i, a := range p.trackers {
		w.trackers = append(w.trackers, w.machine(t, fmt.Sprint("tracker ", i+1), a))
	}
	for i, a := range p.relays {
		w.relays = append(w.relays, w.machine(t, fmt.Sprint("relay ", i+1), a))
	}
	w.follow(t, ctx, "docs/running.md", own)
	return w
}

// machine adds one, where the programs have been built.
func (w *walk) machine(t *testing.T, name string, a netip.Addr) *reader {
	t.Helper()
	h, err := w.net.Add(name, a)
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t, h)
	r.installed(t)
	return r
}

// follow has everybody do what a section says, step by step.
func (w *walk) follow(t *testing.T, ctx context.Context, page, section string) {
	t.Helper()
	n := 0
	for _, p := range pages(t) {
		for _, b := range p.Blocks {
			if p.Name != page || b.Heading != section {
				continue
			}
			n++
			if err := w.step(ctx, p, b); err != nil {
				t.Fatalf("%s:%d: %s\n%s\n%v", p.Name, b.Line, b.Lead, b.Text, err)
			}
		}
	}
	if n == 0 {
		t.Fatalf("%s has no section %q with steps", page, section)
	}
}

// step has those whom a step is for do it, all at the same time, as people do.
func (w *walk) step(ctx context.Context, p *manual.Page, b manual.Block) error {
	commands, _ := (&manual.Page{Name: p.Name, Blocks: []manual.Block{b}}).Typed()
	for _, s := range steps {
		if !s.who.MatchString(b.Lead) {
			continue
		}
		for _, c := range commands {
			if err := each(s.them(w), func(r *reader) error { return w.do(ctx, r, c.Text) }); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("it does not say on whose machine")
}

func each(all []*reader, do func(*reader) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	for i, r := range all {
		wg.Go(func() { errs[i] = do(r) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// do has r type a command that a page says, once there is what it takes.
func (w *walk) do(ctx context.Context, r *reader, line string) error {
	if strings.HasPrefix(line, "shoal-tracker ") && w.plan.within != "" {
		line += " --within " + w.plan.within
	}
	line, err := w.fill(ctx, line, r)
	if err != nil {
		return err
	}
	if strings.Contains(line, "--network "+networkFile) {
		if err := w.give(r); err != nil {
			return err
		}
	}
	w.mu.Lock()
	w.commands++
	w.mu.Unlock()
	c, err := r.types(line)
	if err != nil {
		return err
	}
	if err := r.comesUp(ctx, c); err != nil {
		return fmt.Errorf("on %s: %s: %w\n%s", r.host.Name, line, err, c.output())
	}
	return nil
}

// fill is the function fill, with LINK replaced by the links of all trackers, in
// turn: a relay takes the first that a tracker prints, others that for sidecars.
func (w *walk) fill(ctx context.Context, line string, r *reader) (string, error) {
	forRelays := strings.Contains(line, "shoal relay ")
	for _, t := range w.trackers {
		if !strings.Contains(line, " LINK") {
			break
		}
		link, err := t.link(ctx, !forRelays)
		if err != nil {
			return "", fmt.Errorf("%s: %w", t.host.Name, err)
		}
		line = strings.Replace(line, " LINK", " "+link, 1)
		w.mu.Lock()
		w.pasted++
		w.mu.Unlock()
	}
	return fill(line, r)
}

// link returns what the tracker that r runs has printed last.
func (r *reader) link(ctx context.Context, withEntries bool) (link string, err error) {
	err = process.Until(ctx, 50*time.Millisecond, func() (bool, error) {
		for _, c := range r.running {
			for line := range strings.Lines(c.output()) {
				l, err := directory.ParseLink(line)
				if err == nil && (len(l.Entries) > 0 || !withEntries) {
					link = strings.TrimSpace(line)
				}
			}
		}
		return link != "", errors.New("no link has been printed")
	})
	return link, err
}

// networkFile is what the pages call it.
const networkFile = "network.json"

// give puts the network file on r's machine.
func (w *walk) give(r *reader) error {
	file := filepath.Join(r.dir, "shoal", networkFile)
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	network, err := os.ReadFile(filepath.Join(w.trackers[0].dir, "shoal", networkFile))
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.files++
	w.mu.Unlock()
	return os.WriteFile(file, network, 0o600)
}

// joins adds a member's machine.
func (w *walk) joins(t *testing.T) *reader {
	t.Helper()
	w.members++
	r := w.machine(t, fmt.Sprint("member ", w.members), w.plan.member(w.members))
	if err := w.give(r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestANetworkMadeFromThePagesMovesFiles: three trackers, five relays and three
// members on machines of their own, all by the pages' words. Two members use
// qBittorrent as README says, and one Transmission.
func TestANetworkMadeFromThePagesMovesFiles(t *testing.T) {
	for name, p := range map[string]plan{"public": public, "private": lan} {
		t.Run(name, func(t *testing.T) {
			ctx := deadline(t)
			w := newWalk(t, ctx, p)
			tor := noise(t, 3<<20, httpTracker)
			var seeder clients.Client
			for range 2 {
				r := w.joins(t)
				w.section(t, ctx, r, "Use it with qBittorrent")
				c := r.qBittorrent(t, ctx)
				if seeder == nil {
					seeder = c
					seed(t, ctx, c, tor)
					announced(t, ctx, c, tor)
					continue
				}
				add(t, ctx, c, tor)
				arrives(t, ctx, c, tor)
			}
			r := w.joins(t)
			c := r.transmission(t, ctx, w.section(t, ctx, r, "Use it with any other client (Linux)"))
			add(t, ctx, c, tor)
			arrives(t, ctx, c, tor)
			t.Logf("%d commands; %d links pasted; a file on %d machines; nothing edited", w.commands, w.pasted, w.files)
		})
	}
}

// section has r type the commands of a section of README, but for `make build`,
// and returns what the last one became.
func (w *walk) section(t *testing.T, ctx context.Context, r *reader, heading string) *typed {
	t.Helper()
	var last *typed
	for _, b := range pages(t)[0].Blocks {
		commands, _ := (&manual.Page{Blocks: []manual.Block{b}}).Typed()
		for _, c := range commands {
			if b.Heading != heading || c.Text == "make build" {
				continue
			}
			if err := w.do(ctx, r, c.Text); err != nil {
				t.Fatalf("README.md:%d: %v", c.Line, err)
			}
			last = r.running[len(r.running)-1]
		}
	}
	if last == nil {
		t.Fatalf("README.md has nothing to type in a section %q", heading)
	}
	return last
}

// qBittorrent starts one on r's machine, with the settings that README names.
func (r *reader) qBittorrent(t *testing.T, ctx context.Context) clients.Client {
	t.Helper()
	return startClient(t, ctx, clients.QBittorrent, clients.Config{Dir: t.TempDir(), SOCKS: "127.0.0.1:1080", Dial: r.host.Dial,
		Under: func(uint16) []string { return r.host.Command("env").Args }})
}

// transmission returns the one that c runs, which r reaches at the published port.
func (r *reader) transmission(t *testing.T, ctx context.Context, c *typed) clients.Client {
	t.Helper()
	dir := filepath.Join(r.dir, "home")
	if err := os.Symlink("Downloads", filepath.Join(dir, "downloads")); err != nil { // where its default is, and where others have theirs
		t.Fatal(err)
	}
	client, err := clients.TransmissionAt(ctx, netip.MustParseAddrPort("127.0.0.1:9091"), c.process, clients.Config{Dir: dir, Dial: r.host.Dial})
	if err != nil {
		t.Fatal(err)
	}
	return client
}
