package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/chain"
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

// fairDelay makes links of a continent.
const fairDelay = 5 * time.Millisecond

// fair measures a small stream's round trips with and without a bulk stream
// beside it, over near and over more distant links.
func fair(ctx context.Context, b *bench) error {
	s := b.report.section("fair", "round trips of a small stream, alone and beside a bulk stream through the same two relays")
	for _, delay := range []time.Duration{0, fairDelay} {
		if err := fairOver(ctx, b, s, delay); err != nil {
			return fmt.Errorf("links of %v: %w", delay, err)
		}
	}
	s.note("both ends, all sidecars and all relays share this machine's cores: near, what the small stream waits for is the scheduler; beside the chain's bulk it waits for nothing else")
	return nil
}

// fairOver measures over links of one delay. There are only two relays, so that
// all circuits share them both: a guard, and where they meet.
func fairOver(ctx context.Context, b *bench, s *Section, delay time.Duration) error {
	name := fmt.Sprintf("fair-%v", delay)
	dir, err := b.folder(name)
	if err != nil {
		return err
	}
	n, err := b.network(ctx, name, testnet.Config{Relays: 2, Sidecars: 4, Hops: []int{1}, LinkDelay: delay, ViewEvery: viewEvery})
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
	where := fmt.Sprintf("links of %v, ", delay)
	smalls := []small{{where + "other sidecars", other[0]}, {where + "the bulk's sidecars", same[0]}}
	count := 400
	if delay > 0 { // the scheduler matters little then, and each answer takes long
		bulks, count = bulks[:1], 200
	}
	if b.quick {
		count /= 4
	}
	for range b.rounds {
		for _, m := range smalls {
			if err := beside(s, all, m, bulks, count); err != nil {
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
	s.atMost(where+"median beside bulk, of the median alone", median/alone, 2, "")
	s.atMost(where+"99th percentile beside bulk, of the median alone", high/alone, 4, "")
	return nil
}

// askEvery is the pace of the questions.
const askEvery = 5 * time.Millisecond

// beside measures one round of one small stream.
func beside(s *Section, all [2]*ends, m small, bulks []bulk, count int) error {
	trips := func(row string) error {
		a, err := all[1].ask(peer.Ask{Way: m.way, Size: 64, Count: count, Every: askEvery})
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
		err := trips(row)
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
		s.add(row, "bulk meanwhile", "MB/s", float64(pulled.Bytes())/1e6/pulled.Time().Seconds())
	}
	return nil
}

// longest bounds a bulk stream, whatever happens beside it.
const longest = 2 * time.Minute

// widen is how long a bulk stream has until it counts as filling its path.
const widen = 2 * time.Second
