package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/cmd/internal/program"
	"github.com/shoal-p2p/shoal/proxy"
	"github.com/shoal-p2p/shoal/proxy/doctor"
	"github.com/shoal-p2p/shoal/proxy/setup"
)

var doctorCommand = &cli.Command{
	Name:  "doctor",
	Usage: "find out why a torrent client reaches nobody, or what bypasses the sidecar",
	Description: `Check the running torrent clients, their settings and sockets, and the sidecar.
Each leak and each fault is listed with the setting that ends it.

Exit status: 0 no leak and no fault, 1 a leak, a fault or an incomplete check,
2 usage error.`,
	Flags: append([]cli.Flag{
		&cli.StringFlag{Name: "socks", Usage: "`IP:PORT` of the sidecar's SOCKS5 proxy", Value: proxy.DefaultSOCKS},
		&cli.StringFlag{Name: "status", Usage: "`URL` of the sidecar's status page", Value: "http://" + proxy.DefaultStatus},
		&cli.StringSliceFlag{Name: "client", Usage: "client to check even if it is not running, `NAME` is " + clientNames("or") + "; repeat for several (default: all that run)"},
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
	for _, name := range c.StringSlice("client") {
		client, ok := setup.ByName(name)
		if !ok {
			return program.Usagef("--client: no client %q: there are %s", name, clientNames("and"))
		}
		cfg.Clients = append(cfg.Clients, client)
	}
	if cfg.Access, err = access(c); err != nil {
		return err
	}
	if cfg.Access != (setup.Access{}) && len(cfg.Clients) != 1 {
		return program.Usagef("--pid, --config, --url and --login are about one client: specify which with --client")
	}
	ctx, cancel := context.WithTimeout(c.Context, askTimeout)
	defer cancel()
	r, err := doctor.Look(ctx, cfg)
	if err != nil {
		return err
	}
	var looked []string
	for _, p := range r.Patients {
		about := fmt.Sprintf("%s (%s)", p.Client.Title(), p.Short())
		report(os.Stdout, about, p.Findings)
		looked = append(looked, about)
	}
	if r.Looked {
		about := "the sidecar at " + cfg.SOCKS.String()
		report(os.Stdout, about, r.Sidecar)
		looked = append(looked, about)
	}
	return verdict(r, looked)
}

// verdict prints that all is well, or returns what is not.
func verdict(r doctor.Report, looked []string) error {
	if r.Clean() {
		fmt.Printf("Clean. Checked: %s.\n", strings.Join(looked, "; "))
		return nil
	}
	var all []string
	for _, level := range []doctor.Level{doctor.Leak, doctor.Fault} {
		switch n := r.Count(level); n {
		case 0:
		case 1:
			all = append(all, "1 "+level.String())
		default:
			all = append(all, fmt.Sprintf("%d %ss", n, level))
		}
	}
	if len(r.Patients) == 0 {
		all = append(all, "no torrent client was checked, since none that Shoal knows runs here: name one with --client to have its settings checked")
	} else if len(all) == 0 {
		all = append(all, "the check is incomplete")
	}
	text := strings.Join(all, ", ")
	if r.Count(doctor.Leak)+r.Count(doctor.Fault)+r.Count(doctor.Unknown) > 0 {
		text += "; see above"
	}
	return errors.New(text)
}

// report prints the findings about one thing.
func report(w io.Writer, about string, all []doctor.Finding) {
	for _, f := range all {
		fmt.Fprintf(w, "%-7s %-11s %s: %s\n", f.Level, f.What, about, f.Says)
		if f.Close != "" {
			fmt.Fprintf(w, "%19s to do: %s\n", "", f.Close)
		}
	}
}
