package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/cmd/internal/program"
	"github.com/shoal-p2p/shoal/cmd/internal/version"
	"github.com/shoal-p2p/shoal/relay"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

var relayCommand = &cli.Command{
	Name:  "relay",
	Usage: "run a relay for others",
	Description: `A relay forwards encrypted circuits between other relays and sidecars. It
connects only to relays and trackers of its network, never to the open internet,
and does not see who shares what. Its port must be reachable from outside. The
log shows within a minute whether each tracker reaches it.

A RATE is in bits (kbit, Mbit, Gbit) or bytes (KB, MB, GB of 1000 bytes; KiB,
MiB, GiB of 1024) per second, e.g. 80Mbit, 10MB or 9.5MiB/s.

Example: shoal relay --network network.json --listen 0.0.0.0:9001 --limit 80Mbit`,
	Flags: append([]cli.Flag{
		networkFlag, trackerFlag, stateFlag("relay"), sourceFlag,
		&cli.StringFlag{Name: "listen", Usage: "`IP:PORT` on which to accept links", Value: "0.0.0.0:9001"},
		&cli.StringFlag{Name: "advertise", Usage: "`ADDR` at which others reach this relay, as IP, IP:PORT or PORT, e.g. 203.0.113.5 (default: what its trackers see)"},
		&cli.StringFlag{Name: "rate", Usage: "advertised `RATE`, e.g. 100Mbit or 12.5MB; circuits choose relays by it", Value: "12.5MB"},
		&cli.StringFlag{Name: "limit", Usage: "maximum `RATE` sent over all links together, e.g. 80Mbit or 10MB (default: unlimited)"},
		&cli.StringFlag{Name: "contact", Usage: "public contact `TEXT` in the directory, e.g. an email address"},
		&cli.StringSliceFlag{Name: "family", Usage: "`ID` of another relay that you run, so that no circuit uses both; set it on both relays, repeat for several"},
		&cli.BoolFlag{Name: "print-id", Usage: "print this relay's ID@IP:PORT for network files and exit, also while it runs; creates the keys if needed"},
	}, program.LogFlags("info")...),
	Action: program.Stoppable(runRelay),
}

// severalRelays is how to run a second relay beside the first.
var severalRelays = program.Several{What: "relay", Flags: []string{"--state DIR", "--listen 0.0.0.0:9002"}}

func runRelay(c *cli.Context) error {
	cfg, err := relayConfig(c)
	if err != nil {
		return err
	}
	if c.Bool("print-id") {
		name, err := relay.Name(cfg)
		if err != nil {
			return program.Explain(c, err, severalRelays)
		}
		fmt.Println(name)
		return nil
	}
	if cfg.Network, err = network(c); err != nil {
		return err
	}
	// With one thread Go polls the network only when it has nothing else to do, or
	// after 10 ms: circuits that carry little would wait for those that carry much.
	if runtime.GOMAXPROCS(0) == 1 && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2)
	}
	r, err := relay.New(cfg)
	if err != nil {
		return program.Explain(c, err, severalRelays)
	}
	fmt.Printf("relay %v\n", r.ID()) // the log says where, once that is known
	return r.Run(c.Context)
}

// relayConfig returns what the flags set, without the network.
func relayConfig(c *cli.Context) (cfg relay.Config, err error) {
	cfg = relay.Config{Contact: c.String("contact"), Program: version.Number}
	if cfg.Log, err = program.Logger(c); err != nil {
		return cfg, err
	}
	if cfg.State, err = state(c); err != nil {
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
	if cfg.Rate, err = rate(c, "rate"); err != nil {
		return cfg, err
	}
	if cfg.Limit, err = rate(c, "limit"); err != nil {
		return cfg, err
	}
	if err := directory.CheckContact(cfg.Contact); err != nil {
		return cfg, program.Usagef("--contact: %w", err)
	}
	if n := len(c.StringSlice("family")); n > directory.MaxFamily {
		return cfg, program.Usagef("--family: %d relays, at most %d", n, directory.MaxFamily)
	}
	for _, s := range c.StringSlice("family") {
		id, err := onion.ParseID(s)
		if err != nil {
			return cfg, program.Usagef("--family: %w; shoal relay --print-id prints it, before the @", err)
		}
		cfg.Family = append(cfg.Family, id)
	}
	return cfg, nil
}

// rate returns the rate that a flag sets, 0 if it is not set.
func rate(c *cli.Context, flag string) (uint64, error) {
	s := c.String(flag)
	if s == "" {
		return 0, nil
	}
	n, err := program.ParseRate(s)
	if err != nil {
		return 0, program.Usagef("--%s: %w", flag, err)
	}
	return n, nil
}
