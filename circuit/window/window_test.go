package window

import (
	"math/rand/v2"
	"testing"
	"time"
)

var kind = Kind{Floor: 8, Spare: 4, Ceiling: 2048, Step: 64}

// path is a sender and whoever grants to it, in steps of a millisecond: so many
// a step go through at most, the rest waits before the bottleneck.
type path struct {
	t    *testing.T
	win  Window
	now  time.Duration
	trip time.Duration
	rate uint64 // a step
	give func(now time.Duration) uint64

	allowed, sent, came uint64
	grants              []grant // on their way
	flight              []grant // what was sent, on its way
}

type grant struct {
	at    time.Duration
	total uint64
}

func newPath(t *testing.T, b *Budget, trip time.Duration, rate uint64) *path {
	w, ok := Open(&kind, b)
	if !ok {
		t.Fatal("no room for a floor")
	}
	return &path{t: t, win: w, now: time.Hour, trip: trip, rate: rate, allowed: kind.Floor}
}

// run lets d pass.
func (p *path) run(d time.Duration) {
	for end := p.now + d; p.now < end; p.now += time.Millisecond {
		for len(p.grants) > 0 && p.grants[0].at <= p.now {
			p.allowed, p.grants = p.grants[0].total, p.grants[1:]
		}
		most := p.allowed
		if p.give != nil {
			most = min(most, p.sent+p.give(p.now))
		}
		if most > p.sent {
			p.sent = most
			p.flight = append(p.flight, grant{p.now + p.trip/2, most})
		}
		for left := p.rate; left > 0 && len(p.flight) > 0 && p.flight[0].at <= p.now; {
			n := min(left, p.flight[0].total-p.came)
			p.came, left = p.came+n, left-n
			if p.came == p.flight[0].total {
				p.flight = p.flight[1:]
			}
			p.win.Received(p.came, p.now)
			if p.came > p.win.Granted() {
				p.t.Fatalf("%d came, %d were granted", p.came, p.win.Granted())
			}
			if total, ok := p.win.Grant(p.came, 1<<63, func() time.Duration { return p.now }); ok {
				p.grants = append(p.grants, grant{p.now + p.trip/2, total})
			}
			if promised := p.win.Granted() - p.came; promised > p.win.Size() {
				p.t.Fatalf("%d are promised by a window of %d", promised, p.win.Size())
			}
		}
	}
}

// through runs for d and returns how much came.
func (p *path) through(d time.Duration) uint64 {
	before := p.came
	p.run(d)
	return p.came - before
}

func TestAWindowFillsItsPathWithinAFewRoundTrips(t *testing.T) {
	for _, x := range []struct {
		trip  time.Duration
		rate  uint64 // a millisecond
		trips int
	}{
		{4 * time.Millisecond, 20, 5},
		{20 * time.Millisecond, 10, 6},
		{100 * time.Millisecond, 10, 6},
		{300 * time.Millisecond, 5, 6},
	} {
		p := newPath(t, nil, x.trip, x.rate)
		p.run(time.Duration(x.trips) * x.trip)
		want := x.rate * 100 * 95 / 100
		if got := p.through(100 * time.Millisecond); got < want {
			t.Errorf("trip %v: %d in 100 ms after %d trips, want %d; window %d", x.trip, got, x.trips, want, p.win.Size())
		}
	}
}

// What a window tried when the rate rose it gives back: then it is about twice
// what the path carries, and the path stays full.
func TestAWindowSettlesAtTwiceItsUse(t *testing.T) {
	p := newPath(t, nil, 100*time.Millisecond, 2) // 200 in a round trip
	p.run(5 * time.Second)
	if size := p.win.Size(); size < 300 || size > 600 {
		t.Errorf("window of %d on a path that carries 200", size)
	}
	if got := p.through(time.Second); got < 1950 {
		t.Errorf("%d in a second, want 2000", got)
	}
}

func TestAWindowShrinksWhenItsPathSlows(t *testing.T) {
	b := NewBudget(1 << 16)
	p := newPath(t, b, 50*time.Millisecond, 20)
	p.run(3 * time.Second)
	before := p.win.Size()
	p.rate = 1
	p.run(10 * time.Second) // the queue drains, then the window follows
	if size := p.win.Size(); size > 200 || size >= before/4 {
		t.Errorf("window of %d on a path that carries 50, before it was %d", size, before)
	}
	if b.Used() != int64(p.win.Size()) {
		t.Errorf("%d of the budget for a window of %d", b.Used(), p.win.Size())
	}
	if got := p.through(time.Second); got < 950 {
		t.Errorf("%d in a second, want 1000", got)
	}
	p.win.Close()
	if b.Used() != 0 {
		t.Errorf("%d of the budget never given back", b.Used())
	}
}

func TestAWindowShrinksWhenTheSenderHasLittle(t *testing.T) {
	p := newPath(t, nil, 50*time.Millisecond, 20)
	p.run(time.Second)
	p.give = func(now time.Duration) uint64 {
		if now%(10*time.Millisecond) == 0 {
			return 1
		}
		return 0
	}
	p.run(2 * time.Minute)
	if size := p.win.Size(); size > 64 {
		t.Errorf("window of %d for 5 in a round trip", size)
	}
}

// A path may become longer than it ever was: the least round trip is out of
// date then, and must not starve the sender.
func TestAWindowSurvivesThatItsPathBecomesLonger(t *testing.T) {
	p := newPath(t, nil, 10*time.Millisecond, 10)
	p.run(time.Second)
	size := p.win.Size()
	p.trip *= 8
	p.run(30 * time.Second)
	if p.win.Size() < size/2 {
		t.Errorf("window of %d, before its path became longer it was %d", p.win.Size(), size)
	}
}

func TestAWindowStopsAtTheCeilingAndAtTheBudget(t *testing.T) {
	for _, x := range []struct {
		b         *Budget
		low, high uint64
	}{
		{nil, kind.Ceiling, kind.Ceiling},
		{NewBudget(1 << 20), kind.Ceiling, kind.Ceiling},
		{NewBudget(2048), 256, 1024}, // half for others' floors, half of the rest left to them
		{NewBudget(8), 8, 8},
	} {
		p := newPath(t, x.b, 100*time.Millisecond, 100)
		p.run(3 * time.Second)
		if size := p.win.Size(); size < x.low || size > x.high {
			t.Errorf("window of %d, want %d to %d", size, x.low, x.high)
		}
	}
}

func TestABudgetKeepsHalfForFloors(t *testing.T) {
	const total = 1 << 14
	b := NewBudget(total)
	var all []*path
	for range 50 {
		p := newPath(t, b, 100*time.Millisecond, 20)
		all = append(all, p)
		p.run(2 * time.Second)
	}
	var floors []Window
	for {
		w, ok := Open(&kind, b)
		if !ok {
			break
		}
		floors = append(floors, w)
	}
	if want := total / 2 / int(kind.Floor); len(floors)+len(all) < want {
		t.Errorf("room for %d floors, want %d", len(floors)+len(all), want)
	}
	if b.Used() > total {
		t.Errorf("%d are promised of %d", b.Used(), total)
	}
	for range 20 { // those who came first make room for the others, in time
		for _, p := range all {
			p.run(200 * time.Millisecond)
		}
	}
	for i := range floors {
		floors[i].Close()
	}
	for range 20 {
		for _, p := range all {
			p.run(200 * time.Millisecond)
		}
	}
	for i, p := range all {
		if p.win.Size() <= kind.Floor {
			t.Errorf("window %d never got to grow", i)
		}
		p.win.Close()
	}
	if b.Used() != 0 {
		t.Errorf("%d of the budget never given back", b.Used())
	}
}

// Whatever comes when: no more is promised than the window is, nor granted than
// the limit, nor does the budget lose anything.
func TestAWindowKeepsItsPromises(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		b := NewBudget(int64(rng.IntN(4096)) + 8)
		w, ok := Open(&kind, b)
		if !ok {
			t.Fatal("no room for a floor")
		}
		var received, taken, limit uint64
		now, granted := time.Hour, kind.Floor
		for range 2000 {
			now += time.Duration(rng.Int64N(int64(20 * time.Millisecond)))
			if room := granted - received; room > 0 {
				received += rng.Uint64N(room + 1)
				w.Received(received, now)
			}
			taken += rng.Uint64N(received - taken + 1)
			limit = max(limit, taken+rng.Uint64N(4096))
			if total, ok := w.Grant(taken, limit, func() time.Duration { return now }); ok {
				if total <= granted || total > max(limit, kind.Floor) {
					t.Fatalf("seed %d: granted %d after %d, the limit is %d", seed, total, granted, limit)
				}
				granted = total
			}
			if granted != w.Granted() || granted-taken > w.Size() || b.Used() != int64(w.Size()) {
				t.Fatalf("seed %d: %d granted, %d taken, window %d, budget %d", seed, granted, taken, w.Size(), b.Used())
			}
		}
		w.Close()
		if _, ok := w.Grant(taken, 1<<63, func() time.Duration { return now }); ok || b.Used() != 0 {
			t.Fatalf("seed %d: a closed window grants, or holds %d", seed, b.Used())
		}
	}
}

// A window that is about to be used begins wide as long as growth has taken
// little of the budget, and else with its floor; what it had is given back.
func TestAWideOpeningComesOutOfAnAmpleBudget(t *testing.T) {
	const total = 4000
	wide := kind
	wide.Opening = 64
	b := NewBudget(total)
	var all []Window
	for range 100 {
		w, ok := Open(&wide, b)
		if !ok {
			t.Fatal("no room for a floor")
		}
		if got, ok := w.Widen(0, 40); w.Size() == 64 && (!ok || got != 40) || w.Size() == 8 && ok {
			t.Fatalf("a window of %d allows %d, %v; its neighbour allows 40", w.Size(), got, ok)
		}
		if _, ok := w.Widen(0, 40); ok {
			t.Fatal("the same is allowed twice")
		}
		all = append(all, w)
	}
	opened := 0
	for i := range all {
		if all[i].Size() == 64 {
			opened++
		}
	}
	if most := total/8/(64-8) + 1; opened == 0 || opened > most {
		t.Errorf("%d windows of a hundred began wide, want some and at most %d", opened, most)
	}
	for i := range all {
		all[i].Close()
		if _, ok := all[i].Widen(0, 64); ok {
			t.Fatal("a closed window allows more")
		}
	}
	if used := b.Used(); used != 0 {
		t.Errorf("%d are not given back", used)
	}
}
