package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	folder "github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/proxy"
	"github.com/shoal-p2p/shoal/proxy/netns"
)

var runCommand = &cli.Command{
	Name:      "run",
	Usage:     "run a torrent client that can reach nothing but Shoal (Linux)",
	ArgsUsage: "-- COMMAND [ARGUMENT…]",
	Description: `For clients without a SOCKS setting for peers (Transmission, aria2, rTorrent), and
for a guarantee with any client. COMMAND runs as you, in a network namespace
whose only interface ends in the sidecar, so nothing can bypass it.

--publish forwards a port of this machine to COMMAND, for its web interface.

Example: shoal run --network network.json --publish 9091 -- transmission-daemon -f`,
	Flags: []cli.Flag{
		networkFlag, trackerFlag, sourceFlag,
		&cli.StringFlag{Name: "state", Usage: "`DIR` for keys and saved state, readable by you only", DefaultText: "the first unused of shoal/run/1, 2, … in your configuration folder"},
		&cli.StringSliceFlag{Name: "publish", Usage: "port of this machine to forward to the command, as `[HOST:]PORT[:CLIENTPORT]`, e.g. 9091; repeat for several"},
		&cli.StringFlag{Name: "status", Usage: "`IP:PORT` of the status page, a loopback address", Value: "127.0.0.1:0", DefaultText: "a free port, printed"},
		&cli.IntFlag{Name: "hops", Usage: "`NUMBER` of your own relays on each circuit, 1 to 4", Value: proxy.DefaultHops},
		&cli.BoolFlag{Name: "bootstrap-direct", Usage: "if the network has no entry relays, dial a tracker at the first start; the tracker then sees your address"},
		verboseFlag,
	},
	Action: run,
}

// maxRuns is how many commands at once find a state folder of their own.
const maxRuns = 64

func run(c *cli.Context) error {
	command := c.Args().Slice()
	if len(command) == 0 {
		return &exitError{2, errors.New("run: no command: shoal run [flags] -- COMMAND")}
	}
	n, err := network(c)
	if err != nil {
		return err
	}
	cfg := proxy.Config{Network: n, Status: c.String("status"), Hops: c.Int("hops"), NoSOCKS: true, BootstrapDirect: c.Bool("bootstrap-direct"), Log: logger(c)}
	if cfg.Source, err = source(c); err != nil {
		return err
	}
	var publish []netns.Publish
	for _, s := range c.StringSlice("publish") {
		p, err := netns.ParsePublish(s)
		if err != nil {
			return &exitError{2, fmt.Errorf("--publish: %w", err)}
		}
		publish = append(publish, p)
	}
	p, err := openRun(cfg, c.String("state"))
	if errors.Is(err, proxy.ErrUsage) {
		return &exitError{2, err}
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "shoal: status page: %s\n", p.StatusURL())
	// Signals are the command's: netns.Run passes them on.
	code, err := p.Command(context.WithoutCancel(c.Context), netns.Config{Command: command, Publish: publish})
	if err != nil {
		if code == 0 {
			code = 1
		}
		return &exitError{code, err}
	}
	os.Exit(code)
	return nil
}

// openRun opens the sidecar in dir, or where none is named in the first folder
// that no other command is using.
func openRun(cfg proxy.Config, dir string) (*proxy.Sidecar, error) {
	if dir != "" {
		cfg.State = dir
		return proxy.New(cfg)
	}
	base := defaultState("run")
	if base == "" {
		return nil, &exitError{2, errors.New("--state: this system names no folder for configuration; say one")}
	}
	var err error
	for i := range maxRuns {
		cfg.State = filepath.Join(base, fmt.Sprint(i+1))
		var p *proxy.Sidecar
		if p, err = proxy.New(cfg); !errors.Is(err, folder.ErrInUse) {
			return p, err
		}
	}
	return nil, err
}
