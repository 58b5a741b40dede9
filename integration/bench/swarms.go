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
	return manySwarms(ctx, b, "swarms", n, 6*time.Minute)
}

// many puts 2,000 into one client.
func many(ctx context.Context, b *bench) error {
	return manySwarms(ctx, b, "many", 2000, 50*time.Minute)
}

func manySwarms(ctx context.Context, b *bench, name string, count int, limit time.Duration) error {
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
	s := b.report.section(name, fmt.Sprintf("%d torrents in one client", count))
	if err := held(ctx, s, n.Sidecars, "before"); err != nil {
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
	return held(ctx, s, n.Sidecars, "with all")
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

// held adds what the two sidecars hold: memory, circuits, processor.
func held(ctx context.Context, s *Section, sidecars []*testnet.Sidecar, when string) error {
	const watch = 3 * time.Second
	for i, c := range sidecars {
		row := [...]string{"seeding sidecar, ", "leeching sidecar, "}[i] + when
		before, err := meter.CPU(c.PID)
		if err != nil {
			return err
		}
		time.Sleep(watch)
		after, err := meter.CPU(c.PID)
		if err != nil {
			return err
		}
		memory, err := meter.Resident(c.PID)
		if err != nil {
			return err
		}
		now, err := c.ReadStatus(ctx)
		if err != nil {
			return err
		}
		s.add(row, "memory", "MB", float64(memory)/1e6)
		s.add(row, "one core", "%", 100*(after-before).Seconds()/watch.Seconds())
		uses := make(map[string]float64)
		for _, c := range now.Circuits {
			uses[c.Use]++
		}
		for _, use := range []string{"inbound", "peer", "tracker"} {
			s.add(row, use+" circuits", "", uses[use])
		}
	}
	return nil
}
