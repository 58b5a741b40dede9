package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/cmd/internal/program"
	"github.com/shoal-p2p/shoal/cmd/internal/version"
	"github.com/shoal-p2p/shoal/proxy"
)

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
	Flags: append([]cli.Flag{
		networkFlag, trackerFlag, stateFlag("proxy"), sourceFlag,
		&cli.StringFlag{Name: "socks", Usage: "`IP:PORT` of the SOCKS5 proxy for torrent clients", Value: proxy.DefaultSOCKS},
		&cli.StringFlag{Name: "socks-password-file", Usage: "`FILE` with the password that every SOCKS user must give; required unless --socks is a loopback address"},
		&cli.StringFlag{Name: "status", Usage: "`IP:PORT` of the status page, a loopback address", Value: proxy.DefaultStatus},
		hopsFlag,
		&cli.BoolFlag{Name: "strict", Usage: "refuse clients that announce but keep peer connections out of the proxy", DefaultText: "warn about them"},
		bootstrapFlag,
	}, program.LogFlags("info")...),
	Action: program.Stoppable(runProxy),
}

// severalProxies is how to run a second sidecar beside the first.
var severalProxies = program.Several{What: "sidecar", Flags: []string{"--state DIR", "--socks 127.0.0.1:1082", "--status 127.0.0.1:1083"}}

func runProxy(c *cli.Context) error {
	cfg, err := sidecar(c)
	if err != nil {
		return err
	}
	if cfg.State, err = state(c); err != nil {
		return err
	}
	if cfg.SOCKS, err = program.Listen(c, "socks"); err != nil {
		return err
	}
	if cfg.Password, err = program.PasswordFile(c, "socks-password-file"); err != nil {
		return err
	}
	if a, err := netip.ParseAddrPort(cfg.SOCKS); cfg.Password == "" && (err != nil || !a.Addr().IsLoopback()) {
		return program.Usagef("--socks: other machines can reach %s: protect it with --socks-password-file, or use a loopback address, e.g. %s", cfg.SOCKS, proxy.DefaultSOCKS)
	}
	cfg.Strict = c.Bool("strict")
	p, err := proxy.New(cfg)
	if err != nil {
		return refused(c, err, severalProxies)
	}
	fmt.Printf("SOCKS5 proxy for your torrent client: %v\nstatus page: %s\n", p.SOCKS(), p.StatusURL())
	if t := cfg.Network.Trusts(); t != "" {
		fmt.Fprintln(os.Stderr, "note:", t)
	}
	return p.Run(c.Context)
}

// sidecar returns what shoal proxy and shoal run set alike.
func sidecar(c *cli.Context) (cfg proxy.Config, err error) {
	cfg = proxy.Config{Hops: c.Int("hops"), BootstrapDirect: c.Bool("bootstrap-direct"), Program: version.Full()}
	if cfg.Log, err = program.Logger(c); err != nil {
		return cfg, err
	}
	if cfg.Status, err = program.Loopback(c, "status"); err != nil {
		return cfg, err
	}
	if cfg.Source, err = program.Source(c); err != nil {
		return cfg, err
	}
	cfg.Network, err = network(c)
	return cfg, err
}

// refused words the error of a sidecar that did not start.
func refused(c *cli.Context, err error, s program.Several) error {
	if errors.Is(err, proxy.ErrUsage) {
		return program.Usage(err)
	}
	return program.Explain(c, err, s)
}
