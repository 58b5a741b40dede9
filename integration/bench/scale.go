package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/integration/bench/child"
	"github.com/shoal-p2p/shoal/integration/bench/crowd"
	"github.com/shoal-p2p/shoal/integration/bench/meter"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

const mebibyte = 1 << 20

// calm is how long a process that did much has to return what memory it can.
const calm = 5 * time.Second

// circuits has one relay hold circuits that carry nothing: as their last hop,
// and as a hop on their way.
func circuits(ctx context.Context, b *bench) error {
	count := 20_000
	if b.quick {
		count = 1000
	}
	s := b.report.section("circuits", fmt.Sprintf("one relay with %d idle circuits", count))
	for _, c := range []struct {
		row     string
		through bool
	}{{"ends of circuits", false}, {"hops on the way", true}} {
		if err := idleCircuits(ctx, b, s, c.row, c.through, count); err != nil {
			return fmt.Errorf("%s: %w", c.row, err)
		}
	}
	if m, ok := s.median("ends of circuits", "memory"); ok {
		s.atMost(fmt.Sprintf("memory of a relay with %d idle circuits", count), m, 200, "MiB")
		rate, _ := s.median("ends of circuits", "opened for one core second")
		s.atLeast("circuits that a relay opens for one second of one core", rate, 1000, "circuits")
	}
	return nil
}

func idleCircuits(ctx context.Context, b *bench, s *Section, row string, through bool, count int) error {
	n, err := b.network(ctx, fmt.Sprintf("circuits-through-%t", through), testnet.Config{Relays: 2, ViewEvery: viewEvery})
	if err != nil {
		return err
	}
	defer n.Close()
	dir, err := b.folder("circuits")
	if err != nil {
		return err
	}
	owner, err := child.Start("crowd", dir)
	if err != nil {
		return err
	}
	defer owner.Stop()
	order := crowd.Build{Network: n.Network, Count: count, Limit: 10 * time.Minute}
	if order.Last, err = onion.ParseID(n.Relays[0].ID); err != nil {
		return err
	}
	if through { // the first relay is now the one on the way
		order.Via = order.Last
		if order.Last, err = onion.ParseID(n.Relays[1].ID); err != nil {
			return err
		}
	}
	pid := n.Relays[0].PID
	memory, err := meter.Resident(pid)
	if err != nil {
		return err
	}
	before, err := meter.CPU(pid)
	if err != nil {
		return err
	}
	var built crowd.Built
	if err := owner.Call("Crowd.Build", order, &built); err != nil {
		return err
	}
	after, err := meter.CPU(pid)
	if err != nil {
		return err
	}
	time.Sleep(calm)
	full, err := meter.Resident(pid)
	if err != nil {
		return err
	}
	var standing int
	if err := owner.Call("Crowd.Standing", struct{}{}, &standing); err != nil {
		return err
	}
	if standing < count {
		return fmt.Errorf("%d of %d circuits stand", standing, count)
	}
	s.add(row, "memory", "MiB", float64(full)/mebibyte)
	s.add(row, "memory before", "MiB", float64(memory)/mebibyte)
	s.add(row, "opened for one core second", "", float64(count)/max((after-before).Seconds(), 0.01))
	s.add(row, "opened a second, owner on the same machine", "", float64(count)/built.Time.Seconds())
	s.add(row, "links", "", float64(built.Links))
	return nil
}

// trackers announces to a tracker that holds a million records.
func trackers(ctx context.Context, b *bench) error {
	swarms, members, askers, repeat := 9_970, 100, 800, 50 // room for 900 records of the askers' own in each round
	if b.quick {
		swarms, members, askers, repeat = 200, 100, 100, 10
	}
	s := b.report.section("tracker", fmt.Sprintf("one tracker with %d records in %d swarms; an answer has fifty", swarms*members, swarms))
	dir, err := b.folder("tracker")
	if err != nil {
		return err
	}
	hs := make([][20]byte, swarms)
	for i, h := range hashes(swarms) {
		hs[i] = h
	}
	// The tracker finds what one before it has left.
	if err := crowd.Records(filepath.Join(dir, "net", "tracker-1"), hs, members); err != nil {
		return err
	}
	n, err := b.network(ctx, "tracker", testnet.Config{})
	if err != nil {
		return err
	}
	defer n.Close()
	owner, err := child.Start("crowd", dir)
	if err != nil {
		return err
	}
	defer owner.Stop()
	t := n.Trackers[0]
	for range min(b.rounds, 3) {
		if err := announceRound(s, owner, t, "over a circuit that stands", hs[:askers/8], repeat); err != nil {
			return err
		}
		if err := announceRound(s, owner, t, "each with its own circuit", hs[:askers], 1); err != nil {
			return err
		}
	}
	time.Sleep(calm)
	memory, err := meter.Resident(t.PID)
	if err != nil {
		return err
	}
	s.add("over a circuit that stands", "memory", "MiB", float64(memory)/mebibyte)
	s.atMost("memory of the tracker", float64(memory)/mebibyte, 1024, "MiB")
	rate, _ := s.median("over a circuit that stands", "answered for one core second")
	check := checking(time.Second / 4)
	s.note("checking a record's signature takes %.0f µs of a core here, an announce over a circuit that stands %.1f times as long", check.Seconds()*1e6, 1/rate/check.Seconds())
	s.atLeast("announces that a tracker answers for one second of one core", rate, 5000, "announces")
	return nil
}

// checking returns how long Ed25519's check of a record takes, measured for so long.
func checking(long time.Duration) time.Duration {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err) // it has no way to fail
	}
	message := make([]byte, announce.OuterSize)
	sig := ed25519.Sign(key, message)
	start, n := time.Now(), 0
	for ; time.Since(start) < long; n++ {
		ed25519.Verify(public, message, sig)
	}
	return time.Since(start) / time.Duration(n)
}

func announceRound(s *Section, owner *child.Child, t *testnet.Tracker, row string, hs [][20]byte, repeat int) error {
	before, err := meter.CPU(t.PID)
	if err != nil {
		return err
	}
	var done crowd.Announced
	if err := owner.Call("Crowd.Announce", crowd.Members{Link: t.Link, Hashes: hs, Repeat: repeat, Limit: 2 * time.Minute}, &done); err != nil {
		return err
	}
	after, err := meter.CPU(t.PID)
	if err != nil {
		return err
	}
	s.add(row, "answered for one core second", "", float64(done.Count)/max((after-before).Seconds(), 0.01))
	s.add(row, "answered a second, askers on the same machine", "", float64(done.Count)/done.Time.Seconds())
	s.add(row, "an answer", "bytes", float64(done.Bytes)/float64(done.Count))
	return nil
}

// directories fetches a directory of ten thousand relays and chooses from it.
func directories(_ context.Context, b *bench) error {
	order := crowd.Directory{Relays: 10_000, Trackers: 3}
	if b.quick {
		order.Relays = 500
	}
	s := b.report.section("directory", fmt.Sprintf("a first start with a directory of %d relays, three trackers' views of it", order.Relays))
	dir, err := b.folder("directory")
	if err != nil {
		return err
	}
	server, err := child.Start("views", dir)
	if err != nil {
		return err
	}
	defer server.Stop()
	var from crowd.Served
	if err := server.Call("Views.Serve", order, &from); err != nil {
		return err
	}
	for range b.rounds {
		if err := fetchOnce(s, dir, from); err != nil {
			return err
		}
	}
	s.add("a sidecar", "views", "MB", float64(from.Bytes)/1e6)
	if all, ok := s.median("a sidecar", "all"); ok {
		s.atMost("until paths are chosen", all, 2000, "ms")
	}
	return nil
}

// fetchOnce has a new process fetch: nothing is in any cache of its own.
func fetchOnce(s *Section, dir string, from crowd.Served) error {
	sidecar, err := child.Start("sidecar", dir)
	if err != nil {
		return err
	}
	defer sidecar.Stop()
	before, err := meter.CPU(sidecar.PID())
	if err != nil {
		return err
	}
	var got crowd.Fetched
	if err := sidecar.Call("Views.Fetch", from, &got); err != nil {
		return err
	}
	after, err := meter.CPU(sidecar.PID())
	if err != nil {
		return err
	}
	memory, err := meter.Resident(sidecar.PID())
	if err != nil {
		return err
	}
	const row = "a sidecar"
	s.add(row, "all", "ms", ms(got.All))
	s.add(row, "fetched", "ms", ms(got.Fetch))
	s.add(row, "verified, merged, kept", "ms", ms(got.Verify))
	s.add(row, "chosen", "ms", ms(got.Choose))
	s.add(row, "CPU", "s", (after - before).Seconds())
	s.add(row, "memory then", "MiB", float64(memory)/mebibyte)
	return nil
}
