package onion

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

func tag(n int) (t [16]byte) {
	binary.BigEndian.PutUint64(t[:], uint64(n))
	return t
}

func TestStepIsTenMinutes(t *testing.T) {
	for unix, want := range map[int64]uint32{0: 0, 599: 0, 600: 1, 1_740_000_000: 2_900_000} {
		if got := Step(time.Unix(unix, 999_999_999)); got != want {
			t.Errorf("Step(%d) = %d, want %d", unix, got, want)
		}
	}
}

func TestReplayCacheTakesOneStepEitherWay(t *testing.T) {
	const top = 1<<32 - 1
	for _, v := range []struct {
		now, step uint32
		want      cell.Reason
	}{
		{100, 100, cell.OK}, {100, 99, cell.OK}, {100, 101, cell.OK},
		{100, 98, cell.Replayed}, {100, 102, cell.Replayed}, {100, 0, cell.Replayed}, {100, top, cell.Replayed},
		{0, 0, cell.OK}, {0, 1, cell.OK}, {0, 2, cell.Replayed}, {0, top, cell.Replayed},
		{top, top, cell.OK}, {top, top - 1, cell.OK}, {top, 0, cell.Replayed},
	} {
		if got := NewReplayCache(1).Add(v.now, v.step, tag(1)); got != v.want {
			t.Errorf("at %d, made at %d: %v, want %v", v.now, v.step, got, v.want)
		}
	}
}

func TestReplayCacheRemembersAsLongAsTimeWouldAllow(t *testing.T) {
	c := NewReplayCache(10)
	for now := uint32(99); now <= 101; now++ {
		want := cell.Replayed
		if now == 99 {
			want = cell.OK
		}
		if got := c.Add(now, 100, tag(1)); got != want {
			t.Errorf("at %d: %v, want %v", now, got, want)
		}
	}
	if got := c.Add(102, 100, tag(1)); got != cell.Replayed {
		t.Errorf("at 102: %v", got)
	}
	if got := c.Add(100, 100, tag(2)); got != cell.Replayed {
		t.Errorf("with the clock set back to before what was dropped: %v", got)
	}
}

func TestFullReplayCacheRefusesUntilTimeFreesIt(t *testing.T) {
	c := NewReplayCache(3)
	for i := range 3 {
		if got := c.Add(100, 100, tag(i)); got != cell.OK {
			t.Fatalf("entry %d: %v", i, got)
		}
	}
	if got := c.Add(100, 101, tag(3)); got != cell.Busy {
		t.Errorf("entry 3: %v, want %v", got, cell.Busy)
	}
	if got := c.Add(100, 100, tag(1)); got != cell.Replayed {
		t.Errorf("a known entry: %v, want %v", got, cell.Replayed)
	}
	if got := c.Add(102, 101, tag(3)); got != cell.OK {
		t.Errorf("entry 3 after the others' time: %v", got)
	}
}

func TestReplayCacheOutlivesItsProcess(t *testing.T) {
	before := NewReplayCache(10)
	for i := range 4 {
		before.Add(100, uint32(99+i%3), tag(i))
	}
	wire := before.Append(nil)
	for i := range len(wire) {
		err := NewReplayCache(10).Load(wire[:i])
		if whole := i%entrySize == 0; (err == nil) != whole {
			t.Errorf("loading %d of %d bytes: %v", i, len(wire), err)
		}
	}
	after := NewReplayCache(10)
	if err := after.Load(wire); err != nil {
		t.Fatal(err)
	}
	if err := after.Load(wire); err != nil || after.count != 4 {
		t.Errorf("loading twice: %v, %d entries", err, after.count)
	}
	for i := range 4 {
		if got := after.Add(100, uint32(99+i%3), tag(i)); got != cell.Replayed {
			t.Errorf("entry %d: %v", i, got)
		}
	}
	if err := NewReplayCache(3).Load(wire); err == nil {
		t.Error("loaded four entries into three")
	}
}

func TestRefusedStepsStayRefused(t *testing.T) {
	c := NewReplayCache(10)
	c.Refuse(101)
	for step, want := range map[uint32]cell.Reason{100: cell.Replayed, 101: cell.Replayed, 102: cell.OK} {
		if got := c.Add(101, step, tag(1)); got != want {
			t.Errorf("step %d: %v, want %v", step, got, want)
		}
	}
}

func TestReplayCacheServesEachOnceToMany(t *testing.T) {
	c := NewReplayCache(1000)
	var wg sync.WaitGroup
	counts := make([]int, 8)
	for i := range counts {
		wg.Go(func() {
			for n := range 500 {
				if c.Add(100, 100, tag(n)) == cell.OK {
					counts[i]++
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range counts {
		sum += n
	}
	if sum != 500 {
		t.Errorf("served %d of 500", sum)
	}
}
