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
		Description: `Prints its tracker link first: give it to those who are to use this tracker. A
sidecar never dials it directly, so a link needs entry relays: start with
--network FILE that names them, or add them with --entry.`,
		Version:         version,
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "network", Usage: "`FILE` whose entry relays and test settings to use"},
			&cli.StringSliceFlag{Name: "entry", Usage: "`ID@ADDR` of an entry relay for the link, as shoal relay --print-id prints it; several times for several"},
			&cli.StringFlag{Name: "state", Usage: "`DIR` for keys, views and records; readable by you only", Value: "shoal-tracker"},
			&cli.StringFlag{Name: "listen", Usage: "`ADDR` to accept links on, IP and port", Value: "0.0.0.0:9000"},
			&cli.StringFlag{Name: "advertise", Usage: "`ADDR` that others reach it at, when behind NAT or in Docker"},
			&cli.StringFlag{Name: "source", Usage: "`ADDR` to dial relays from, an IP address of this machine"},
			&cli.DurationFlag{Name: "interval", Usage: "between announces", Value: tracker.DefaultInterval},
			&cli.IntFlag{Name: "stamp", Usage: "work that a record must show, in bits; 0 asks for none"},
			&cli.StringFlag{Name: "redis", EnvVars: []string{"SHOAL_REDIS"}, Usage: "`URL` of the Redis server, 6.2 or newer, that keeps the records: redis://USER:PASSWORD@HOST:PORT/NUMBER; without it, this process does"},
			&cli.BoolFlag{Name: "print-link", Usage: "make the keys, print the link, and exit"},
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
		return &usageError{fmt.Errorf("nothing is done with %q: see shoal-tracker --help", c.Args().First())}
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
	fmt.Println(t.Link())
	if c.Bool("print-link") {
		return t.Close()
	}
	return t.Run(c.Context)
}
