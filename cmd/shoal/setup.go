package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/cmd/internal/program"
	"github.com/shoal-p2p/shoal/proxy"
	"github.com/shoal-p2p/shoal/proxy/doctor"
	"github.com/shoal-p2p/shoal/proxy/setup"
)

// askTimeout bounds the talk with a client that runs.
const askTimeout = 30 * time.Second

// The flags that say which client is meant, and how to reach it.
var accessFlags = []cli.Flag{
	&cli.StringFlag{Name: "config", Usage: "settings `FILE` of the client, if not in its default place"},
	&cli.StringFlag{Name: "url", Usage: "`URL` of qBittorrent's Web UI or Transmission's RPC, or HOST:PORT of Deluge's daemon, e.g. http://127.0.0.1:8080 (default: read from its settings)"},
	&cli.StringFlag{Name: "login", Usage: "user `NAME` for --url"},
	&cli.StringFlag{Name: "login-password-file", Usage: "`FILE` with the password for --login"},
}

func access(c *cli.Context) (setup.Access, error) {
	a := setup.Access{Config: c.String("config"), URL: c.String("url"), User: c.String("login")}
	var err error
	a.Password, err = program.PasswordFile(c, "login-password-file")
	return a, err
}

var setupCommand = &cli.Command{
	Name:  "setup",
	Usage: "configure a torrent client for Shoal, or undo that",
	Description: `Show which settings will change and ask before changing them. A running client
is changed through its own interface, a stopped one in its settings file. --undo
restores the previous settings.

Example: shoal setup qbittorrent`,
	Subcommands: []*cli.Command{
		setupClient(setup.QBittorrent, "use the sidecar's SOCKS5 proxy for everything; turn the DHT off"),
		setupClient(setup.Deluge, "use the sidecar's SOCKS5 proxy for trackers, peers and names; turn the DHT off"),
		setupClient(setup.Transmission, "prepare it for shoal run, which it needs because it has no SOCKS setting for peers"),
	},
	Action: func(c *cli.Context) error {
		return program.Usage(errors.New("specify a client: shoal setup qbittorrent, deluge or transmission"))
	},
}

func setupClient(name setup.Client, what string) *cli.Command {
	flags := append([]cli.Flag{
		&cli.BoolFlag{Name: "undo", Usage: "restore the previous settings"},
		&cli.BoolFlag{Name: "yes", Usage: "do not ask before changing"},
		stateFlag("proxy"),
	}, accessFlags...)
	if name != setup.Transmission {
		flags = append([]cli.Flag{
			&cli.StringFlag{Name: "socks", Usage: "`IP:PORT` of the sidecar's SOCKS5 proxy", Value: proxy.DefaultSOCKS},
			&cli.StringFlag{Name: "socks-user", Usage: "SOCKS user `NAME`, any name; needed if several clients share the sidecar or it has a password"},
			&cli.StringFlag{Name: "socks-password-file", Usage: "`FILE` with the sidecar's SOCKS password"},
			&cli.BoolFlag{Name: "keep-dht", Usage: "do not change the DHT setting"},
		}, flags...)
	}
	return &cli.Command{
		Name: string(name), Usage: what, Flags: flags,
		Action: func(c *cli.Context) error { return runSetup(c, name) },
	}
}

func runSetup(c *cli.Context, name setup.Client) error {
	dir, err := state(c)
	if err != nil {
		return err
	}
	a, err := access(c)
	if err != nil {
		return err
	}
	var want setup.Want
	if name != setup.Transmission {
		if want, err = wanted(c); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(c.Context, askTimeout)
	defer cancel()
	i, err := setup.Find(name, a)
	if err != nil {
		return err
	}
	var plan *setup.Plan
	if c.Bool("undo") {
		plan, err = setup.NewUndo(ctx, i, dir)
	} else {
		plan, err = setup.NewPlan(ctx, i, want, dir)
	}
	if err != nil {
		return err
	}
	if !show(i, plan, c.Bool("undo")) {
		return nil
	}
	if !c.Bool("yes") && !confirm(os.Stdin) {
		return errors.New("nothing was changed")
	}
	ctx, cancel = context.WithTimeout(c.Context, askTimeout) // however long the user thought
	defer cancel()
	if err := plan.Apply(ctx); err != nil {
		return err
	}
	if !c.Bool("undo") {
		fmt.Printf("Done. To undo it: shoal setup %s --undo\n", name)
	} else {
		fmt.Println("Done.")
	}
	return nil
}

// wanted returns what the flags want.
func wanted(c *cli.Context) (setup.Want, error) {
	w := setup.Want{User: c.String("socks-user"), KeepDHT: c.Bool("keep-dht")}
	var err error
	if w.SOCKS, err = socksAddr(c); err != nil {
		return w, err
	}
	if w.Password, err = program.PasswordFile(c, "socks-password-file"); err != nil {
		return w, err
	}
	if w.Password != "" && w.User == "" {
		return w, program.Usage(errors.New("--socks-password-file: say --socks-user too, any name"))
	}
	return w, nil
}

// socksAddr returns the sidecar's address.
func socksAddr(c *cli.Context) (netip.AddrPort, error) {
	s := c.String("socks")
	if port, ok := strings.CutPrefix(s, "localhost:"); ok {
		s = "127.0.0.1:" + port
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 || a.Addr().IsUnspecified() {
		return a, program.Usage(fmt.Errorf("--socks: %q is not an address with a port, as %s", s, proxy.DefaultSOCKS))
	}
	return a, nil
}

// show prints a plan, and says if there is anything to do.
func show(i setup.Instance, plan *setup.Plan, undo bool) bool {
	where := i.File
	if plan.API() {
		where = "which runs"
	}
	if len(plan.Changes) == 0 && !undo {
		fmt.Printf("%s (%s): nothing to change.\n", i.Client.Title(), where)
	} else {
		fmt.Printf("%s (%s):\n", i.Client.Title(), where)
	}
	for _, change := range plan.Changes {
		fmt.Println(" ", change)
	}
	for _, n := range plan.Notes {
		fmt.Println("Note:", n)
	}
	return len(plan.Changes) > 0 || undo
}

// confirm asks the user. No answer is a no.
func confirm(in io.Reader) bool {
	fmt.Print("Change this? [y/N] ")
	line, _ := bufio.NewReader(in).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true
	}
	fmt.Println()
	return false
}

var doctorCommand = &cli.Command{
	Name:  "doctor",
	Usage: "check torrent clients for traffic that bypasses the sidecar",
	Description: `Check the running torrent clients, their settings and sockets, and the sidecar.
Each leak is listed with the setting that closes it.

Exit status: 0 no leak, 1 a leak or an incomplete check, 2 usage error.`,
	Flags: append([]cli.Flag{
		&cli.StringFlag{Name: "socks", Usage: "`IP:PORT` of the sidecar's SOCKS5 proxy", Value: proxy.DefaultSOCKS},
		&cli.StringFlag{Name: "status", Usage: "`URL` of the sidecar's status page", Value: "http://" + proxy.DefaultStatus},
		&cli.StringSliceFlag{Name: "client", Usage: "client to check even if it is not running, `NAME` is qbittorrent, deluge or transmission; repeat for several (default: all that run)"},
	}, accessFlags...),
	Action: runDoctor,
}

func runDoctor(c *cli.Context) error {
	cfg := doctor.Config{Status: c.String("status")}
	if !strings.Contains(cfg.Status, "://") {
		cfg.Status = "http://" + cfg.Status
	}
	var err error
	if cfg.SOCKS, err = socksAddr(c); err != nil {
		return err
	}
	if cfg.Clients, err = clientNames(c.StringSlice("client")); err != nil {
		return err
	}
	if cfg.Access, err = access(c); err != nil {
		return err
	}
	if cfg.Access != (setup.Access{}) && len(cfg.Clients) != 1 {
		return program.Usage(errors.New("--config, --url and --login are about one client: say which with --client"))
	}
	ctx, cancel := context.WithTimeout(c.Context, askTimeout)
	defer cancel()
	r, err := doctor.Look(ctx, cfg)
	if err != nil {
		return err
	}
	for _, p := range r.Patients {
		report(os.Stdout, p.Client.Title(), p.Findings)
	}
	report(os.Stdout, "Sidecar at "+cfg.SOCKS.String(), r.Sidecar)
	if r.Clean() {
		fmt.Println("Clean.")
		return nil
	}
	switch n := r.Leaks(); n {
	case 0:
	case 1:
		return errors.New("1 leak, see above")
	default:
		return fmt.Errorf("%d leaks, see above", n)
	}
	return errors.New("not everything could be looked at, see above")
}

func clientNames(all []string) ([]setup.Client, error) {
	var out []setup.Client
next:
	for _, name := range all {
		for _, known := range setup.Clients {
			if string(known) == strings.ToLower(name) {
				out = append(out, known)
				continue next
			}
		}
		return nil, program.Usage(fmt.Errorf("--client: no client %q: there are qbittorrent, deluge and transmission", name))
	}
	return out, nil
}

// report prints the findings about one thing.
func report(w io.Writer, about string, all []doctor.Finding) {
	for _, f := range all {
		fmt.Fprintf(w, "%-7s %-11s %s: %s\n", f.Level, f.What, about, f.Says)
		if f.Close != "" {
			fmt.Fprintf(w, "%19s %s: %s\n", "", map[bool]string{true: "close it", false: "for that"}[f.Level == doctor.Leak], f.Close)
		}
	}
}
