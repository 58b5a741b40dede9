package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/chain"
	"github.com/shoal-p2p/shoal/integration/bench/meter"
	"github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// small is a stream of questions and small answers, and bulk a stream of as much
// as goes, to be measured beside it.
type (
	small struct {
		name string
		way  peer.Way
	}
	bulk struct {
		name string
		way  peer.Way
	}
)

// filled is how relays come to be filled: by their limit, or by the processor.
type filled struct {
	delay time.Duration // of links
	limit int           // of each relay, MB/s; 0: none
}

func (f filled) String() string {
	if f.limit == 0 {
		return fmt.Sprintf("links of %v", f.delay)
	}
	return fmt.Sprintf("links of %v, relays of %d MB/s", f.delay, f.limit)
}

// fills are what is measured: 5 ms makes links of a continent; 8 MB/s, which one
// bulk stream passes its guard with twice, leaves processors idle.
var fills = []filled{{0, 0}, {5 * time.Millisecond, 0}, {0, 8}, {5 * time.Millisecond, 8}}

// fair measures a small stream's round trips with and without a bulk stream
// beside it, over near and over more distant links.
func fair(ctx context.Context, b *bench) error {
	s := b.report.section("fair", "round trips of a small stream, alone and beside a bulk stream through the same two relays")
	for _, f := range fills {
		if err := fairOver(ctx, b, s, f); err != nil {
			return fmt.Errorf("%v: %w", f, err)
		}
	}
	if err := b.relayFair(ctx, s); err != nil {
		return err
	}
	s.note("both ends, all sidecars and all relays share this machine's cores: without a limit the bulk fills these, and the small stream waits for the scheduler, too; with a limit, or a core for the relay and another for the rest, the relay is full and the rest is not, as in the field")
	return nil
}

// relayFair runs BenchmarkRelayFair of package link on two cores and adds what it
// says to s. The relay runs on one of them, with the threads that shoal relay has
// there.
func (b *bench) relayFair(ctx context.Context, s *Section) error {
	const row = "a relay that has one core, full"
	for range b.rounds {
		said, err := b.relayBench(ctx, "RelayFair$", "0,1", 2)
		if err != nil {
			return err
		}
		s.add(row+", alone", "median", "ms", said["alone-median-us"]/1e3)
		s.add(row+", alone", "99th percentile", "ms", said["alone-p99-us"]/1e3)
		s.add(row+", beside bulk", "median", "ms", said["beside-median-us"]/1e3)
		s.add(row+", beside bulk", "99th percentile", "ms", said["beside-p99-us"]/1e3)
		s.add(row+", beside bulk", "bulk meanwhile", "MB/s", said["MB/s"])
	}
	alone, _ := s.median(row+", alone", "median")
	median, _ := s.median(row+", beside bulk", "median")
	high, _ := s.median(row+", beside bulk", "99th percentile")
	s.atMost(row+": median beside bulk, of the median alone", median/alone, 2, "")
	s.atMost(row+": 99th percentile beside bulk, of the median alone", high/alone, 4, "")
	return nil
}

// fairOver measures one way to fill relays. There are only two, so that
// all circuits share them both: a guard, and where they meet.
func fairOver(ctx context.Context, b *bench, s *Section, f filled) error {
	name := fmt.Sprintf("fair-%v-%d", f.delay, f.limit)
	dir, err := b.folder(name)
	if err != nil {
		return err
	}
	n, err := b.network(ctx, name, testnet.Config{Relays: 2, Sidecars: 4, Hops: []int{1}, LinkDelay: f.delay, ViewEvery: viewEvery, RelayFlags: f.flags()})
	if err != nil {
		return err
	}
	defer n.Close()
	var all [2]*ends // with processes of its own the small stream waits for the network alone
	for i := range all {
		if all[i], err = startEnds(filepath.Join(dir, fmt.Sprintf("ends-%d", i+1))); err != nil {
			return err
		}
		defer all[i].stop()
	}
	through, err := all[0].must(meeting{from: n.Sidecars[0], to: n.Sidecars[1], hashes: hashes(1)})
	if err != nil {
		return err
	}
	c, err := chain.Start(chain.Shape{Hops: pathHops, TLS: true}, all[0].addr, filepath.Join(dir, "chain"))
	if err != nil {
		return err
	}
	defer c.Stop()
	bulks := []bulk{{"bulk", through[0]}, {"a TLS chain's bulk", peer.Way{To: c.Addr}}}
	other, err := all[1].must(meeting{from: n.Sidecars[2], to: n.Sidecars[3], hashes: hashes(1)})
	if err != nil {
		return err
	}
	same, err := all[1].must(meeting{from: n.Sidecars[0], to: n.Sidecars[1], hashes: hashes(1)})
	if err != nil {
		return err
	}
	where := f.String() + ", "
	smalls := []small{{where + "other sidecars", other[0]}, {where + "the bulk's sidecars", same[0]}}
	count := 400
	if f != fills[0] { // the scheduler matters little then
		bulks = bulks[:1]
	}
	if b.quick {
		count /= 4
	}
	for range b.rounds {
		for _, m := range smalls {
			if err := beside(s, all, m, bulks, relayPIDs(n), count, f.pace()); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
	}
	alone, ok := s.median(smalls[0].name+", alone", "median")
	if !ok {
		return nil
	}
	median, _ := s.median(smalls[0].name+", beside bulk", "median")
	high, _ := s.median(smalls[0].name+", beside bulk", "99th percentile")
	relays, _ := s.median(smalls[0].name+", beside bulk", "fullest relay")
	if f == fills[0] && relays < full { // the machine is full, no relay is
		chains, _ := s.median(smalls[0].name+", beside a TLS chain's bulk", "median")
		chainsHigh, _ := s.median(smalls[0].name+", beside a TLS chain's bulk", "99th percentile")
		s.note("%sno limit: the fullest relay uses %.2f of a core, the machine is full; beside Shoal's bulk the median is %.1f times and the 99th percentile %.1f times the median alone, and %.1f and %.1f times what they are beside the bulk of a TLS chain, which shares no relay with the small stream", where, relays, median/alone, high/alone, median/chains, high/chainsHigh)
		return nil
	}
	s.atMost(where+"median beside bulk, of the median alone", median/alone, 2, "")
	s.atMost(where+"99th percentile beside bulk, of the median alone", high/alone, 4, "")
	return nil
}

func (f filled) flags() []string {
	if f.limit == 0 {
		return nil
	}
	return []string{"--limit", fmt.Sprintf("%dMB", f.limit)}
}

// pace is how long there is between two questions. Each is a cell, and so is its
// answer, and passes the guard twice: every 20 ms they are a tenth of what a
// limited one carries.
func (f filled) pace() time.Duration {
	if f.limit > 0 {
		return 20 * time.Millisecond
	}
	return 5 * time.Millisecond
}

// beside measures one round of one small stream.
func beside(s *Section, all [2]*ends, m small, bulks []bulk, relays []int, count int, pace time.Duration) error {
	trips := func(row string) error {
		a, err := all[1].ask(peer.Ask{Way: m.way, Size: 64, Count: count, Every: pace})
		if err != nil {
			return err
		}
		sorted := millis(a.Trips)
		s.add(row, "median", "ms", percentile(sorted, 50))
		s.add(row, "90th percentile", "ms", percentile(sorted, 90))
		s.add(row, "99th percentile", "ms", percentile(sorted, 99))
		s.add(row, "most", "ms", sorted[len(sorted)-1])
		return nil
	}
	if err := trips(m.name + ", alone"); err != nil {
		return err
	}
	for _, b := range bulks {
		var pulled peer.Pulled
		done := make(chan error, 1)
		go func() {
			var err error
			pulled, err = all[0].pull(peer.Pull{Ways: []peer.Way{b.way}, Bytes: 1 << 40, Limit: longest})
			done <- err
		}()
		time.Sleep(widen)
		row := m.name + ", beside " + b.name
		fullest, err := busiest(relays, func() error { return trips(row) })
		select {
		case early := <-done:
			return errors.Join(fmt.Errorf("%s ended before the questions did", b.name), early, err)
		default:
		}
		if cut := all[0].sink.Call("Peer.Cut", struct{}{}, new(struct{})); cut != nil {
			return errors.Join(cut, err)
		}
		if err := errors.Join(<-done, err); err != nil {
			return err
		}
		s.add(row, "fullest relay", "cores", fullest)
		s.add(row, "bulk meanwhile", "MB/s", float64(pulled.Bytes())/1e6/pulled.Time().Seconds())
	}
	return nil
}

// busiest returns what part of a core the busiest of pids uses while f runs.
func busiest(pids []int, f func() error) (part float64, err error) {
	before, began := make([]time.Duration, len(pids)), time.Now()
	for i, pid := range pids {
		if before[i], err = meter.CPU(pid); err != nil {
			return 0, err
		}
	}
	if err := f(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	for i, pid := range pids {
		after, err := meter.CPU(pid)
		if err != nil {
			return 0, err
		}
		part = max(part, (after-before[i]).Seconds()/took.Seconds())
	}
	return part, nil
}

// full is what a relay without a limit uses of a core, or more, when it is what a
// stream waits for.
const full = 0.9

// longest bounds a bulk stream, whatever happens beside it.
const longest = 2 * time.Minute

// widen is how long a bulk stream has until it counts as filling its path.
const widen = 2 * time.Second
