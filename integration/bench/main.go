// Command bench measures Shoal beside what it is compared with, in one run on
// one machine: chains of plain and TLS forwarders, and a private Tor network.
// It prints tables and writes the same as JSON into a folder; what an earlier
// run measured is never shown again.
// Not here: what the parts of a measurement are (the packages below), tests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/chain"
	"github.com/shoal-p2p/shoal/integration/bench/child"
	"github.com/shoal-p2p/shoal/integration/bench/crowd"
	"github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/netns"
)

// bench is one run.
type bench struct {
	shoal, tracker string // the programs
	link           string // package link's benchmarks
	dir            string // for logs and state; removed when all went well
	quick          bool
	rounds         int
	report         *Report
}

// services are what this program's children can do.
func services() []any {
	return []any{new(peer.Peer), new(chain.Chain), new(crowd.Crowd), new(crowd.Views)}
}

// suite is a part of a run that can be selected.
type suite struct {
	name string
	what string
	run  func(context.Context, *bench) error
	rare bool // takes too long to be run unless it is named
}

// The suites chain, tor and shoal are one: their rounds are interleaved.
var suites = []suite{
	{"chain", "throughput and CPU of chains of forwarders", nil, false},
	{"tor", "the same of a private Tor network's onion service, as it comes and at its best", nil, false},
	{"shoal", "the same of six relays between two sidecars", nil, false},
	{"first", "time to ready, to the first announce's answer, and to dial a peer", first, false},
	{"distance", "one stream over distant links, and a second that joins", distance, false},
	{"clients", "a file from one client to another, directly, through SOCKS and under shoal run", realClients, false},
	{"fair", "a small stream's round trips beside a bulk stream", fair, false},
	{"circuits", "20,000 idle circuits on one relay, and how fast they open", circuits, false},
	{"cores", "what a relay carries with one core and with two", cores, false},
	{"tracker", "announces to a tracker with a million records", trackers, false},
	{"directory", "a directory of 10,000 relays: fetched, verified, chosen from", directories, false},
	{"swarms", "200 torrents in one client", swarms, false},
	{"many", "2,000 torrents in one client; takes ten minutes", many, true},
}

// groups are names for several suites.
var groups = map[string][]string{
	"paths": {"chain", "tor", "shoal"},
	"scale": {"circuits", "cores", "tracker", "directory", "swarms"},
}

func main() {
	child.Main(services()...)
	code, err := start(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(code)
}

// options are what the flags say.
type options struct {
	bin, out string
	quick    bool
	rounds   int
	selected []string
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.bin, "bin", "bin", "folder of the programs shoal and shoal-tracker")
	flags.StringVar(&o.out, "out", "bench", "folder for the JSON")
	flags.BoolVar(&o.quick, "quick", false, "one short round of each: shows that it runs, measures little")
	flags.IntVar(&o.rounds, "rounds", 5, "rounds of each measurement")
	only := flags.String("only", "", "suites to run, separated by commas; empty: all but the rare")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: bench [flags]\nThe suites:")
		for _, s := range suites {
			fmt.Fprintf(flags.Output(), "  %-10s %s\n", s.name, s.what)
		}
		fmt.Fprintln(flags.Output(), "paths is chain, tor and shoal; scale is circuits, cores, tracker, directory and swarms. The flags:")
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return o, err
	case err != nil || flags.NArg() > 0 || o.rounds < 1:
		return o, errors.New("see bench -help")
	}
	if o.quick {
		o.rounds = 1
	}
	o.selected, err = choose(*only)
	return o, err
}

// start runs the program, inside a network with nothing but loopback where the
// system lets us have one, and returns what to exit with.
func start(args []string) (code int, err error) {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return 2, err
	}
	if netns.Inside() {
		if err := netns.Enter(); err != nil {
			return 1, err
		}
	} else if code, err := netns.Run(args, nil); err == nil {
		return code, nil
	} else {
		fmt.Fprintf(os.Stderr, "bench: %v\nbench: so there will be no real torrent clients: they would talk to others\n", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, func() {
		stop() // a second signal ends the program, and with it its children
		fmt.Fprintln(os.Stderr, "bench: stopping after what is being measured; once more to stop at once")
	})()
	b := &bench{quick: o.quick, rounds: o.rounds}
	if err := b.prepare(o); err != nil {
		return 1, err
	}
	if err := b.run(ctx, o.selected); err != nil {
		return 1, err
	}
	return 0, nil
}

// choose returns the names of the suites that a list selects.
func choose(list string) (selected []string, err error) {
	if list == "" {
		for _, s := range suites {
			if !s.rare {
				selected = append(selected, s.name)
			}
		}
		return selected, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if g, ok := groups[name]; ok {
			selected = append(selected, g...)
			continue
		}
		if !slices.ContainsFunc(suites, func(s suite) bool { return s.name == name }) {
			return nil, fmt.Errorf("no suite %q: see bench -help", name)
		}
		selected = append(selected, name)
	}
	return selected, nil
}

// prepare makes what a run needs.
func (b *bench) prepare(o options) (err error) {
	b.shoal, b.tracker = filepath.Join(o.bin, "shoal"), filepath.Join(o.bin, "shoal-tracker")
	b.link = filepath.Join(o.bin, "link.test")
	for _, p := range []*string{&b.shoal, &b.tracker, &b.link} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
		if _, err := os.Stat(*p); err != nil {
			return fmt.Errorf("%w: make bench makes it", err)
		}
	}
	if b.report, err = newReport(o.out, b.quick); err != nil {
		return err
	}
	b.dir, err = os.MkdirTemp("", "shoal-bench-")
	return err
}

// run runs the selected suites. One that fails is told, and the others run.
func (b *bench) run(ctx context.Context, selected []string) error {
	fmt.Printf("Shoal's figures, %s\n%s; load %s before\n", b.report.Started.Format(time.RFC1123), b.report.Machine, load())
	if b.quick {
		fmt.Println("QUICK: one short round each. These figures show that it runs, no more.")
	}
	var failed []error
	did := func(name string, f func() error) {
		if ctx.Err() != nil {
			return
		}
		before := len(b.report.Sections)
		start := time.Now()
		err := f()
		for _, s := range b.report.Sections[before:] {
			s.print(os.Stdout)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
			fmt.Printf("\n%s: FAILED: %v\n", name, err)
		}
		fmt.Printf("  (%s took %v)\n", name, time.Since(start).Round(time.Second))
		if err := b.report.save(); err != nil {
			failed = append(failed, err)
		}
	}
	if slices.ContainsFunc(groups["paths"], func(name string) bool { return slices.Contains(selected, name) }) {
		did("paths", func() error { return paths(ctx, b, selected) })
	}
	for _, s := range suites {
		if s.run != nil && slices.Contains(selected, s.name) {
			did(s.name, func() error { return s.run(ctx, b) })
		}
	}
	fmt.Printf("\nAll of it as JSON: %s\n", b.report.file)
	if ctx.Err() != nil {
		return errors.Join(errors.New("interrupted"), os.RemoveAll(b.dir))
	}
	if len(failed) > 0 {
		return fmt.Errorf("%w (logs are in %s)", errors.Join(failed...), b.dir)
	}
	return os.RemoveAll(b.dir)
}

// folder makes a folder for one part of a run.
func (b *bench) folder(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	return dir, os.MkdirAll(dir, 0o700)
}
