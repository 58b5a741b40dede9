// Command shoal-tracker is Shoal's tracker: it keeps sealed records that it
// can't read, and lists the relays that it reaches.
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
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/tracker"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// version is set by the release build.
var version = "0.1.0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Records dominate and hardly change: a small share of garbage beside them
	// costs less than twice their memory would.
	debug.SetGCPercent(25)
	app := &cli.App{
		Name:  "shoal-tracker",
		Usage: "run a Shoal tracker",
		Description: `Print the tracker link, then run until interrupted. Give the link to the users and
relays of this tracker, for --tracker. A sidecar never dials a tracker directly,
so the link must contain entry relays: name them with --network or --entry.

Example: shoal-tracker --network network.json --listen 0.0.0.0:9000`,
		Version:         version,
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "network", Usage: "network `FILE` from which to take entry relays and test settings"},
			&cli.StringSliceFlag{Name: "entry", Usage: "entry relay for the link, as `ID@IP:PORT` from shoal relay --print-id; repeat for several"},
			&cli.StringFlag{Name: "state", Usage: "`DIR` for keys, views and records, readable by you only", Value: "shoal-tracker"},
			&cli.StringFlag{Name: "listen", Usage: "`IP:PORT` on which to accept links", Value: "0.0.0.0:9000"},
			&cli.StringFlag{Name: "advertise", Usage: "`IP[:PORT]` at which others reach this tracker, if it is behind NAT or in a container, e.g. 203.0.113.5"},
			&cli.StringFlag{Name: "source", Usage: "local `IP` address for outgoing connections, e.g. 192.168.1.20 (default: chosen by the system)"},
			&cli.DurationFlag{Name: "interval", Usage: "time between a member's announces, e.g. 10m", Value: tracker.DefaultInterval},
			&cli.IntFlag{Name: "stamp", Usage: "proof of work required of a record, in `BITS` (0: none)"},
			&cli.StringFlag{Name: "redis", EnvVars: []string{"SHOAL_REDIS"}, Usage: "`URL` of a Redis server, 6.2 or newer, that keeps the records, as redis://USER:PASSWORD@HOST:PORT/NUMBER (default: kept in memory and --state)"},
			&cli.BoolFlag{Name: "print-link", Usage: "print the tracker link and exit; creates the keys if needed"},
			&cli.BoolFlag{Name: "print-id", Usage: "print KEY@IP:PORT, for network files, and exit; creates the keys if needed"},
		},
		Action:         run,
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return &usageError{err} },
		ExitErrHandler: func(*cli.Context, error) {},
	}
	if err := app.RunContext(ctx, os.Args); err != nil {
		var usage *usageError
		if errors.As(err, &usage) {
			fail(2, err)
		}
		fail(1, err)
	}
}

// usageError is an error of whoever called: exit code 2.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func fail(code int, err error) {
	fmt.Fprintln(os.Stderr, "shoal-tracker:", err)
	os.Exit(code)
}

func run(c *cli.Context) error {
	if c.Args().Present() {
		return &usageError{fmt.Errorf("unexpected argument %q: see shoal-tracker --help", c.Args().First())}
	}
	cfg := tracker.Config{
		State: c.String("state"), Listen: c.String("listen"), Interval: c.Duration("interval"), StampBits: c.Int("stamp"),
		Redis: c.String("redis"), Program: version, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	slog.SetDefault(cfg.Log)
	var err error
	if f := c.String("network"); f != "" {
		if cfg.Network, err = directory.LoadNetwork(f); err != nil {
			return err
		}
	}
	for _, s := range c.StringSlice("entry") {
		e, err := directory.ParseEntry(s)
		if err != nil {
			return &usageError{fmt.Errorf("--entry: %w", err)}
		}
		if slices.ContainsFunc(cfg.Network.Entries, func(other directory.EntryRelay) bool { return other.ID == e.ID }) {
			continue
		}
		if len(cfg.Network.Entries) == directory.MaxEntries {
			return &usageError{fmt.Errorf("--entry: more than %d entry relays", directory.MaxEntries)}
		}
		cfg.Network.Entries = append(cfg.Network.Entries, e)
	}
	if s := c.String("source"); s != "" {
		if cfg.Source, err = netip.ParseAddr(s); err != nil {
			return &usageError{fmt.Errorf("--source: %w", err)}
		}
	}
	if s := c.String("advertise"); s != "" {
		if a, err := netip.ParseAddr(s); err == nil {
			cfg.Advertise = netip.AddrPortFrom(a, 0)
		} else if cfg.Advertise, err = netip.ParseAddrPort(s); err != nil {
			return &usageError{fmt.Errorf("--advertise: %w", err)}
		}
	}
	t, err := tracker.New(cfg)
	if err != nil {
		return err
	}
	if c.Bool("print-id") {
		fmt.Println(t.Name())
		return t.Close()
	}
	fmt.Println(t.Link())
	if c.Bool("print-link") {
		return t.Close()
	}
	return t.Run(c.Context)
}
