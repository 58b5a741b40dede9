package link

import (
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/link/linktest"
)

func TestMeterTellsSmallCircuitsFromBulk(t *testing.T) {
	var m meter
	now, cells := time.Hour, uint64(0)
	carries := func(n uint64) bool {
		now, cells = now+meterEvery, cells+n
		if !m.due(now) {
			t.Fatal("not measured every meterEvery")
		}
		m.measure(cells, now)
		return m.small()
	}
	const most = uint64(smallRate * meterEvery / time.Second)
	for i, c := range []struct {
		cells uint64
		small bool
	}{{1, false}, {1, false}, {most, true}, {most + 1, false}, {100 * most, false}, {most, false}, {0, true}, {most, true}} {
		if small := carries(c.cells); small != c.small {
			t.Errorf("after %d cells in measurement %d: small = %v", c.cells, i, small)
		}
	}
	if m.due(now + meterEvery - 1) {
		t.Error("measured more often than every meterEvery")
	}
}

func TestReadersOfferTheirProcessorWhileSmallCircuitsAreInUse(t *testing.T) {
	guests.Store(0)
	defer guests.Store(0)
	l, _ := connect(t, linktest.Shape{})
	c := newCircuit(l, 1)
	now := time.Hour
	came := func(cells uint64) {
		now += meterEvery
		c.received.Add(cells)
		l.meet(c, now)
	}
	offers := func(waited bool) (n int) {
		var r turn
		for range 10 * busyFlushes {
			if r.over(waited, now) {
				n++
			}
		}
		return n
	}
	for range 3 {
		came(smallRate)
	}
	if n := offers(false); n != 0 {
		t.Errorf("%d offers beside bulk", n)
	}
	came(1)
	came(1)
	if n := offers(false); n != 10 {
		t.Errorf("%d offers in %d flushes beside a small circuit, want 10", n, 10*busyFlushes)
	}
	if n := offers(true); n != 0 {
		t.Errorf("%d offers of a reader that waits for its socket", n)
	}
	now += guestFor
	if n := offers(false); n != 0 {
		t.Errorf("%d offers long after the small circuit's last cell", n)
	}
}
