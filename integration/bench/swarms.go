package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/meter"
	"github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// swarms puts 200 torrents into one client, and dials every one of them.
func swarms(ctx context.Context, b *bench) error {
	n := 200
	if b.quick {
		n = 20
	}
	return manySwarms(ctx, b, "swarms", n, 6*time.Minute, 0)
}

// many puts 2,000 into one client.
func many(ctx context.Context, b *bench) error {
	return manySwarms(ctx, b, "many", 2000, 12*time.Minute, untilIdle)
}

// untilIdle is how long a sidecar takes to close the circuits that nothing uses:
// two minutes, and the time until it looks.
const untilIdle = 150 * time.Second

func manySwarms(ctx context.Context, b *bench, name string, count int, limit, idle time.Duration) error {
	dir, err := b.folder(name)
	if err != nil {
		return err
	}
	n, err := b.network(ctx, name, testnet.Config{Relays: 6, Sidecars: 2, ViewEvery: viewEvery})
	if err != nil {
		return err
	}
	defer n.Close()
	e, err := startEnds(dir)
	if err != nil {
		return err
	}
	defer e.stop()
	s := b.report.section(name, fmt.Sprintf("%d torrents in one client; starts ten times as fast as outside a test network", count))
	if err := held(ctx, s, n, "before", 3*time.Second); err != nil {
		return err
	}
	out, err := e.meet(meeting{from: n.Sidecars[0], to: n.Sidecars[1], hashes: hashes(count), limit: limit / 2})
	if err != nil {
		return err
	}
	var last time.Duration
	for _, w := range append(out.source, out.sink...) {
		last = max(last, w.Found)
	}
	reached, trouble := reach(e, out.ways)
	s.add("both", "the last announced after", "s", last.Seconds())
	s.add("both", "reached", "torrents", float64(reached))
	s.atLeast("torrents of one client that are reached", float64(reached), float64(count), "torrents")
	if reached < count {
		s.note("the first that was not reached: %s%s", out.trouble, trouble)
	}
	if err := held(ctx, s, n, "with all", 3*time.Second); err != nil || idle == 0 {
		return err
	}
	time.Sleep(idle)
	return held(ctx, s, n, "idle", time.Minute)
}

// reach asks one question over every way, a few at a time.
func reach(e *ends, ways []peer.Way) (reached int, trouble string) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, w := range ways {
		if w.To == "" {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			_, err := e.ask(peer.Ask{Way: w, Size: 16, Count: 1})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				reached++
			} else if trouble == "" {
				trouble = err.Error()
			}
		})
	}
	wg.Wait()
	return reached, trouble
}

// held adds what the two sidecars hold, and their processor's time while they
// are watched; the tracker's and the relays' too.
func held(ctx context.Context, s *Section, n *testnet.Net, when string, watch time.Duration) error {
	parts := map[string][]int{"tracker, ": {n.Trackers[0].PID}, "all relays, ": relayPIDs(n)}
	rows := []string{"seeding sidecar, ", "leeching sidecar, ", "tracker, ", "all relays, "}
	for i, c := range n.Sidecars {
		parts[rows[i]] = []int{c.PID}
	}
	before, err := usage(parts)
	if err != nil {
		return err
	}
	time.Sleep(watch)
	after, err := usage(parts)
	if err != nil {
		return err
	}
	for i, row := range rows {
		var memory int64
		for _, pid := range parts[row] {
			m, err := meter.Resident(pid)
			if err != nil {
				return err
			}
			memory += m
		}
		s.add(row+when, "memory", "MB", float64(memory)/1e6)
		s.add(row+when, "one core", "%", 100*(after[row]-before[row]).Seconds()/watch.Seconds())
		if i >= len(n.Sidecars) {
			continue
		}
		now, err := n.Sidecars[i].ReadStatus(ctx)
		if err != nil {
			return err
		}
		uses := make(map[string]float64)
		for _, c := range now.Circuits {
			uses[c.Use]++
		}
		for _, use := range []string{"inbound", "peer", "tracker"} {
			s.add(row+when, use+" circuits", "", uses[use])
		}
	}
	return nil
}
