package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/chain"
	"github.com/shoal-p2p/shoal/integration/bench/child"
	"github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

func TestMain(m *testing.M) {
	child.Main(services()...)
	os.Exit(m.Run())
}

// fiveRelays is how many relays lie between two sidecars with two own ones
// each, and how many forwarders between the ends of a chain of that shape.
const fiveRelays = 5

// perLoop is what one turn of a benchmark moves, bytes.
const perLoop = 256 << 20

// carry moves bytes from e's source to its sink as often as b wants, and
// reports MB/s and CPU seconds per GB of every process on the path.
func carry(b *testing.B, e *ends, way peer.Way, pids []int) {
	if _, err := e.ask(peer.Ask{Way: way, Size: 16, Count: 1}); err != nil { // builds circuits
		b.Fatal(err)
	}
	parts := map[string][]int{"between": pids}
	var sum cost
	var used time.Duration
	for b.Loop() {
		c, err := e.measure(peer.Pull{Ways: []peer.Way{way}, Bytes: perLoop, Limit: time.Minute}, parts)
		if err != nil {
			b.Fatal(err)
		}
		sum.bytes += c.bytes
		sum.time += c.time
		for _, t := range c.cpu {
			used += t
		}
	}
	sum.cpu = map[string]time.Duration{"all": used}
	b.ReportMetric(sum.rate(), "MB/s")
	b.ReportMetric(sum.perGB(), "CPU-s/GB")
}

func endsFor(b *testing.B) *ends {
	e, err := startEnds(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.stop)
	return e
}

// BenchmarkTLSChain is what BenchmarkStreamFiveRelays is compared with: a bare
// chain of TLS 1.3 forwarders of the same shape.
func BenchmarkTLSChain(b *testing.B) {
	e := endsFor(b)
	c, err := chain.Start(chain.Shape{Hops: fiveRelays, TLS: true}, e.addr, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Stop()
	carry(b, e, peer.Way{To: c.Addr}, c.PIDs())
}

// BenchmarkStreamFiveRelays carries one stream through two sidecars and five
// relays, all of them the real programs.
func BenchmarkStreamFiveRelays(b *testing.B) {
	e := endsFor(b)
	bin := b.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-o", bin+string(filepath.Separator), "../../cmd/shoal", "../../cmd/shoal-tracker")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n, err := testnet.Start(ctx, testnet.Config{
		Trackers: 1, Relays: fiveRelays, Sidecars: 2, ViewEvery: viewEvery, State: b.TempDir(),
		Shoal: filepath.Join(bin, "shoal"), Tracker: filepath.Join(bin, "shoal-tracker"),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	ways, err := e.must(meeting{from: n.Sidecars[0], to: n.Sidecars[1], hashes: hashes(1)})
	if err != nil {
		b.Fatal(err)
	}
	carry(b, e, ways[0], append(relayPIDs(n), n.Sidecars[0].PID, n.Sidecars[1].PID))
}

func TestAFigureIsItsMedian(t *testing.T) {
	s := new(Section)
	for _, v := range []float64{5, 1, 3, 2, 4} {
		s.add("row", "column", "MB/s", v)
	}
	if f := s.get("row", "column"); f.Median != 3 || f.Min != 1 || f.Max != 5 || f.String() != "3.00 (1.00..5.00)" {
		t.Errorf("five rounds: %+v, %v", f, f)
	}
	s.add("row", "column", "MB/s", 60)
	if got, _ := s.median("row", "column"); got != 3.5 {
		t.Errorf("median of six = %v, want 3.5", got)
	}
	if _, ok := s.median("row", "another"); ok {
		t.Error("there is a median of what was not measured")
	}
}

func TestSuitesAreSelectedByName(t *testing.T) {
	if got, err := choose("scale, tor"); err != nil || len(got) != 6 || got[5] != "tor" {
		t.Errorf("choose = %v, %v, want the five of scale and tor", got, err)
	}
	if got, err := choose("teleport"); err == nil {
		t.Errorf("choose = %v for a suite that is none", got)
	}
	all, err := choose("")
	if err != nil || len(all) != len(suites)-1 {
		t.Errorf("choose = %v, %v, want all but the rare one", all, err)
	}
}

func TestDistanceIsJudgedByTheSecondBeforeEachSample(t *testing.T) {
	// Ten samples a second: 1 MB each from 0 s on, 2 MB each from 2 s on, and
	// half of that once the other stream, from 4 s on, has as much.
	var one, two []int64
	var sum int64
	for i := range 80 {
		switch {
		case i < 20:
			sum += 500_000
		default:
			sum += 2_000_000
		}
		one = append(one, sum)
	}
	sum = 0
	for i := range 40 {
		if i >= 10 {
			sum += 2_000_000
		}
		two = append(two, sum)
	}
	s := new(Section)
	judgeDistant(s, one, two, 40)
	for column, want := range map[string]float64{
		"10 MB/s after":             2.4, // 6 samples of 0.5 MB and 4 of 2 MB make 11 MB
		"least in a second then":    11,
		"alone, last second":        20,
		"second has its half after": 1.9, // 9 samples of 2 MB: 18 of 38 MB
	} {
		if got, ok := s.median(distantRow, column); !ok || got != want {
			t.Errorf("%s = %v, %t, want %v", column, got, ok, want)
		}
	}
}
