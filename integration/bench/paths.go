package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/chain"
	"github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/bench/tor"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// The names of the paths, as they stand in the table.
const (
	direct     = "direct"
	plainChain = "end, 6 plain forwarders, end"
	tlsChain   = "end, 6 TLS 1.3 forwarders, end"
	shoalPath  = "Shoal: sidecar, 6 relays, sidecar"
	torDefault = "Tor onion service, defaults"
	torTuned   = "Tor onion service, best settings"
)

// pathHops is how many hops lie between the two ends of a chain, and how many
// relays between two sidecars: two own ones, where they meet, three own ones.
const pathHops = 6

var sidecarHops = []int{2, 3}

// path is one way from the sink to the source.
type path struct {
	name  string
	ways  []peer.Way // one for each stream
	parts map[string][]int
	bytes int64         // of one transfer, all its streams together
	limit time.Duration // for sending them
	stop  func()
}

// manyStreams is how many streams the second column has.
const manyStreams = 8

// paths measures the selected ones of chain, tor and shoal, a transfer over
// each in turn, round after round.
func paths(ctx context.Context, b *bench, selected []string) (err error) {
	dir, err := b.folder("paths")
	if err != nil {
		return err
	}
	e, err := startEnds(dir)
	if err != nil {
		return err
	}
	defer e.stop()
	all, notes, err := startPaths(ctx, b, e, dir, selected)
	defer func() {
		for _, p := range all {
			if p.stop != nil {
				p.stop()
			}
		}
	}()
	if err != nil {
		return err
	}
	s := b.report.section("paths", "bulk from end to end; CPU counts every process on the path, both ends included")
	s.Notes = notes
	for round := range b.rounds {
		for _, streams := range []int{1, manyStreams} {
			for i := range all {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				p := all[(i+round)%len(all)] // nobody is always the one after the same other
				if err := transfer(s, e, p, streams); err != nil {
					return fmt.Errorf("%s, round %d: %w", p.name, round+1, err)
				}
			}
		}
	}
	firstBytes(s, e, all, b.rounds)
	slices.SortStableFunc(s.Figures, func(a, b *Figure) int { return order(all, a.Row) - order(all, b.Row) })
	judge(s)
	return nil
}

// order is where a row stands: the paths as they were started, then their parts.
func order(all []path, row string) int {
	i := slices.IndexFunc(all, func(p path) bool { return p.name == row })
	if i < 0 {
		return len(all)
	}
	return i
}

// column names a figure of the table by its number of streams.
func column(what string, streams int) string {
	if streams == 1 {
		return what + " 1 stream"
	}
	return fmt.Sprintf("%s %d streams", what, streams)
}

// transfer measures one transfer over p.
func transfer(s *Section, e *ends, p path, streams int) error {
	c, err := e.measure(peer.Pull{Ways: p.ways[:streams], Bytes: p.bytes, Limit: p.limit}, p.parts)
	if err != nil {
		return err
	}
	s.add(p.name, column("", streams)[1:], "MB/s", c.rate())
	s.add(p.name, column("CPU", streams), "s/GB", c.perGB())
	if relays := p.parts["relays"]; relays != nil {
		s.add(p.name+", each relay", column("CPU", streams), "s/GB", c.partPerGB("relays")/pathHops)
		s.add(p.name+", both sidecars", column("CPU", streams), "s/GB", c.partPerGB("sidecars"))
		s.add(p.name+", both ends", column("CPU", streams), "s/GB", c.partPerGB("source")+c.partPerGB("sink"))
	}
	return nil
}

// firstBytes times how long the first byte takes to come over each path: with
// all that a stream can share with others in place, and, in Tor, without.
func firstBytes(s *Section, e *ends, all []path, rounds int) {
	for range rounds {
		for _, p := range all {
			o := peer.Ask{Way: p.ways[0], Size: 16, Count: 1}
			if a, err := e.ask(o); err == nil {
				s.add(p.name, "first byte, warm", "ms", ms(a.Greeted))
			}
			if p.name != torDefault && p.name != torTuned {
				continue
			}
			h := peer.RandomHash()
			o.Way.User = fmt.Sprintf("%x", h[:4]) // streams of another user share no circuit
			if a, err := e.ask(o); err == nil {
				s.add(p.name, "first byte, new circuit", "ms", ms(a.Greeted))
			}
		}
	}
}

// startPaths starts what the paths are made of.
func startPaths(ctx context.Context, b *bench, e *ends, dir string, selected []string) (all []path, notes []string, err error) {
	bytes, limit := int64(1<<30), 15*time.Second
	if b.quick {
		bytes, limit = 64<<20, 4*time.Second
	}
	add := func(p path) {
		if p.bytes == 0 {
			p.bytes = bytes
		}
		p.limit = limit
		all = append(all, p)
	}
	if slices.Contains(selected, "chain") {
		add(path{name: direct, ways: same(peer.Way{To: e.addr})})
		for _, c := range []struct {
			name string
			tls  bool
		}{{plainChain, false}, {tlsChain, true}} {
			r, err := chain.Start(chain.Shape{Hops: pathHops, TLS: c.tls}, e.addr, filepath.Join(dir, fmt.Sprintf("chain-tls-%t", c.tls)))
			if err != nil {
				return all, notes, err
			}
			add(path{name: c.name, ways: same(peer.Way{To: r.Addr}), parts: map[string][]int{"forwarders": r.PIDs()}, stop: r.Stop})
		}
	}
	if slices.Contains(selected, "shoal") {
		p, idle, err := startShoal(ctx, b, e)
		if err != nil {
			return all, notes, err
		}
		add(p)
		notes = append(notes, idle)
	}
	if slices.Contains(selected, "tor") {
		version, err := tor.Version()
		if errors.Is(err, tor.ErrMissing) {
			notes = append(notes, "tor is not installed: integration/prereq.sh bench installs it")
			return all, notes, nil
		}
		if err != nil {
			return all, notes, err
		}
		b.report.Programs = append(b.report.Programs, version)
		var both [2]path // side by side: each takes a minute until its consensus and descriptors are there
		var errs [2]error
		var wg sync.WaitGroup
		for i := range both {
			wg.Go(func() { both[i], errs[i] = startTor(ctx, e, filepath.Join(dir, fmt.Sprintf("tor-%d", i+1)), i == 1) })
		}
		wg.Wait()
		for i, p := range both {
			if errs[i] == nil {
				add(p)
			}
		}
		if err := errors.Join(errs[:]...); err != nil {
			return all, notes, err
		}
	}
	return all, notes, nil
}

// same returns a way for each stream: all the same one.
func same(w peer.Way) []peer.Way { return slices.Repeat([]peer.Way{w}, manyStreams) }

// startShoal starts a network in which every circuit between the sidecars has
// six relays, and joins a swarm for each stream.
func startShoal(ctx context.Context, b *bench, e *ends) (p path, idle string, err error) {
	n, err := b.network(ctx, "shoal", testnet.Config{Relays: pathHops, Sidecars: 2, Hops: sidecarHops, ViewEvery: viewEvery})
	if err != nil {
		return p, "", err
	}
	p = path{name: shoalPath, stop: func() { n.Close() }, parts: map[string][]int{
		"relays": relayPIDs(n), "sidecars": {n.Sidecars[0].PID, n.Sidecars[1].PID},
	}}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if p.ways, err = e.must(meeting{from: n.Sidecars[1], to: n.Sidecars[0], hashes: hashes(manyStreams)}); err != nil {
		return p, "", err
	}
	for _, w := range p.ways { // opens the circuits
		if _, err := e.ask(peer.Ask{Way: w, Size: 16, Count: 1}); err != nil {
			return p, "", err
		}
	}
	idle, err = idleUse(p.parts)
	return p, idle, err
}

// viewEvery keeps what relays and trackers do besides carrying traffic small,
// as it is in a real network, where views are made hourly.
const viewEvery = 5 * time.Second

// idleUse says what the parts use while nothing is carried.
func idleUse(parts map[string][]int) (string, error) {
	const wait = 3 * time.Second
	before, err := usage(parts)
	if err != nil {
		return "", err
	}
	time.Sleep(wait)
	after, err := usage(parts)
	if err != nil {
		return "", err
	}
	var sum time.Duration
	for name := range parts {
		sum += after[name] - before[name]
	}
	return fmt.Sprintf("idle, Shoal's relays and sidecars use %.1f %% of one core together; it is not taken off", 100*sum.Seconds()/wait.Seconds()), nil
}

// startTor starts a private Tor network that leads to the source.
func startTor(ctx context.Context, e *ends, dir string, tuned bool) (p path, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	n, err := tor.Start(ctx, tor.Config{Dir: dir, Target: e.addr, Tuned: tuned})
	if err != nil {
		return p, err
	}
	p = path{name: torDefault, ways: same(peer.Way{SOCKS: n.SOCKS, To: n.Onion}), parts: map[string][]int{"tor": n.PIDs()},
		bytes: 256 << 20, stop: func() { n.Close() }}
	if tuned {
		p.name = torTuned
	}
	for { // until the service has told where it can be met
		_, err = e.ask(peer.Ask{Way: p.ways[0], Size: 16, Count: 1})
		if err == nil {
			return p, nil
		}
		select {
		case <-ctx.Done():
			n.Close()
			return p, fmt.Errorf("tor: the onion service can't be reached: %w", err)
		case <-time.After(time.Second):
		}
	}
}

// judge compares Shoal with the TLS chain and with Tor.
func judge(s *Section) {
	for _, streams := range []int{1, manyStreams} {
		rate, cpu := column("", streams)[1:], column("CPU", streams)
		word := column("of", streams)[3:]
		ours, ok := s.median(shoalPath, cpu)
		if !ok {
			return
		}
		fast, _ := s.median(shoalPath, rate)
		if theirs, ok := s.median(tlsChain, cpu); ok {
			most := map[int]float64{1: 1.7, manyStreams: 2.0}[streams]
			s.atMost("CPU per byte, of the TLS chain's, "+word+" (links of crypto/tls)", ours/theirs, most, "")
			s.atMost("CPU per byte, of the TLS chain's, "+word+" (links of our own)", ours/theirs, 1.3, "")
			chained, _ := s.median(tlsChain, rate)
			s.atLeast("throughput, of the TLS chain's, "+word, fast/chained, 0.8, "")
		}
		if theirs, ok := s.median(torTuned, cpu); ok {
			s.atMost("CPU per byte, of best-tuned Tor's, "+word, ours/theirs, 0.2, "")
			tuned, _ := s.median(torTuned, rate)
			s.atLeast("throughput, of best-tuned Tor's, "+word, fast/tuned, 4, "")
		}
	}
}
