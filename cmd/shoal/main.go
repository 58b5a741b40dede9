// Command shoal is Shoal for those who share files and those who run relays:
// shoal proxy, shoal run, shoal relay, shoal testnet, shoal demo.
// Not here: protocol decisions. Flags become a Config, and Run is called.
package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/cmd/internal/program"
	"github.com/shoal-p2p/shoal/proxy"
	"github.com/shoal-p2p/shoal/proxy/netns"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

func main() {
	netns.Init() // does not return in the processes that shoal run starts
	program.Main(&cli.App{
		Name:  "shoal",
		Usage: "share files with the torrent client you already use, without showing your address",
		Description: `Start the sidecar with "shoal proxy" and set its address as the SOCKS5 proxy of
your torrent client. All traffic to trackers and peers then goes through relays,
encrypted from end to end. Your peers are other Shoal users only.

There is no public Shoal network yet. "shoal demo" shows Shoal at work on this
machine, "shoal testnet" starts a network on this machine to try things out.

Exit status: 0 success, 1 failure, 2 usage error.`,
		Commands: []*cli.Command{proxyCommand, runCommand, setupCommand, doctorCommand, relayCommand, networkCommand, testnetCommand, demoCommand},
	})
}

// The flags that mean the same in several commands.
var (
	networkFlag   = &cli.StringFlag{Name: "network", Usage: "network `FILE`: the trackers and entry relays to use, e.g. network.json"}
	trackerFlag   = &cli.StringSliceFlag{Name: "tracker", Usage: "tracker `LINK`, as shoal-tracker prints it, instead of a network file; repeat for several trackers"}
	sourceFlag    = &cli.StringFlag{Name: "source", Usage: "local `IP` address for outgoing connections, e.g. 192.168.1.20 (default: chosen by the system)"}
	hopsFlag      = &cli.IntFlag{Name: "hops", Usage: "`NUMBER` of your own relays on each circuit, 1 to 4 (0 in a test network only)", Value: proxy.DefaultHops, Action: program.Between("hops", 0, path.MaxOwn)}
	bootstrapFlag = &cli.BoolFlag{Name: "bootstrap-direct", Usage: "if the network has no entry relays, dial a tracker at the first start; the tracker then sees your address"}
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

// errNoState is the refusal of a command that has nowhere to keep its state.
var errNoState = program.Usagef("--state is required: this system has no configuration folder for you")

func state(c *cli.Context) (string, error) {
	if dir := c.String("state"); dir != "" {
		return dir, nil
	}
	return "", errNoState
}

// network returns the network that the flags name.
func network(c *cli.Context) (directory.Network, error) {
	file, links := c.String("network"), c.StringSlice("tracker")
	switch {
	case file != "" && len(links) > 0:
		return directory.Network{}, program.Usagef("--network and --tracker exclude each other: use one of them")
	case file != "":
		return program.Network(file)
	case len(links) > 0:
		return fromLinks(links)
	}
	return directory.Network{}, errors.New(`no network specified, and there is no public Shoal network yet.
  Join a network with --network FILE or --tracker LINK, which you get from someone who runs a tracker.
  Start one on this machine: shoal testnet --state DIR
  See Shoal at work: shoal demo`)
}

// fromLinks returns the network of trackers given by their links.
func fromLinks(links []string) (directory.Network, error) {
	var all []directory.Link
	for _, s := range links {
		if _, err := os.Stat(s); err == nil && !strings.Contains(s, "://") {
			return directory.Network{}, program.Usagef("--tracker: %s is a file, not a tracker link; if it is a network file, use --network %[1]s", s)
		}
		l, err := directory.ParseLink(s)
		if err != nil {
			return directory.Network{}, program.Usagef("--tracker: %w", err)
		}
		all = append(all, l)
	}
	n, err := directory.FromLinks(all...)
	if err != nil {
		return n, program.Usagef("--tracker: %w", err)
	}
	return n, nil
}
