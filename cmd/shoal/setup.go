package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/cmd/internal/program"
	"github.com/shoal-p2p/shoal/proxy"
	"github.com/shoal-p2p/shoal/proxy/setup"
)

var setupCommand = &cli.Command{
	Name:  "setup",
	Usage: "configure a torrent client for Shoal, or undo that",
	Description: `Show which settings will change and ask before changing them. A running client
is changed through its own interface, a stopped one in its settings file. --undo
restores the previous settings.

Example: shoal setup qbittorrent`,
	Subcommands: setupClients(),
	Action: func(c *cli.Context) error {
		return program.Usagef("specify a client: shoal setup %s", clientNames("or"))
	},
}

func setupClients() (all []*cli.Command) {
	for _, client := range setup.Clients() {
		all = append(all, setupClient(client))
	}
	return all
}

func setupClient(client setup.Client) *cli.Command {
	usage := "prepare it for shoal run, which it needs because it has no safe SOCKS setting for peers"
	flags := append([]cli.Flag{
		&cli.BoolFlag{Name: "undo", Usage: "restore the previous settings"},
		&cli.BoolFlag{Name: "yes", Usage: "do not ask before changing"},
		&cli.BoolFlag{Name: "keep-interface", Usage: "do not remove the client's binding to a network interface or address"},
		stateFlag("proxy"),
	}, accessFlags...)
	if client.NoSOCKS() == "" {
		usage = "use the sidecar's SOCKS5 proxy for everything; turn the DHT off"
		flags = append([]cli.Flag{
			&cli.StringFlag{Name: "socks", Usage: "`IP:PORT` of the sidecar's SOCKS5 proxy", Value: proxy.DefaultSOCKS},
			&cli.StringFlag{Name: "socks-user", Usage: "SOCKS user `NAME`, any name; needed if several clients share the sidecar or it has a password"},
			&cli.StringFlag{Name: "socks-password-file", Usage: "`FILE` with the sidecar's SOCKS password (default: asked for if needed)"},
			&cli.BoolFlag{Name: "keep-dht", Usage: "do not change the DHT setting"},
			&cli.BoolFlag{Name: "keep-https-check", Usage: "do not turn off the check of HTTPS trackers' certificates, without which they work"},
		}, flags...)
	}
	return &cli.Command{
		Name: client.Name(), Usage: usage, Flags: flags,
		Action: func(c *cli.Context) error { return runSetup(c, client) },
	}
}

func runSetup(c *cli.Context, client setup.Client) error {
	dir, err := state(c)
	if err != nil {
		return err
	}
	a, err := access(c)
	if err != nil {
		return err
	}
	undo := c.Bool("undo")
	var want setup.Want
	var notes []string
	if want.KeepBound = c.Bool("keep-interface"); client.NoSOCKS() == "" && !undo {
		if notes, err = wanted(c, client, &want); err != nil {
			return err
		}
	}
	i, err := find(client, a)
	if err != nil {
		return err
	}
	plan, err := makePlan(c.Context, i, a, func(ctx context.Context, i setup.Instance) (*setup.Plan, error) {
		if undo {
			return setup.NewUndo(ctx, i, dir)
		}
		return setup.NewPlan(ctx, i, want, dir)
	})
	if err != nil {
		return err
	}
	plan.Notes = append(plan.Notes, notes...)
	if !show(i, plan, undo) {
		return nil
	}
	if !c.Bool("yes") && !confirm() {
		return errors.New("nothing was changed")
	}
	ctx, cancel := context.WithTimeout(c.Context, askTimeout)
	defer cancel()
	if err := plan.Apply(ctx); err != nil {
		return err
	}
	if !undo {
		fmt.Printf("Done. To undo it: shoal setup %s --undo\n", client.Name())
	} else {
		fmt.Println("Done.")
	}
	return nil
}

// maxLogins is how often a login is asked for.
const maxLogins = 3

// makePlan makes a plan. It asks for the client's login if the client wants one.
func makePlan(ctx context.Context, i setup.Instance, a setup.Access, plan func(context.Context, setup.Instance) (*setup.Plan, error)) (p *setup.Plan, err error) {
	name := a.User
	for range maxLogins + 1 {
		err := func() (err error) {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			p, err = plan(ctx, i.Reached(a))
			return err
		}()
		if !errors.Is(err, setup.ErrLogin) {
			return p, err
		}
		t, ok := user()
		if !ok {
			return nil, err
		}
		if a.User, a.Password, err = t.login(i.Client.Title(), name); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s refused the login %d times: nothing was changed", i.Client.Title(), maxLogins)
}

// wanted fills in what the flags want, after a look at the sidecar: whether it
// is there, and takes the login. It returns what the user should know.
func wanted(c *cli.Context, client setup.Client, w *setup.Want) (notes []string, err error) {
	w.User, w.KeepDHT, w.KeepHTTPS = c.String("socks-user"), c.Bool("keep-dht"), c.Bool("keep-https-check")
	if w.SOCKS, err = socksAddr(c); err != nil {
		return nil, err
	}
	if w.Password, err = program.PasswordFile(c, "socks-password-file"); err != nil {
		return nil, err
	}
	if w.Password != "" && w.User == "" {
		return nil, program.Usagef("--socks-password-file: specify --socks-user too, any name")
	}
	for range maxLogins + 1 {
		answer := setup.Knock(c.Context, w.SOCKS, w.User, w.Password)
		switch answer {
		case setup.Served:
			return nil, nil
		case setup.Nobody, setup.Silence:
			return []string{fmt.Sprintf("No sidecar answers at %v yet, and until then the client reaches nobody: start it with shoal proxy.", w.SOCKS)}, nil
		case setup.Foreign:
			return nil, fmt.Errorf("what listens at %v speaks no SOCKS5, so it is not the sidecar%s\n  Specify the sidecar's address with --socks", w.SOCKS, prefixed(": ", setup.Holder(w.SOCKS)))
		}
		t, ok := user()
		if !ok && answer == setup.LoginMissing {
			return nil, fmt.Errorf("the sidecar at %v wants a password\n  Specify --socks-user, any name, and --socks-password-file", w.SOCKS)
		}
		if !ok {
			return nil, fmt.Errorf("the sidecar at %v refuses the password in --socks-password-file", w.SOCKS)
		}
		if w.User == "" {
			w.User = client.Name()
		}
		if _, w.Password, err = t.login(fmt.Sprintf("The sidecar at %v", w.SOCKS), w.User); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the sidecar refused the password %d times: nothing was changed", maxLogins)
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// show prints a plan, and reports whether there is anything to do.
func show(i setup.Instance, plan *setup.Plan, undo bool) bool {
	where := prefixed(" (", i.String())
	if where != "" {
		where += ")"
	}
	if len(plan.Changes) == 0 && !undo {
		fmt.Printf("%s%s: nothing to change.\n", i.Client.Title(), where)
	} else {
		fmt.Printf("%s%s:\n", i.Client.Title(), where)
	}
	for _, change := range plan.Changes {
		fmt.Println(" ", change)
	}
	for _, n := range plan.Notes {
		fmt.Println("Note:", n)
	}
	if i.Client.NoSOCKS() != "" && !undo {
		fmt.Println("Start it with:", i.RunCommand())
	}
	return len(plan.Changes) > 0 || undo
}

// confirm asks the user. No answer is a no.
func confirm() bool {
	t, _ := user() // or a program that answers for one
	switch strings.ToLower(t.line("Change this? [y/N] ")) {
	case "y", "yes":
		return true
	}
	return false
}
