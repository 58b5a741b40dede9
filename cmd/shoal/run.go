package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	folder "github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/cmd/internal/program"
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
	Flags: append([]cli.Flag{
		networkFlag, trackerFlag, sourceFlag,
		&cli.StringFlag{Name: "state", Usage: "`DIR` for keys and saved state, readable by you only", DefaultText: "the first unused of shoal/run/1, 2, … in your configuration folder"},
		&cli.StringSliceFlag{Name: "publish", Usage: "port of this machine to forward to the command, as `[HOST:]PORT[:CLIENTPORT]`, e.g. 9091; repeat for several"},
		&cli.StringFlag{Name: "interface", Usage: "`NAME[=ADDRESS]` of the command's only network interface, for a client that is set to use one, e.g. wg0 or wg0=10.2.0.2", DefaultText: fmt.Sprintf("%s=%v", netns.DefaultInterface, netns.ClientAddr)},
		&cli.StringFlag{Name: "status", Usage: "`IP:PORT` of the status page, a loopback address", Value: "127.0.0.1:0", DefaultText: "a free port, printed"},
		hopsFlag, bootstrapFlag,
	}, program.LogFlags("warn")...),
	Action: run,
}

// maxRuns is how many commands at once find a state folder of their own.
const maxRuns = 64

// severalRuns is how to run a second command beside the first: by default each
// finds a state folder and a status port of its own.
var severalRuns = program.Several{What: "sidecar", Flags: []string{"--state DIR", "--status 127.0.0.1:1083", "--publish 9092:9091"}}

func run(c *cli.Context) error {
	command := c.Args().Slice()
	if len(command) == 0 {
		return program.Usagef("no command to run: see shoal run --help")
	}
	cfg, err := sidecar(c)
	if err != nil {
		return err
	}
	cfg.NoSOCKS = true
	var publish []netns.Publish
	for _, s := range c.StringSlice("publish") {
		p, err := netns.ParsePublish(s)
		if err != nil {
			return program.Usagef("--publish: %w", err)
		}
		publish = append(publish, p)
	}
	// The command's signals, not the sidecar's: netns.Run passes them on.
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	confined := netns.Config{Command: command, Publish: publish}
	if s := c.String("interface"); s != "" {
		if confined.Interface, confined.Addr, err = netns.ParseInterface(s); err != nil {
			return program.Usagef("--interface: %w", err)
		}
	}
	p, err := openRun(cfg, c.String("state"))
	if err != nil {
		return refused(c, err, severalRuns)
	}
	fmt.Fprintf(os.Stderr, "shoal: status page: %s\n", p.StatusURL())
	code, err := p.Command(context.WithoutCancel(ctx), confined)
	if errors.Is(err, proxy.ErrUsage) {
		return program.Usage(err)
	}
	if err != nil {
		if code == 0 {
			code = 1
		}
		return &program.Error{Code: code, Err: program.Explain(c, err, severalRuns)}
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
		return nil, errNoState
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
