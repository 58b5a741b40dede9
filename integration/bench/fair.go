package main

import (
	"context"
	"fmt"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// small is a stream of questions and small answers.
type small struct {
	name string
	way  peer.Way
}

// fair measures a small stream's round trips with and without a bulk stream
// beside it. There are only three relays, so that all circuits share them all.
func fair(ctx context.Context, b *bench) error {
	dir, err := b.folder("fair")
	if err != nil {
		return err
	}
	n, err := b.network(ctx, "fair", testnet.Config{Relays: 3, Sidecars: 4, ViewEvery: viewEvery})
	if err != nil {
		return err
	}
	defer n.Close()
	var all [2]*ends // with processes of its own the small stream waits for the network alone
	for i := range all {
		if all[i], err = startEnds(dir + fmt.Sprintf("/ends-%d", i+1)); err != nil {
			return err
		}
		defer all[i].stop()
	}
	bulk, err := all[0].must(meeting{from: n.Sidecars[0], to: n.Sidecars[1], hashes: hashes(1)})
	if err != nil {
		return err
	}
	other, err := all[1].must(meeting{from: n.Sidecars[2], to: n.Sidecars[3], hashes: hashes(1)})
	if err != nil {
		return err
	}
	same, err := all[1].must(meeting{from: n.Sidecars[0], to: n.Sidecars[1], hashes: hashes(1)})
	if err != nil {
		return err
	}
	s := b.report.section("fair", "round trips of a small stream, alone and beside a bulk stream through the same three relays")
	smalls := []small{{"through other sidecars", other[0]}, {"through the bulk's sidecars", same[0]}}
	count := 400
	if b.quick {
		count = 100
	}
	for range b.rounds {
		for _, m := range smalls {
			if err := beside(s, all, m, bulk[0], count); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
	}
	for i, m := range smalls {
		for _, p := range []struct {
			column string
			most   float64
		}{{"median", 2}, {"99th percentile", 4}} {
			alone, ok := s.median(m.name+", alone", "median")
			loaded, ok2 := s.median(m.name+", beside bulk", p.column)
			if ok && ok2 && i == 0 {
				s.atMost("round trip beside bulk, "+p.column+", of the median alone", loaded/alone, p.most, "")
			}
		}
	}
	s.note("both ends, all sidecars and all relays share this machine's cores: what the small stream waits for is the scheduler, too")
	return nil
}

// askEvery is the pace of the questions.
const askEvery = 5 * time.Millisecond

// beside measures one round of one small stream.
func beside(s *Section, all [2]*ends, m small, bulk peer.Way, count int) error {
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
	// The bulk ends some time after the questions do, or the last would be asked alone.
	limit := time.Duration(count)*askEvery*2 + 3*time.Second
	done := make(chan error, 1)
	var pulled peer.Pulled
	go func() {
		var err error
		pulled, err = all[0].pull(peer.Pull{Ways: []peer.Way{bulk}, Bytes: 1 << 40, Limit: limit})
		done <- err
	}()
	time.Sleep(time.Second) // until its windows are wide
	row := m.name + ", beside bulk"
	err := trips(row)
	if bulkErr := <-done; bulkErr != nil {
		return fmt.Errorf("bulk: %w", bulkErr)
	}
	if err == nil {
		s.add(row, "bulk meanwhile", "MB/s", float64(pulled.Bytes())/1e6/pulled.Time().Seconds())
	}
	return err
}
