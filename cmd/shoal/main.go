// Command shoal is Shoal for those who share files and those who run relays:
// shoal proxy, shoal relay, shoal testnet, shoal demo.
// Not here: protocol decisions. Flags become a Config, and Run is called.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/integration/demo"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/proxy"
	"github.com/shoal-p2p/shoal/proxy/netns"
	"github.com/shoal-p2p/shoal/relay"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// version is set by the release build.
var version = "0.1.0"

func main() {
	netns.Init() // in the processes that shoal run starts it does not return
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := &cli.App{
		Name:  "shoal",
		Usage: "share files with the torrent client you already use, without showing your address",
		Description: `Start the sidecar with "shoal proxy" and set its address as the SOCKS5 proxy of
your torrent client. All traffic to trackers and peers then goes through relays,
encrypted from end to end. Your peers are other Shoal users only.

There is no public Shoal network yet. "shoal demo" shows Shoal at work on this
machine, "shoal testnet" starts a network on this machine to try things out.`,
		Version:         version,
		HideHelpCommand: true,
		Commands:        []*cli.Command{proxyCommand, runCommand, setupCommand, doctorCommand, relayCommand, testnetCommand, demoCommand},
		CommandNotFound: func(_ *cli.Context, name string) {
			fail(2, fmt.Errorf("there is no command %q: see shoal --help", name))
		},
		OnUsageError:   usage,
		ExitErrHandler: func(*cli.Context, error) {},
	}
	for _, c := range app.Commands {
		c.OnUsageError = usage
	}
	if err := app.RunContext(ctx, os.Args); err != nil {
		code := 1
		var e *exitError
		if errors.As(err, &e) {
			code = e.code
		}
		fail(code, err)
	}
}

func usage(_ *cli.Context, err error, _ bool) error { return &exitError{2, err} }

// exitError is an error with the code to exit with: 2 for a wrong call.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func fail(code int, err error) {
	fmt.Fprintln(os.Stderr, "shoal:", err)
	os.Exit(code)
}

// The flags that mean the same everywhere.
var (
	networkFlag = &cli.StringFlag{Name: "network", Usage: "network `FILE`: the trackers and entry relays to use, e.g. network.json"}
	trackerFlag = &cli.StringSliceFlag{Name: "tracker", Usage: "tracker `LINK`, as shoal-tracker prints it, instead of a network file; repeat for several trackers"}
	sourceFlag  = &cli.StringFlag{Name: "source", Usage: "local `IP` address for outgoing connections, e.g. 192.168.1.20 (default: chosen by the system)"}
	verboseFlag = &cli.BoolFlag{Name: "verbose", Usage: "log details too"}
)

func stateFlag(name string) *cli.StringFlag {
	return &cli.StringFlag{Name: "state", Usage: "`DIR` for keys and saved state, readable by you only", Value: defaultState(name), DefaultText: "shoal/" + name + " in your configuration folder"}
}

func defaultState(name string) string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "shoal", name)
}

// network returns the network that the flags name.
func network(c *cli.Context) (directory.Network, error) {
	file, links := c.String("network"), c.StringSlice("tracker")
	switch {
	case file != "" && len(links) > 0:
		return directory.Network{}, &exitError{2, errors.New("--network and --tracker: one of them, not both")}
	case file != "":
		return directory.LoadNetwork(file)
	case len(links) > 0:
		var all []directory.Link
		for _, s := range links {
			l, err := directory.ParseLink(s)
			if err != nil {
				return directory.Network{}, err
			}
			all = append(all, l)
		}
		return directory.FromLinks(all...)
	}
	return directory.Network{}, &exitError{1, errors.New(`no network: there is no public Shoal network yet.
  Join one with --network FILE or --tracker LINK, from somebody who runs a tracker;
  start one on this machine with: shoal testnet --state DIR
  or see it work with: shoal demo`)}
}

func source(c *cli.Context) (netip.Addr, error) {
	s := c.String("source")
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, &exitError{2, fmt.Errorf("--source: %w", err)}
	}
	return a, nil
}

// advertise reads an IP address with or without a port.
func advertise(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, &exitError{2, fmt.Errorf("--advertise: %w", err)}
	}
	return a, nil
}

func logger(c *cli.Context) *slog.Logger {
	level := slog.LevelInfo
	if c.Bool("verbose") {
		level = slog.LevelDebug
	}
	l := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(l)
	return l
}

func state(c *cli.Context) (string, error) {
	if dir := c.String("state"); dir != "" {
		return dir, nil
	}
	return "", &exitError{2, errors.New("--state: this system names no folder for configuration; say one")}
}

var proxyCommand = &cli.Command{
	Name:  "proxy",
	Usage: "run the sidecar for your torrent client",
	Description: `In the torrent client, set the proxy to SOCKS5 at the printed address, for
tracker and peer connections. The status page shows whether the sidecar is
ready. Stop it with Ctrl-C.

--hops trades speed for protection. With 1 relay of your own, peers do not see
your address, but that relay sees which meeting relay you use. With 2, the
default, no single relay sees both. 3 and 4 add relays, each at some cost in
speed.

Example: shoal proxy --network network.json`,
	Flags: []cli.Flag{
		networkFlag, trackerFlag, stateFlag("proxy"), sourceFlag,
		&cli.StringFlag{Name: "socks", Usage: "`IP:PORT` of the SOCKS5 proxy for torrent clients", Value: proxy.DefaultSOCKS},
		&cli.StringFlag{Name: "socks-password-file", Usage: "`FILE` with the password that every SOCKS user must give; required unless --socks is a loopback address"},
		&cli.StringFlag{Name: "status", Usage: "`IP:PORT` of the status page, a loopback address", Value: proxy.DefaultStatus},
		&cli.IntFlag{Name: "hops", Usage: "`NUMBER` of your own relays on each circuit, 1 to 4", Value: proxy.DefaultHops},
		&cli.BoolFlag{Name: "strict", Usage: "refuse clients that announce but keep peer connections out of the proxy (default: warn)"},
		&cli.BoolFlag{Name: "bootstrap-direct", Usage: "if the network has no entry relays, dial a tracker at the first start; the tracker then sees your address"},
		verboseFlag,
	},
	Action: func(c *cli.Context) error {
		n, err := network(c)
		if err != nil {
			return err
		}
		from, err := source(c)
		if err != nil {
			return err
		}
		dir, err := state(c)
		if err != nil {
			return err
		}
		var password string
		if f := c.String("socks-password-file"); f != "" {
			b, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			if password = strings.TrimSpace(string(b)); password == "" {
				return fmt.Errorf("%s: no password in it", f)
			}
		}
		p, err := proxy.New(proxy.Config{
			Network: n, State: dir, SOCKS: c.String("socks"), Password: password, Status: c.String("status"),
			Hops: c.Int("hops"), Source: from, Strict: c.Bool("strict"), BootstrapDirect: c.Bool("bootstrap-direct"), Log: logger(c),
		})
		if errors.Is(err, proxy.ErrUsage) {
			return &exitError{2, err}
		}
		if err != nil {
			return err
		}
		fmt.Printf("SOCKS5 proxy for your torrent client: %v\nstatus page: %s\n", p.SOCKS(), p.StatusURL())
		if t := n.Trusts(); t != "" {
			fmt.Fprintln(os.Stderr, "note:", t)
		}
		return p.Run(c.Context)
	},
}

var relayCommand = &cli.Command{
	Name:  "relay",
	Usage: "run a relay for others",
	Description: `A relay forwards encrypted circuits between other relays and sidecars. It
connects only to relays and trackers of its network, never to the open internet,
and does not see who shares what. Its port must be reachable from outside. The
log shows within a minute whether each tracker reaches it.

Sizes: KB, MB and GB are powers of 1000 bytes, KiB, MiB and GiB powers of 1024.

Example: shoal relay --network network.json --listen 0.0.0.0:9001 --limit 10MB`,
	Flags: []cli.Flag{
		networkFlag, trackerFlag, stateFlag("relay"), sourceFlag,
		&cli.StringFlag{Name: "listen", Usage: "`IP:PORT` on which to accept links", Value: "0.0.0.0:9001"},
		&cli.StringFlag{Name: "advertise", Usage: "`IP[:PORT]` at which others reach this relay, if it is behind NAT or in a container, e.g. 203.0.113.5"},
		&cli.StringFlag{Name: "rate", Usage: "advertised `RATE` in bytes per second, e.g. 10MB or 800KB; circuits choose relays by it", Value: "12.5MB"},
		&cli.StringFlag{Name: "limit", Usage: "maximum `RATE` in bytes per second sent over all links, e.g. 10MB or 800KB (default: unlimited)"},
		&cli.StringFlag{Name: "contact", Usage: "public contact `TEXT` in the directory, e.g. an email address"},
		&cli.StringSliceFlag{Name: "family", Usage: "`ID` of another relay that you run, so that no circuit uses both; set it on both relays, repeat for several"},
		&cli.BoolFlag{Name: "print-id", Usage: "print this relay's ID@IP:PORT for network files and exit; creates the keys if needed"},
		verboseFlag,
	},
	Action: runRelay,
}

func runRelay(c *cli.Context) error {
	var n directory.Network
	if !c.Bool("print-id") {
		var err error
		if n, err = network(c); err != nil {
			return err
		}
	}
	cfg := relay.Config{Network: n, Listen: c.String("listen"), Contact: c.String("contact"), Program: version, Log: logger(c)}
	var err error
	if cfg.State, err = state(c); err != nil {
		return err
	}
	if cfg.Source, err = source(c); err != nil {
		return err
	}
	if cfg.Advertise, err = advertise(c.String("advertise")); err != nil {
		return err
	}
	if cfg.Rate, err = parseRate(c.String("rate")); err != nil {
		return &exitError{2, fmt.Errorf("--rate: %w", err)}
	}
	if limit := c.String("limit"); limit != "" {
		if cfg.Limit, err = parseRate(limit); err != nil {
			return &exitError{2, fmt.Errorf("--limit: %w", err)}
		}
	}
	for _, s := range c.StringSlice("family") {
		id, err := onion.ParseID(s)
		if err != nil {
			return &exitError{2, fmt.Errorf("--family: %w", err)}
		}
		cfg.Family = append(cfg.Family, id)
	}
	if c.Bool("print-id") {
		name, err := relay.Name(cfg)
		if err != nil {
			return err
		}
		fmt.Println(name)
		return nil
	}
	// With one thread Go looks at the network only when nobody has anything to do,
	// or after 10 ms: whoever sends little would wait for whoever sends much.
	if runtime.GOMAXPROCS(0) == 1 && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2)
	}
	r, err := relay.New(cfg)
	if err != nil {
		return err
	}
	fmt.Printf("relay %v at %v\n", r.ID(), r.Addr())
	return r.Run(c.Context)
}

// parseRate reads bytes per second: a number with KB, MB or GB behind it.
func parseRate(s string) (uint64, error) {
	unit, digits := 1.0, strings.ToUpper(strings.TrimSpace(s))
	for suffix, u := range map[string]float64{"KB": 1e3, "MB": 1e6, "GB": 1e9} {
		if d, ok := strings.CutSuffix(digits, suffix); ok {
			unit, digits = u, d
		}
	}
	var n float64
	if _, err := fmt.Sscanf(digits+"\n", "%g\n", &n); err != nil || n <= 0 || n*unit > 1e12 || n*unit < 1e4 {
		return 0, fmt.Errorf("%q is not a rate from 10KB to 1000GB", s)
	}
	return uint64(n * unit), nil
}

var testnetCommand = &cli.Command{
	Name:  "testnet",
	Usage: "start a whole network on this machine, to try things out",
	Description: `Start trackers, relays and sidecars as separate processes on loopback and run
until interrupted. Such a network hides nobody.

Example: shoal testnet --state /tmp/shoal-net --json`,
	Flags: []cli.Flag{
		&cli.IntFlag{Name: "trackers", Usage: "`NUMBER` of trackers", Value: 1},
		&cli.IntFlag{Name: "relays", Usage: "`NUMBER` of relays", Value: 6},
		&cli.IntFlag{Name: "sidecars", Usage: "`NUMBER` of sidecars", Value: 2},
		&cli.StringFlag{Name: "hops", Usage: "own relays per circuit, one `NUMBER` for each sidecar, e.g. 2,3; the last one repeats (default: 2)"},
		&cli.DurationFlag{Name: "link-delay", Usage: "one-way delay on every link, e.g. 50ms", DefaultText: "none"},
		&cli.StringFlag{Name: "state", Usage: "`DIR` for keys, logs and the network file (required)", Required: true},
		&cli.BoolFlag{Name: "json", Usage: "print one line of JSON on stdout when the network is ready"},
	},
	Action: func(c *cli.Context) error {
		cfg := testnet.Config{
			Trackers: c.Int("trackers"), Relays: c.Int("relays"), Sidecars: c.Int("sidecars"),
			LinkDelay: c.Duration("link-delay"), State: c.String("state"),
		}
		for _, s := range strings.FieldsFunc(c.String("hops"), func(r rune) bool { return r == ',' }) {
			var n int
			if _, err := fmt.Sscanf(s+"\n", "%d\n", &n); err != nil {
				return &exitError{2, fmt.Errorf("--hops: %q is no number", s)}
			}
			cfg.Hops = append(cfg.Hops, n)
		}
		var err error
		if cfg.Shoal, cfg.Tracker, err = programs(); err != nil {
			return err
		}
		err = testnet.Run(c.Context, cfg, os.Stdout, c.Bool("json"), os.Stderr)
		if errors.Is(err, testnet.ErrTooFewRelays) || errors.Is(err, testnet.ErrUsage) {
			return &exitError{2, err}
		}
		return err
	},
}

var demoCommand = &cli.Command{
	Name:      "demo",
	Usage:     "watch two real qBittorrents move a picture through a network on this machine",
	ArgsUsage: "[PICTURE]",
	Description: `Start a network on this machine and two qBittorrents that use it. One of them
sends PICTURE, or a drawn one, to the other. A packet recording then shows what
each party saw. Everything is removed at the end.`,
	Action: func(c *cli.Context) error {
		cfg := demo.Config{Picture: c.Args().First(), Out: os.Stdout}
		var err error
		if cfg.Shoal, cfg.Tracker, err = programs(); err != nil {
			return err
		}
		code, err := demo.Run(c.Context, cfg)
		if err == nil && code != 0 {
			os.Exit(code)
		}
		return err
	},
}

// programs returns this program and shoal-tracker beside it.
func programs() (shoal, tracker string, err error) {
	if shoal, err = os.Executable(); err != nil {
		return "", "", err
	}
	tracker = filepath.Join(filepath.Dir(shoal), "shoal-tracker"+filepath.Ext(shoal))
	if _, err := os.Stat(tracker); err != nil {
		return "", "", fmt.Errorf("shoal-tracker is not beside this program: %w (make build makes both)", err)
	}
	return shoal, tracker, nil
}
