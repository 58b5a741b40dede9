package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-p2p/shoal/integration/capture"
	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/netns"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
	"github.com/shoal-p2p/shoal/integration/witness"
)

// trackerHost is nobody's: RFC 2606 keeps the name from ever existing.
const trackerHost = "tracker.does-not-exist.invalid"

// The network of the demo. There are more relays than a transfer needs, so that
// two sidecars seldom share a guard.
const (
	trackers = 2
	relays   = 12
)

const (
	most     = 90 * time.Second // how long the demo may take
	maxTrace = 1 << 30          // bytes of payload recorded
)

// Run moves the picture and says on c.Out what happens and what each party got
// to see. It runs this program again, with the same arguments, in a network
// namespace of its own: there Run does the work. The code is what to exit with
// when there is no error.
func Run(ctx context.Context, c Config) (code int, err error) {
	if netns.Inside() {
		if err := netns.Enter(); err != nil {
			return 1, err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("the demo took longer than %v", most))
		defer cancel()
		d := demo{Config: c, dir: os.Getenv(dirVariable), began: time.Now()}
		return 0, d.run(ctx)
	}
	if _, _, err := c.load(); err != nil {
		return 1, err
	}
	if _, err := exec.LookPath("qbittorrent-nox"); err != nil {
		return 1, errClient
	}
	dir, err := os.MkdirTemp("", "shoal-demo-")
	if err != nil {
		return 1, err
	}
	code, err = netns.Run(os.Args[1:], []string{dirVariable + "=" + dir})
	if (err != nil || code != 0) && ctx.Err() == nil {
		fmt.Fprintln(c.Out, "The logs are kept in", dir)
		return code, err
	}
	return code, errors.Join(err, os.RemoveAll(dir))
}

type demo struct {
	Config
	dir   string
	began time.Time
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.Out, "%5.1f s  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) run(ctx context.Context) error {
	name, data, err := d.load()
	if err != nil {
		return err
	}
	picture, err := torrent.Make(name, data, "http://"+trackerHost+"/announce")
	if err != nil {
		return err
	}
	recorder, err := capture.Start("lo", maxTrace)
	if err != nil {
		return err
	}
	d.say("starting %d trackers, %d relays and 2 sidecars, each a process with an address of its own", trackers, relays)
	net, err := testnet.Start(ctx, testnet.Config{
		Trackers: trackers, Relays: relays, Sidecars: 2,
		State: filepath.Join(d.dir, "network"), Shoal: d.Shoal, Tracker: d.Tracker,
	})
	if err != nil {
		return err
	}
	defer net.Close()
	d.say("the network is ready")
	took, err := d.move(ctx, net, picture)
	if err != nil {
		return err
	}
	if err := net.Close(); err != nil {
		return err
	}
	trace, err := recorder.Stop()
	if err != nil {
		return err
	}
	return d.report(witness.Look(trace, net, []torrent.Torrent{picture}, trackerHost), picture, took)
}

// move lets client A seed the picture and client B download it.
func (d *demo) move(ctx context.Context, net *testnet.Net, picture torrent.Torrent) (took time.Duration, err error) {
	d.say("starting two %ss, default settings but for the proxy", version(ctx))
	var client [2]clients.Client
	for i, s := range net.Sidecars {
		c, err := clients.QBittorrent.Start(ctx, clients.Config{
			Dir:   filepath.Join(d.dir, "client-"+string(rune('A'+i))),
			SOCKS: s.SOCKS,
		})
		if err != nil {
			return 0, err
		}
		defer c.Stop()
		client[i] = c
	}
	a, b := client[0], client[1]

	d.say("client A adds %s (%.1f MB); its tracker, %s, does not exist", picture.Name, float64(len(picture.Data))/1e6, trackerHost)
	if err := picture.Put(a.Config().Downloads()); err != nil {
		return 0, err
	}
	if err := a.Add(ctx, picture.File); err != nil {
		return 0, err
	}
	if err := clients.Wait(ctx, a, picture.Hash); err != nil {
		return 0, fmt.Errorf("client A: %w", err)
	}
	d.say("client A seeds; client B adds the same .torrent")
	began := time.Now()
	if err := b.Add(ctx, picture.File); err != nil {
		return 0, err
	}
	said := -1
	err = clients.WaitFor(ctx, b, picture.Hash, func(p clients.Progress) bool {
		if percent := int(100 * p.Done); percent != said {
			said = percent
			d.say("client B has %3d %%", percent)
		}
		return p.Settled && p.Done == 1
	})
	if err != nil {
		return 0, fmt.Errorf("client B: %w", err)
	}
	took = time.Since(began)
	if err := picture.Check(b.Config().Downloads()); err != nil {
		return 0, err
	}
	d.say("the SHA-256 of what arrived is that of the original")
	return took, process.StopAll([]*process.Process{a.Process(), b.Process()})
}

// version returns what the client calls itself, such as qBittorrent v4.5.2.
func version(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "qbittorrent-nox", "--version").Output()
	if err != nil {
		return "qBittorrent"
	}
	return strings.TrimSpace(string(out))
}

// report says what happened and what each party got to see.
func (d *demo) report(r witness.Report, picture torrent.Torrent, took time.Duration) error {
	fmt.Fprintf(d.Out, `
What happened
  %s went from one qBittorrent to another in %.1f s, through %d relays that neither side chose alone.
What each party got to see, from a recording of every packet
  clients     their own sidecar, and stand-in addresses (198.18.0.0/15) for each other
  sidecar A   relays %s: its entry and its guards; no tracker, and not sidecar B
  sidecar B   relays %s: its entry and its guards; no tracker, and not sidecar A
  relays      their neighbours; %s
  trackers    %d relays, no sidecar; a blinded name and sealed records, nothing else
  the links   %d connections, %.1f MB: no byte of the picture, its name, its info-hash or its tracker's name
`, picture.Name, took.Seconds(), between, numbers(r, 0), numbers(r, 1), sawBoth(r), seenByTrackers(r), r.Links, float64(r.Bytes)/1e6)
	if len(r.Wrong) > 0 {
		return fmt.Errorf("what should not have been seen: %s", strings.Join(r.Wrong, "; "))
	}
	return nil
}

// between is how many relays lie between two sidecars with default hops: two
// own ones on each side and the one where they meet.
const between = 5

func numbers(r witness.Report, sidecar int) string {
	return strings.Trim(fmt.Sprint(r.Numbers(r.Sidecars[sidecar])), "[]")
}

func sawBoth(r witness.Report) string {
	both := r.SawBoth(0, 1)
	if len(both) == 0 {
		return "none of them saw both sidecars"
	}
	return fmt.Sprintf("%s saw both sidecars, as guard or entry of each, but not that they talk to each other", both[0].Name)
}

func seenByTrackers(r witness.Report) int {
	seen := make(map[string]bool)
	for _, t := range r.Trackers {
		for _, a := range t.Contacts {
			seen[a.String()] = true
		}
	}
	return len(seen)
}
