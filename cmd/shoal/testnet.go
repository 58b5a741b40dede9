package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	folder "github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/cmd/internal/program"
	"github.com/shoal-p2p/shoal/integration/demo"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

var testnetCommand = &cli.Command{
	Name:  "testnet",
	Usage: "start a whole network on this machine, to try things out",
	Description: `Start trackers, relays and sidecars as separate processes on loopback and run
until interrupted. Such a network hides nobody.

Example: shoal testnet --state /tmp/shoal-net --json`,
	Flags: []cli.Flag{
		&cli.IntFlag{Name: "trackers", Usage: "`NUMBER` of trackers", Value: 1, Action: program.Between("trackers", 1, testnet.MaxMembers)},
		&cli.IntFlag{Name: "relays", Usage: "`NUMBER` of relays", Value: 6, Action: program.Between("relays", 0, testnet.MaxMembers)},
		&cli.IntFlag{Name: "sidecars", Usage: "`NUMBER` of sidecars", Value: 2, Action: program.Between("sidecars", 0, testnet.MaxMembers)},
		&cli.StringFlag{Name: "hops", Usage: "own relays per circuit, one `NUMBER` for each sidecar, e.g. 2,3; the last one repeats (default: 2)"},
		&cli.DurationFlag{Name: "link-delay", Usage: "one-way delay on every link, e.g. 50ms", DefaultText: "none", Action: program.DurationBetween("link-delay", 0, math.MaxInt64)},
		&cli.StringFlag{Name: "state", Usage: "`DIR` for keys, logs and the network file (required)"},
		&cli.BoolFlag{Name: "json", Usage: "print one line of JSON on stdout when the network is ready"},
	},
	Action: program.Stoppable(runTestnet),
}

func runTestnet(c *cli.Context) error {
	cfg := testnet.Config{
		Trackers: c.Int("trackers"), Relays: c.Int("relays"), Sidecars: c.Int("sidecars"),
		LinkDelay: c.Duration("link-delay"), State: c.String("state"),
	}
	if cfg.State == "" {
		return program.Usagef("--state is required: a folder for keys, logs and the network file, e.g. %s", filepath.Join(os.TempDir(), "shoal-net"))
	}
	if hops := c.String("hops"); hops != "" {
		for s := range strings.SplitSeq(hops, ",") {
			n, err := strconv.Atoi(s)
			if err != nil {
				return program.Usagef("--hops %q: want numbers separated by commas, e.g. 2 or 2,3", hops)
			}
			cfg.Hops = append(cfg.Hops, n)
		}
	}
	if err := cfg.Check(); err != nil {
		return program.Usage(err)
	}
	if err := folder.MakeDir(cfg.State); err != nil {
		return err
	}
	var err error
	if cfg.Shoal, cfg.Tracker, err = programs(); err != nil {
		return err
	}
	return testnet.Run(c.Context, cfg, os.Stdout, c.Bool("json"), os.Stderr)
}

var demoCommand = &cli.Command{
	Name:      "demo",
	Usage:     "watch two real qBittorrents move a picture through a network on this machine",
	ArgsUsage: "[PICTURE]",
	Description: `Start a network on this machine and two qBittorrents that use it. One of them
sends PICTURE, or a drawn one, to the other. A packet recording then shows what
each party saw. Everything is removed at the end.`,
	Action: program.Stoppable(runDemo),
}

func runDemo(c *cli.Context) error {
	if err := program.AtMost(c, 1); err != nil {
		return err
	}
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
}

// programs returns this program and shoal-tracker beside it.
func programs() (shoal, tracker string, err error) {
	if shoal, err = os.Executable(); err != nil {
		return "", "", err
	}
	tracker = filepath.Join(filepath.Dir(shoal), "shoal-tracker"+filepath.Ext(shoal))
	if _, err := os.Stat(tracker); err != nil {
		return "", "", fmt.Errorf(`%s is missing: it must be in the folder of this program; "make build" builds both`, tracker)
	}
	return shoal, tracker, nil
}
