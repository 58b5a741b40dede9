package link_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// BenchmarkRelayCores has a relay pass on what comes over one link, or over two
// that go on over two others. The ends of each way are a process of their own,
// which stays on one core and costs little: what it sends is not sealed for the
// relay, who adds a layer to it, and what arrives is counted and dropped. The rate
// of links=2 on two cores, over that of links=1 with everything on one, says what a
// second core is worth to a relay; without anything shared it would be 2. What the
// relay itself uses is told beside it.
func BenchmarkRelayCores(b *testing.B) {
	const long = time.Second // one turn; ways begin and end at about the same time
	for _, links := range []int{1, 2} {
		b.Run(fmt.Sprintf("links=%d", links), func(b *testing.B) {
			var plans []plan
			for i := range links {
				plans = append(plans, plan{Role: flood, OnCore: i})
			}
			ways := startRelay(b, plans...)
			var cells int
			var used, took time.Duration
			for b.Loop() {
				before, began := processorTime(b), time.Now()
				for _, w := range ways {
					w.say(b, struct{}{})
				}
				time.Sleep(long)
				for _, w := range ways {
					w.say(b, struct{}{})
				}
				for _, w := range ways {
					w.hear(b)
					cells += w.said.Cells
				}
				used, took = used+processorTime(b)-before, took+time.Since(began)
			}
			bytes := float64(cells) * cell.Size
			b.ReportMetric(bytes/1e6/took.Seconds(), "MB/s")
			b.ReportMetric(used.Seconds()/(bytes/1e9), "relay-cpu-s/GB")
		})
	}
}

// processorTime returns what this process has used.
func processorTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRelayFair has a relay, which has a core of its own, pass on as much as
// it can from one circuit, and times a cell and its answer over another, whose
// links are others. All that is no relay is on a second core, where who sends
// much stands back: what the cell waits for is the relay.
func BenchmarkRelayFair(b *testing.B) {
	ways := startRelay(b, plan{Role: flood, OnCore: 1, Back: true}, plan{Role: ask, OnCore: 1})
	much, small := ways[0], ways[1]
	if err := stay(0); err != nil {
		b.Fatal(err)
	}
	var alone, beside []time.Duration
	var cells int
	var used, took time.Duration
	for b.Loop() {
		small.say(b, struct{}{})
		small.hear(b)
		alone = append(alone, small.said.Trips...)

		much.say(b, struct{}{})
		before, began := processorTime(b), time.Now()
		small.say(b, struct{}{})
		small.hear(b)
		beside = append(beside, small.said.Trips...)
		used, took = used+processorTime(b)-before, took+time.Since(began)
		much.say(b, struct{}{})
		much.hear(b)
		cells += much.said.Cells
	}
	slices.Sort(alone)
	slices.Sort(beside)
	at := func(of []time.Duration, percent int) float64 { return of[len(of)*percent/100].Seconds() * 1e6 }
	b.ReportMetric(at(alone, 50), "alone-median-us")
	b.ReportMetric(at(alone, 99), "alone-p99-us")
	b.ReportMetric(at(beside, 50), "beside-median-us")
	b.ReportMetric(at(beside, 99), "beside-p99-us")
	b.ReportMetric(float64(cells)*cell.Size/1e6/took.Seconds(), "MB/s")
	b.ReportMetric(used.Seconds()/took.Seconds(), "relay-cores")
}
