package link

import (
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// A reader whose socket is never empty keeps its thread, and the system lets a
// thread have a processor for some milliseconds before another one's turn comes:
// so long waits who is woken by another socket. Readers therefore offer the
// processor to others, but only while there are circuits that gain by it: each
// offer costs bulk a little. BenchmarkRelayFair has the numbers.
const (
	// busyFlushes is how often in a row a reader flushes, its socket never
	// empty, before it offers its processor.
	busyFlushes = 8

	// guestFor is how long after a small circuit's cells one is expected to
	// have more.
	guestFor = 250 * time.Millisecond

	// smallRate is the most that a small circuit carries, in cells a second,
	// both directions together: 2 MB/s. It is measured over meterEvery or longer.
	smallRate  = 2_000_000 / cell.Payload
	meterEvery = 100 * time.Millisecond
)

// guests is until when small circuits are expected to have cells, on the clock
// of package window. It is the process's, as its threads are.
var guests atomic.Int64

// meter tells small circuits from bulk, and from bulk that begins or ends.
type meter struct {
	at    time.Duration // of the last measurement; 0: none
	cells uint64        // then
	times int           // how often in a row little was measured
}

// small reports whether the circuit has been small for a while.
func (m *meter) small() bool { return m.times > 1 }

// due reports whether it is time to measure.
func (m *meter) due(now time.Duration) bool { return now-m.at >= meterEvery }

// measure notes how many cells the circuit has carried in all.
func (m *meter) measure(cells uint64, now time.Duration) {
	if m.times++; m.at == 0 || float64(cells-m.cells) > smallRate*(now-m.at).Seconds() {
		m.times = 0
	}
	m.at, m.cells = now, cells
}

// meet looks at whose cells came.
func (l *Link) meet(c *Circuit, now time.Duration) {
	if c.meter.due(now) {
		l.mu.Lock()
		sent := c.sent
		l.mu.Unlock()
		c.meter.measure(c.received.Load()+sent, now)
	}
	if until := int64(now + guestFor); c.meter.small() && guests.Load() < until-int64(meterEvery) {
		guests.Store(until) // seldom: all readers look at it
	}
}

// turn counts a reader's flushes since its socket was last empty.
type turn int

// over reports whether the reader should offer its processor after a flush.
// waited says if its socket was empty since the one before.
func (t *turn) over(waited bool, now time.Duration) bool {
	if *t++; waited {
		*t = 0
	}
	if *t < busyFlushes || int64(now) >= guests.Load() {
		return false
	}
	*t = 0
	return true
}
