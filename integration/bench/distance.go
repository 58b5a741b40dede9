package main

import (
	"context"
	"fmt"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// What distance promises.
const (
	distantRate  = 10e6 // bytes per second
	distantStart = 5    // seconds until that is reached
	halfWithin   = 3    // seconds until a second stream has its half

	// halfShare is from when on a share counts as half.
	halfShare = 0.45

	sampleEvery = 100 * time.Millisecond
	perSecond   = int(time.Second / sampleEvery)
)

// distance measures one stream over distant links, and a second one that joins
// it: to another client of the source's sidecar, in the same swarm.
func distance(ctx context.Context, b *bench) error {
	dir, err := b.folder("distance")
	if err != nil {
		return err
	}
	n, err := b.network(ctx, "distance", testnet.Config{Relays: 6, Sidecars: 2, LinkDelay: linkDelay, ViewEvery: viewEvery})
	if err != nil {
		return err
	}
	defer n.Close()
	e, err := startEnds(dir)
	if err != nil {
		return err
	}
	defer e.stop()
	s := b.report.section("distance", fmt.Sprintf("streams over six links of %v each way, five relays between two sidecars", linkDelay))
	alone, both := 10*time.Second, 10*time.Second
	if b.quick {
		alone, both = 6*time.Second, 4*time.Second
	}
	for round := range min(b.rounds, 3) {
		if err := distant(e, n, s, round, alone, both); err != nil {
			return err
		}
	}
	if t, ok := s.median(distantRow, "10 MB/s after"); ok {
		s.atMost("until one stream has 10 MB/s", t, distantStart, "s")
		held, _ := s.median(distantRow, "least in a second then")
		s.atLeast("which it holds", held, distantRate/1e6, "MB/s")
		half, _ := s.median(distantRow, "second has its half after")
		s.atMost("until a second stream has its half", half, halfWithin, "s")
	}
	return nil
}

const distantRow = "two streams, one after the other"

// never stands for what did not happen within a round.
const never = 999

// distant measures one round.
func distant(e *ends, n *testnet.Net, s *Section, round int, alone, both time.Duration) error {
	ways, err := e.must(meeting{from: n.Sidecars[0], to: n.Sidecars[1], users: []string{"one", "two"}, hashes: hashes(1)})
	if err != nil {
		return err
	}
	var pulled [2]peer.Pulled
	errs := make(chan error, len(pulled))
	pull := func(i int, limit time.Duration) {
		var err error
		pulled[i], err = e.pull(peer.Pull{Ways: ways[i : i+1], Bytes: 1 << 40, Limit: limit, Every: sampleEvery})
		errs <- err
	}
	go pull(0, alone+both)
	time.Sleep(alone)
	most, err := mostResident(n)
	go pull(1, both)
	for range pulled {
		if err := <-errs; err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	after, err := mostResident(n)
	if err != nil {
		return err
	}
	s.add(distantRow, "most memory of a relay", "MB", float64(max(most, after))/1e6)
	one, two := pulled[0].Streams[0].Samples, pulled[1].Streams[0].Samples
	joined := int(time.Duration(pulled[1].Start-pulled[0].Start) / sampleEvery)
	judgeDistant(s, one, two, joined)
	s.note("round %d, MB/s in each second: %s; the second stream, from second %d on: %s", round+1, bySecond(one), joined/perSecond, bySecond(two))
	return nil
}

// rateAt returns bytes per second over the second that ends at sample i.
func rateAt(samples []int64, i int) float64 {
	if i < 0 || i >= len(samples) {
		return 0
	}
	from := int64(0)
	if i >= perSecond {
		from = samples[i-perSecond]
	}
	return float64(samples[i] - from)
}

// judgeDistant adds a round's figures. The second stream starts with sample
// joined of the first.
func judgeDistant(s *Section, one, two []int64, joined int) {
	reached, held := float64(never), 0.0
	for i := range min(joined, len(one)) {
		rate := rateAt(one, i)
		if reached == never && rate >= distantRate {
			reached, held = float64(i+1)/float64(perSecond), rate
		}
		if reached != never {
			held = min(held, rate)
		}
	}
	half := float64(never)
	for i := range two {
		mine, others := rateAt(two, i), rateAt(one, joined+i)
		if mine > 0 && mine >= halfShare*(mine+others) {
			half = float64(i+1) / float64(perSecond)
			break
		}
	}
	s.add(distantRow, "10 MB/s after", "s", reached)
	s.add(distantRow, "least in a second then", "MB/s", held/1e6)
	if joined > 0 && joined <= len(one) {
		s.add(distantRow, "alone, last second", "MB/s", rateAt(one, joined-1)/1e6)
	}
	s.add(distantRow, "second has its half after", "s", half)
}

// bySecond writes the rate of each whole second.
func bySecond(samples []int64) (text string) {
	for i := perSecond - 1; i < len(samples); i += perSecond {
		text += " " + number(rateAt(samples, i)/1e6)
	}
	return text
}
