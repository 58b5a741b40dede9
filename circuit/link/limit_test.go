package link

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
)

// Links that share a limit send as much as it says, together and in even parts.
func TestALimitHoldsOverAllItsLinks(t *testing.T) {
	for _, rate := range []uint64{100e3, 1e6, 20e6} {
		synctest.Test(t, func(t *testing.T) {
			const links, seconds = 3, 3
			p := NewLimit(rate)
			var all []*running
			// until no circuit is new any more, which would have a part ahead of others
			settle := time.Second + time.Duration(float64(aheadShare*links*sparseCells*cell.FrameSize)/float64(rate)*float64(time.Second))
			cells := int(float64(rate)*(seconds+settle.Seconds())) / cell.FrameSize / links * 2
			for range links {
				a, b := connect(t, linktest.Shape{Delay: time.Millisecond})
				a.Limit(p)
				x, y := run(t, a, true), run(t, b, true)
				all = append(all, x, y)
				near := open(t, a)
				near.hears(t, "created")
				far := <-y.accepted
				far.c.Grant(uint64(cells))
				synctest.Wait()
				time.Sleep(10 * time.Millisecond)
				if n := near.send(cells, 1); n != cells {
					t.Fatalf("%d cells queued", n)
				}
			}
			time.Sleep(settle)
			var before [links]uint64
			for i := range before {
				_, before[i] = all[2*i].Bytes()
			}
			time.Sleep(seconds * time.Second)
			sum := 0.0
			for i := range before {
				_, n := all[2*i].Bytes()
				sent := float64(n - before[i])
				sum += sent
				if want := float64(rate) * seconds / links; sent < 0.9*want || sent > 1.1*want {
					t.Errorf("limit %d: link %d sent %.0f bytes, its part is %.0f", rate, i, sent, want)
				}
			}
			if want := float64(rate) * seconds; sum < 0.95*want || sum > 1.05*want {
				t.Errorf("limit %d: %.0f bytes in %d s", rate, sum, seconds)
			}
			for _, r := range all {
				r.stop()
			}
		})
	}
}

// What a link sends alone, it may not save for more than a moment.
func TestALimitSavesLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1e6
		p := NewLimit(rate)
		time.Sleep(time.Hour)
		began, sent := time.Now(), 0
		for time.Since(began) < time.Second {
			time.Sleep(max(p.debt(), 0))
			n := p.batch() * cell.FrameSize
			p.sent(n)
			sent += n
		}
		if float64(sent) > 1.05*rate || float64(sent) < 0.95*rate {
			t.Errorf("%d bytes in the second behind an idle hour, want %.0f", sent, rate)
		}
	})
}

func TestALinkThatWaitsForItsLimitCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := connect(t, linktest.Shape{})
		p := NewLimit(10e3)
		p.sent(1e6) // of another link's
		a.Limit(p)
		x, y := run(t, a, true), run(t, b, true)
		open(t, a)
		time.Sleep(time.Second)
		began := time.Now()
		x.stop()
		if took := time.Since(began); took > 0 {
			t.Errorf("closed after %v", took)
		}
		<-y.done
	})
}

// While bulk keeps a limit busy on one link, cells of a circuit that sends few
// pass on another as if it were idle, and the limit holds all the same.
func TestFewCellsDoNotWaitForTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, seconds = 8_000_000, 3
		p := NewLimit(rate)
		var all []*running
		var ends, far []*end
		for range 2 {
			a, b := connect(t, linktest.Shape{})
			a.Limit(p)
			x, y := run(t, a, true), run(t, b, true)
			all = append(all, x, y)
			near := open(t, a)
			near.hears(t, "created")
			there := <-y.accepted
			there.c.Grant(1 << 20)
			ends, far = append(ends, near), append(far, there)
		}
		synctest.Wait()
		bulk, few := ends[0], ends[1]
		bulk.send(2*seconds*rate/cell.FrameSize, 1)
		time.Sleep(time.Second) // the burst is used up
		_, bulkBefore := all[0].Bytes()
		_, fewBefore := all[2].Bytes()
		began := time.Now()
		for i := 1; time.Since(began) < seconds*time.Second; i++ {
			few.send(1, 1)
			synctest.Wait()
			far[1].mu.Lock()
			if far[1].cells != i {
				t.Errorf("%d cells are there, want %d", far[1].cells, i)
			}
			far[1].mu.Unlock()
			time.Sleep(5 * time.Millisecond)
		}
		_, bulkAfter := all[0].Bytes()
		_, fewAfter := all[2].Bytes()
		if sent, want := float64(bulkAfter-bulkBefore+fewAfter-fewBefore), float64(rate)*seconds; sent < 0.95*want || sent > 1.05*want {
			t.Errorf("%.0f bytes in %d s, the limit allows %.0f", sent, seconds, want)
		}
		for _, r := range all {
			r.stop()
		}
	})
}
