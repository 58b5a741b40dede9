package hop

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// chain is one direction of a circuit through relays, in virtual time: a
// sender, relays with their flows, and a last hop that takes what comes. Links
// have delay and rate, send in batches, and keep order.
type chain struct {
	t      *testing.T
	rng    *rand.Rand
	events events
	links  []*lane // from each place to the next
	flows  []*flow // of the relays
	last   window.Window

	left     int // cells that the sender still has
	sent     uint64
	credit   uint64 // the sender's
	received uint64 // by the last hop
	peak     uint64 // most cells that waited at one relay
}

// lane is a link's two directions as this circuit sees them.
type lane struct {
	delay   time.Duration
	jitter  time.Duration
	rate    float64 // cells a second
	queue   uint64  // cells that wait for the writer
	taken   uint64  // cells that it has written
	busy    bool
	stalled bool
	cellsAt time.Time // when the last cell arrives
	backAt  time.Time // when the last CREDIT arrives
}

// batch is how many cells one write takes at most.
const batch = 15

// ahead is how many cells the sender lets wait for its link's writer.
const ahead = 48

type event struct {
	at time.Time
	n  int
	do func()
}

type events struct {
	all []event
	n   int
}

func (e *events) Len() int { return len(e.all) }
func (e *events) Less(i, j int) bool {
	a, b := e.all[i], e.all[j]
	return a.at.Before(b.at) || a.at.Equal(b.at) && a.n < b.n
}
func (e *events) Swap(i, j int) { e.all[i], e.all[j] = e.all[j], e.all[i] }
func (e *events) Push(x any)    { e.all = append(e.all, x.(event)) }
func (e *events) Pop() any {
	x := e.all[len(e.all)-1]
	e.all = e.all[:len(e.all)-1]
	return x
}

func newChain(t *testing.T, seed uint64, lanes []lane, b *window.Budget) *chain {
	c := &chain{t: t, rng: rand.New(rand.NewPCG(seed, 0)), credit: link.Floor}
	c.last, _ = window.Open(&link.Cells, nil)
	for i := range lanes {
		l := lanes[i]
		c.links = append(c.links, &l)
		if i > 0 {
			f := new(flow)
			if !f.open(b) {
				t.Fatal("no room for a floor")
			}
			c.flows = append(c.flows, f)
		}
	}
	return c
}

// at has do called after d.
func (c *chain) at(d time.Duration, do func()) { c.atTime(time.Now().Add(d), do) }

func (c *chain) atTime(when time.Time, do func()) {
	c.events.n++
	heap.Push(&c.events, event{when, c.events.n, do})
}

// run lets time pass for d, or until nothing more happens.
func (c *chain) run(d time.Duration) {
	end := time.Now().Add(d)
	for c.events.Len() > 0 && !c.events.all[0].at.After(end) {
		e := heap.Pop(&c.events).(event)
		time.Sleep(time.Until(e.at))
		e.do()
	}
	if c.events.Len() > 0 {
		time.Sleep(time.Until(end))
	}
}

// give gives the sender so many cells more.
func (c *chain) give(cells int) {
	c.left += cells
	c.fill()
}

// fill has the sender send what it may.
func (c *chain) fill() {
	l := c.links[0]
	for c.left > 0 && c.sent < c.credit && l.queue < ahead {
		c.left--
		c.sent++
		l.queue++
	}
	c.write(0)
}

// write has the writer of link i take a batch.
func (c *chain) write(i int) {
	l := c.links[i]
	if l.busy || l.stalled || l.queue == 0 {
		return
	}
	n := min(l.queue, batch)
	l.queue -= n
	l.busy = true
	c.at(time.Duration(float64(n)/l.rate*1e9), func() {
		l.busy = false
		l.taken += n
		l.cellsAt = c.later(l.cellsAt, l)
		c.atTime(l.cellsAt, func() { c.arrive(i+1, n) })
		if i == 0 {
			c.fill()
		} else {
			c.grant(i, l.taken, 0)
		}
		c.write(i)
	})
}

// later returns when what is sent now arrives, behind what was sent before.
func (c *chain) later(before time.Time, l *lane) time.Time {
	t := time.Now().Add(l.delay)
	if l.jitter > 0 {
		t = t.Add(time.Duration(c.rng.Int64N(int64(l.jitter))))
	}
	if t.Before(before) {
		return before
	}
	return t
}

// arrive has n cells reach place i.
func (c *chain) arrive(i int, n uint64) {
	if i == len(c.links) {
		for range n {
			c.received++
			if c.received > c.last.Granted() {
				c.t.Fatalf("the last hop got %d cells, allowed %d", c.received, c.last.Granted())
			}
			c.last.Received(c.received, window.Clock())
			if total, ok := c.last.Grant(c.received, 1<<63, window.Clock); ok {
				c.allow(i-1, total)
			}
		}
		return
	}
	f := c.flows[i-1]
	for range n {
		f.arrived()
		if f.received > f.win.Granted() {
			c.t.Fatalf("relay %d got %d cells, allowed %d", i, f.received, f.win.Granted())
		}
		if f.received > f.credit {
			c.t.Fatalf("relay %d has %d cells to pass on, allowed %d", i, f.received, f.credit)
		}
		c.links[i].queue++
	}
	c.peak = max(c.peak, f.received-c.links[i].taken)
	if promised := f.win.Granted() - f.sent; promised > f.win.Size() {
		c.t.Fatalf("relay %d has promised %d cells, its window is %d", i, promised, f.win.Size())
	}
	c.write(i)
}

// grant has relay i judge what it may allow.
func (c *chain) grant(i int, sent, credit uint64) {
	if total, ok := c.flows[i-1].grant(sent, credit); ok {
		c.allow(i-1, total)
	}
}

// allow sends CREDIT over link i, towards the sender.
func (c *chain) allow(i int, total uint64) {
	l := c.links[i]
	l.backAt = c.later(l.backAt, l)
	c.atTime(l.backAt, func() {
		if i == 0 {
			c.credit = total
			c.fill()
		} else {
			c.grant(i, 0, total)
		}
	})
}

func (c *chain) stall(i int, stalled bool) {
	c.links[i].stalled = stalled
	c.write(i)
}

// randomLanes makes a path of up to five links.
func randomLanes(rng *rand.Rand) (lanes []lane) {
	for range 1 + rng.IntN(5) {
		lanes = append(lanes, lane{
			delay:  time.Duration(rng.Int64N(int64(60 * time.Millisecond))),
			jitter: time.Duration(rng.Int64N(int64(30 * time.Millisecond))),
			rate:   100 * float64(int(1)<<rng.IntN(9)),
		})
	}
	return lanes
}

// What is sent arrives, over whatever path, with whatever pauses of its links
// and its sender; no place ever holds more than it promised.
func TestCreditNeverBringsAPathToAHalt(t *testing.T) {
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			budget := window.NewBudget(int64(100 + rng.IntN(20_000)))
			c := newChain(t, seed, randomLanes(rng), budget)
			all := 0
			for range 1 + rng.IntN(4) {
				n := 1 + rng.IntN(1500)
				all += n
				c.give(n)
				i := rng.IntN(len(c.links))
				c.stall(i, rng.IntN(2) == 0)
				c.run(time.Duration(rng.Int64N(int64(20 * time.Second))))
				c.stall(i, false)
				c.run(time.Duration(rng.Int64N(int64(5 * time.Second))))
			}
			c.run(time.Hour)
			if c.received != uint64(all) {
				t.Errorf("seed %d: %d of %d cells arrived", seed, c.received, all)
			}
			for _, f := range c.flows {
				f.close()
			}
			if n := budget.Used(); n != 0 {
				t.Errorf("seed %d: %d cells of the budget are not given back", seed, n)
			}
		})
	}
}

// far is a circuit's path with 25 ms on each of three links: 150 ms there and
// back.
func far(rate float64) []lane {
	l := lane{delay: 25 * time.Millisecond, rate: rate}
	return []lane{l, l, l}
}

const megabyte = 1e6 / cell.Payload // in cells

func TestAWindowGrowsToItsPathWithinSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, 1, far(100*megabyte), window.NewBudget(1<<20))
		c.give(1 << 20)
		c.run(1500 * time.Millisecond)
		before := c.received
		c.run(time.Second)
		if got := float64(c.received-before) / megabyte; got < 20 {
			t.Errorf("%.1f MB in the second that began after 1.5 s, want 20 or more", got)
		}
	})
}

func TestARelayHoldsLittleMoreThanItsPathNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lanes := far(100 * megabyte)
		lanes[2].rate = 2 * megabyte // the bottleneck
		c := newChain(t, 1, lanes, window.NewBudget(1<<20))
		c.give(1 << 20)
		c.run(5 * time.Second) // it finds its rate, and gives back what it tried
		need := 2 * megabyte * 0.15
		if float64(c.peak) > 8*need {
			t.Errorf("%d cells waited at one relay at first, the path carries %.0f", c.peak, need)
		}
		c.peak = 0
		before := c.received
		c.run(20 * time.Second)
		if rate := float64(c.received-before) / 20 / megabyte; rate < 1.9 {
			t.Errorf("%.2f MB a second, want nearly 2", rate)
		}
		if float64(c.peak) > 2*need {
			t.Errorf("%d cells wait at one relay, the path carries %.0f", c.peak, need)
		}
	})
}

func TestAStalledLinkStopsTheSender(t *testing.T) {
	for i := range 3 {
		synctest.Test(t, func(t *testing.T) {
			c := newChain(t, 1, far(100*megabyte), window.NewBudget(1<<20))
			c.give(1 << 20)
			c.run(3 * time.Second)
			c.stall(i, true)
			c.run(time.Second)
			sent := c.sent
			c.run(time.Minute)
			if c.sent != sent {
				t.Errorf("link %d stands still, and the sender sent %d cells more", i, c.sent-sent)
			}
			if c.peak > link.Ceiling {
				t.Errorf("link %d stands still: %d cells wait at one relay, at most %d", i, c.peak, link.Ceiling)
			}
			c.stall(i, false)
			c.run(time.Second)
			if c.sent == sent {
				t.Errorf("link %d goes on, and the sender does not", i)
			}
		})
	}
}

func TestAWindowShrinksWithItsUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := window.NewBudget(1 << 20)
		c := newChain(t, 1, far(100*megabyte), b)
		c.give(40_000)
		c.run(time.Minute)
		grown := b.Used()
		for range 4000 { // 100 cells a second
			c.give(10)
			c.run(100 * time.Millisecond)
		}
		if used := b.Used(); used*4 > grown {
			t.Errorf("windows of %d cells are %d still after minutes of little use", grown, used)
		}
	})
}

// The memory of a relay is shared by all circuits: those that come when others
// have grown get their floor and some of the rest.
func TestManyCircuitsStayWithinOneBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 8000
		b := window.NewBudget(budget)
		var all []*chain
		for i := range 40 {
			c := newChain(t, uint64(i), far(100*megabyte), b)
			c.give(1 << 20)
			all = append(all, c)
			for _, c := range all {
				c.run(0)
			}
			for range 10 {
				for _, c := range all {
					if c.events.Len() > 0 {
						c.run(0)
					}
				}
				time.Sleep(10 * time.Millisecond)
			}
			if used := b.Used(); used > budget {
				t.Fatalf("%d circuits promise %d cells, at most %d", i+1, used, budget)
			}
		}
		for i, c := range all {
			c.run(time.Second)
			if c.received == 0 {
				t.Errorf("circuit %d carries nothing", i)
			}
		}
	})
}
