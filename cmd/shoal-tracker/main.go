// Command shoal-tracker is Shoal's tracker: it keeps sealed records that it
// can't read, and lists the relays that it reaches.
// Not here: protocol decisions. Flags become a Config, and Run is called.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/cmd/internal/program"
	"github.com/shoal-p2p/shoal/cmd/internal/version"
	"github.com/shoal-p2p/shoal/tracker"
	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

func main() {
	// Records dominate and hardly change: a small share of garbage beside them
	// costs less than twice their memory would.
	debug.SetGCPercent(25)
	program.Main(&cli.App{
		Name:  "shoal-tracker",
		Usage: "run a Shoal tracker",
		Description: `Print a link for relays, and run until interrupted. As soon as relays that were
started with it have been reached, print the link for sidecars too: it names the
relays where a sidecar enters the network, since it never dials a tracker itself.
--print-link prints the newest link, also while the tracker runs.

Example: shoal-tracker --state tracker --listen 0.0.0.0:9000

Exit status: 0 success, 1 failure, 2 usage error.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "network", Usage: "network `FILE` from which to take entry relays, ranges and test settings"},
			&cli.StringSliceFlag{Name: "within", Usage: "private `RANGE` in which a network of your LAN or VPN lives, e.g. 192.168.1.0/24 or 100.64.0.0/10; repeat for several (default: a public network)"},
			&cli.StringSliceFlag{Name: "entry", Usage: "entry relay for the link, as `ID@IP:PORT` from shoal relay --print-id; repeat for several"},
			&cli.StringFlag{Name: "state", Usage: "`DIR` for keys, views and records, readable by you only", Value: "shoal-tracker"},
			&cli.StringFlag{Name: "listen", Usage: "`IP:PORT` on which to accept links", Value: "0.0.0.0:9000"},
			&cli.StringFlag{Name: "advertise", Usage: "`ADDR` at which others reach this tracker, as IP, IP:PORT or PORT, e.g. 203.0.113.5 (default: this machine's address)"},
			&cli.StringFlag{Name: "source", Usage: "local `IP` address for outgoing connections, e.g. 192.168.1.20 (default: chosen by the system)"},
			&cli.DurationFlag{Name: "interval", Usage: "time between a member's announces, e.g. 10m", Value: tracker.DefaultInterval, Action: program.DurationBetween("interval", time.Second, announce.MaxInterval)},
			&cli.IntFlag{Name: "stamp", Usage: "proof of work required of a record, in `BITS` (0: none)", Action: program.Between("stamp", 0, announce.MaxStampBits)},
			&cli.StringFlag{Name: "redis", EnvVars: []string{"SHOAL_REDIS"}, Usage: "`URL` of a Redis server, 6.2 or newer, that keeps the records, as redis://USER:PASSWORD@HOST:PORT/NUMBER (default: kept in memory and --state)"},
			&cli.BoolFlag{Name: "print-link", Usage: "print the tracker link and exit, also while the tracker runs; creates the keys if needed"},
			&cli.BoolFlag{Name: "print-id", Usage: "print the tracker's KEY@IP:PORT for network files and exit, also while it runs; creates the keys if needed"},
		}, program.LogFlags("info")...),
		Action: program.Stoppable(run),
	})
}

// severalTrackers is how to run a second tracker beside the first.
var severalTrackers = program.Several{What: "tracker", Flags: []string{"--state DIR", "--listen 0.0.0.0:9002"}}

func run(c *cli.Context) error {
	cfg, err := config(c)
	if err != nil {
		return err
	}
	if c.Bool("print-id") {
		name, err := tracker.Name(cfg)
		if err != nil {
			return program.Explain(c, err, severalTrackers)
		}
		fmt.Println(name)
		return nil
	}
	cfg.Linked = func(l directory.Link) {
		fmt.Printf("link for sidecars and relays, for --tracker:\n%v\n", l)
	}
	t, err := tracker.New(cfg)
	if c.Bool("print-link") {
		return printLink(c, t, cfg.State, err)
	}
	if err != nil {
		return program.Explain(c, err, severalTrackers)
	}
	where := t.Where()
	fmt.Printf("tracker at %v, %s\n", where.Addr, where.How)
	if l := t.Link(); len(l.Entries) == 0 {
		fmt.Printf("link for relays, for shoal relay --tracker LINK:\n%v\n", l)
		fmt.Printf("There is no link for sidecars yet: it names %d relays that this tracker has reached.\nIt is printed here as soon as so many have been started with the link above.\n", tracker.LinkEntries)
	}
	return t.Run(c.Context)
}

// printLink prints the link of t or, when another process runs on its state
// folder, the one that it has saved.
func printLink(c *cli.Context, t *tracker.Tracker, dir string, err error) error {
	var l directory.Link
	switch {
	case err == nil:
		l = t.Link()
		err = t.Close()
	case errors.Is(err, state.ErrInUse):
		var ok bool
		if l, ok, err = tracker.SavedLink(dir); err == nil && !ok {
			err = errors.New("the tracker that runs on this state folder has saved no link yet: try again in some seconds")
		}
	}
	if err != nil {
		return program.Explain(c, err, severalTrackers)
	}
	fmt.Println(l)
	if len(l.Entries) == 0 {
		fmt.Fprintf(os.Stderr, "note: this link is for relays (shoal relay --tracker): it names no entry relays, where sidecars enter. The tracker names %d as soon as it has reached so many.\n", tracker.LinkEntries)
	}
	return nil
}

// config returns what the flags set.
func config(c *cli.Context) (cfg tracker.Config, err error) {
	cfg = tracker.Config{
		State: c.String("state"), Interval: c.Duration("interval"), StampBits: c.Int("stamp"),
		Redis: c.String("redis"), Program: version.Number,
	}
	if cfg.State == "" {
		return cfg, program.Usagef("--state is empty: want a folder, e.g. shoal-tracker")
	}
	if cfg.Log, err = program.Logger(c); err != nil {
		return cfg, err
	}
	if cfg.Listen, err = program.Listen(c, "listen"); err != nil {
		return cfg, err
	}
	if cfg.Advertise, err = program.Advertise(c); err != nil {
		return cfg, err
	}
	if cfg.Source, err = program.Source(c); err != nil {
		return cfg, err
	}
	if f := c.String("network"); f != "" {
		if cfg.Network, err = program.Network(f); err != nil {
			return cfg, err
		}
	}
	if within := c.StringSlice("within"); len(within) > 0 {
		if c.IsSet("network") {
			return cfg, program.Usagef("--network and --within exclude each other: the network file has a setting of that name")
		}
		if cfg.Network.Within, err = directory.ParseWithin(within); err != nil {
			return cfg, program.Usagef("--within: %w", err)
		}
	}
	cfg.Network.Entries, err = addEntries(cfg.Network.Entries, c.StringSlice("entry"))
	return cfg, err
}

// addEntries returns entries with those that --entry names.
func addEntries(entries []directory.EntryRelay, named []string) ([]directory.EntryRelay, error) {
	for _, s := range named {
		e, err := directory.ParseEntry(s)
		if err != nil {
			return nil, program.Usagef("--entry: %w; shoal relay --print-id prints it", err)
		}
		if slices.ContainsFunc(entries, func(other directory.EntryRelay) bool { return other.ID == e.ID }) {
			continue
		}
		if len(entries) == directory.MaxEntries {
			return nil, program.Usagef("--entry: more than %d entry relays", directory.MaxEntries)
		}
		entries = append(entries, e)
	}
	return entries, nil
}
