package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// linkDelay is the one-way delay of a distant link: six of them are between two
// sidecars with two own relays each, which makes a round trip of 300 ms.
const linkDelay = 25 * time.Millisecond

// freshSwarms is how many peers are dialled over circuits that don't stand yet.
// More would have to wait for their turn to start.
const freshSwarms = 10

// first measures what a user waits for, with links near and distant.
func first(ctx context.Context, b *bench) error {
	s := b.report.section("first", "what a user waits for, with five relays between two sidecars")
	for _, delay := range []time.Duration{0, linkDelay} {
		if err := firstOver(ctx, b, s, delay); err != nil {
			return fmt.Errorf("links of %v: %w", delay, err)
		}
	}
	return nil
}

func firstOver(ctx context.Context, b *bench, s *Section, delay time.Duration) error {
	dir, err := b.folder(fmt.Sprintf("first-%v", delay))
	if err != nil {
		return err
	}
	n, err := b.network(ctx, fmt.Sprintf("first-%v", delay), testnet.Config{Relays: 6, Sidecars: 2, LinkDelay: delay, ViewEvery: viewEvery})
	if err != nil {
		return err
	}
	defer n.Close()
	e, err := startEnds(dir)
	if err != nil {
		return err
	}
	defer e.stop()
	row := fmt.Sprintf("links of %v", delay)
	if err := dialled(e, n, s, row); err != nil {
		return err
	}
	for range b.rounds {
		if err := started(ctx, e, n, s, row); err != nil {
			return err
		}
	}
	if ready, ok := s.median(row, "sidecar ready"); ok {
		s.atMost("from a sidecar's start until it is ready, "+row, ready, 3000, "ms")
	}
	if answered, ok := s.median(row, "first announce"); ok {
		s.atMost("until its first announce is answered, "+row, answered, 1000, "ms")
	}
	return nil
}

// dialled times dials to peers in swarms where nothing was dialled before.
func dialled(e *ends, n *testnet.Net, s *Section, row string) error {
	ways, err := e.must(meeting{from: n.Sidecars[0], to: n.Sidecars[1], hashes: hashes(freshSwarms)})
	if err != nil {
		return err
	}
	var dials, trips []float64
	for _, w := range ways {
		a, err := e.ask(peer.Ask{Way: w, Size: 16, Count: 5})
		if err != nil {
			return err
		}
		dials = append(dials, ms(a.Dialled))
		trips = append(trips, millis(a.Trips)...)
		s.add(row, "peer dialled", "ms", ms(a.Dialled))
		s.add(row, "first byte of a peer", "ms", ms(a.Greeted))
		s.add(row, "round trip", "ms", percentile(millis(a.Trips), 50))
	}
	if delay := linkDelay.Seconds() * 1e3; slices.Max(trips) > delay { // else it is all local work
		slices.Sort(dials)
		slices.Sort(trips)
		s.atMost("to dial a peer, of one round trip, "+row, percentile(dials, 50)/percentile(trips, 50), 1.3, "")
	}
	return nil
}

// started times the start of one more sidecar, and its first announce.
func started(ctx context.Context, e *ends, n *testnet.Net, s *Section, row string) error {
	start := time.Now()
	sidecar, err := n.AddSidecar(ctx)
	if err != nil {
		return err
	}
	defer sidecar.Process.Stop()
	s.add(row, "sidecar ready", "ms", ms(time.Since(start)))
	out, err := e.meet(meeting{from: n.Sidecars[0], to: sidecar, hashes: hashes(1)})
	if err != nil {
		return err
	}
	if out.missing > 0 {
		return fmt.Errorf("a new sidecar's client found nobody: %s", out.trouble)
	}
	s.add(row, "first announce", "ms", ms(out.sink[0].Answered))
	s.add(row, "first peer heard of", "ms", ms(out.sink[0].Found))
	return nil
}
