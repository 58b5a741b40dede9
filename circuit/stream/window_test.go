package stream

import (
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// clock is a time that a test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func TestWindowIsToldWhenHalfWasRead(t *testing.T) {
	var c clock
	w := newWindow(c.t)
	w.receive(windowFloor - 1)
	if w.drain(windowFloor/2-1, c.now, (*Budget)(nil)) {
		t.Error("told before half was read")
	}
	if !w.drain(1, c.now, (*Budget)(nil)) || w.limit != windowFloor*3/2 {
		t.Errorf("limit %d after half was read", w.limit)
	}
	if w.drain(windowFloor/2-1, c.now, (*Budget)(nil)) {
		t.Error("told again before another half")
	}
}

func TestWindowRefusesWhatIsBeyondTheLimit(t *testing.T) {
	w := newWindow(time.Time{})
	for _, step := range []struct {
		n    int
		want bool
	}{{windowFloor - 10, true}, {11, false}, {10, true}, {1, false}} {
		if got := w.receive(step.n); got != step.want {
			t.Errorf("receive(%d) at %d = %v", step.n, w.received, got)
		}
	}
}

// TestWindowSteps follows single windows through what can happen to them. In
// each step so much arrives, then so much is read.
func TestWindowSteps(t *testing.T) {
	const k = 1 << 10
	type step struct {
		arrive, read int
		after        time.Duration
		size, limit  uint64
	}
	for name, steps := range map[string][]step{
		"grows when all was sent and read": {
			{64 * k, 64 * k, 0, 128 * k, 192 * k},
			{128 * k, 128 * k, 0, 256 * k, 448 * k},
		},
		"grows when all was sent and read in pieces": {
			{64 * k, 40 * k, 0, 64 * k, 104 * k},
			{0, 24 * k, 0, 128 * k, 192 * k},
		},
		"grows once for a window, not at each limit on the way": {
			{64 * k, 40 * k, 0, 64 * k, 104 * k},
			{0, 24 * k, 0, 128 * k, 192 * k},
			{40 * k, 40 * k, 0, 128 * k, 232 * k}, // up to the limit told first, the next one still on its way
			{88 * k, 88 * k, 0, 256 * k, 448 * k},
		},
		"stays when the reader is slow": {
			{64 * k, 40 * k, 0, 64 * k, 104 * k},
			{40 * k, 30 * k, 0, 64 * k, 104 * k},
			{0, 10 * k, 0, 64 * k, 144 * k},
			{40 * k, 30 * k, 0, 64 * k, 144 * k},
		},
		"stays when the far side has no more to send": {
			{40 * k, 40 * k, 0, 64 * k, 104 * k},
			{60 * k, 60 * k, 0, 64 * k, 164 * k},
			{60 * k, 60 * k, 0, 64 * k, 224 * k},
		},
		"shrinks when half of it takes many round trips": {
			{64 * k, 64 * k, 0, 128 * k, 192 * k},
			{1, 1, time.Millisecond, 128 * k, 192 * k}, // the stall took a millisecond
			{64*k - 1, 64*k - 1, slowReads * time.Millisecond, 64 * k, 192 * k},
			{63 * k, 63 * k, time.Hour, 64 * k, 255 * k}, // no further
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := clock{time.Unix(1, 0)}
			w := newWindow(c.t)
			for i, s := range steps {
				c.t = c.t.Add(s.after)
				if !w.receive(s.arrive) {
					t.Fatalf("step %d: %d bytes at %d overrun %d", i, s.arrive, w.received, w.limit)
				}
				if s.arrive > 0 && !w.stalled.IsZero() {
					w.resume(c.t)
				}
				before := w.limit
				told := w.drain(s.read, c.now, (*Budget)(nil))
				if w.size != s.size || w.limit != s.limit {
					t.Errorf("step %d: size %d KiB and limit %d KiB, want %d and %d", i, w.size/k, w.limit/k, s.size/k, s.limit/k)
				}
				if told != (w.limit != before) {
					t.Errorf("step %d: told %v, limit went from %d to %d", i, told, before, w.limit)
				}
			}
		})
	}
}

func TestWindowStopsAtTheCeilingAndAtTheBudget(t *testing.T) {
	for _, x := range []struct {
		b    *Budget
		want uint64
	}{
		{nil, windowCeiling},
		{NewBudget(256 << 20), windowCeiling},
		{NewBudget(8 << 20), 2 << 20}, // half for others' first windows, half of the rest left to them
		{NewBudget(windowFloor), windowFloor},
	} {
		var c clock
		w := newWindow(c.t)
		if !x.b.open() {
			t.Fatal("no room")
		}
		for range 20 {
			n := int(w.limit - w.received)
			w.receive(n)
			w.drain(n, c.now, x.b)
		}
		if w.size != x.want {
			t.Errorf("window of %d bytes, want %d", w.size, x.want)
		}
		if x.b != nil && x.b.Used() != int64(w.size) {
			t.Errorf("%d bytes of budget for a window of %d", x.b.Used(), w.size)
		}
		x.b.close(w.size)
		if x.b.Used() != 0 {
			t.Errorf("%d bytes of budget never given back", x.b.Used())
		}
	}
}

func TestBudgetKeepsHalfForNewStreams(t *testing.T) {
	const total = 64 << 20
	b := NewBudget(total)
	var windows []uint64
	for range 50 {
		if !b.open() {
			t.Fatal("no room")
		}
		windows = append(windows, windowFloor)
	}
	for range 10 {
		for i := range windows {
			if windows[i] < windowCeiling && b.grow(windows[i]) {
				windows[i] *= 2
			}
		}
	}
	for i, w := range windows {
		if w < windowFloor*2 {
			t.Errorf("window %d didn't get to grow", i)
		}
	}
	n := 0
	for b.open() {
		n++
	}
	if want := total / 2 / windowFloor; n < want-len(windows) {
		t.Errorf("room for %d more streams, want %d", n, want)
	}
	if !b.Full() || b.Used() > total {
		t.Errorf("full: %v with %d bytes of %d", b.Full(), b.Used(), total)
	}
	// Now large windows are asked to shrink, which makes room again.
	for i, w := range windows {
		for w > windowFloor && b.tight(w) {
			b.shrink(w)
			w /= 2
		}
		windows[i] = w
		b.close(w)
	}
	if got := b.Used(); got != int64(n*windowFloor) {
		t.Errorf("%d bytes in use, want %d", got, n*windowFloor)
	}
}

// TestOneStreamFillsALongFatPath is the distance goal: over a round trip of
// 300 ms a stream gets to 10 MB/s and more within 5 s, and stays there.
func TestOneStreamFillsALongFatPath(t *testing.T) {
	for _, x := range []struct {
		trip        time.Duration
		rate        float64
		slots       int     // what the circuit lets be under way
		after, want float64 // seconds, bytes per second
		most        uint64  // window, bytes
	}{
		{300 * time.Millisecond, 100e6, 1 << 14, 3, 14e6, windowCeiling},
		{300 * time.Millisecond, 12e6, 2048, 3, 11e6, windowCeiling},
		{time.Millisecond, 200e6, 256, 0.1, 160e6, 4 << 20},
		{50 * time.Millisecond, 1e6, 32, 1, 0.9e6, 512 << 10},
	} {
		t.Run(x.trip.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				budget := NewBudget(256 << 20)
				p := newPair(t, shape{delay: x.trip / 2, rate: x.rate, slots: x.slots}, budget)
				var g sync.WaitGroup
				g.Go(func() {
					b := make([]byte, bufferSize)
					for {
						if _, err := p.a.Write(b); err != nil {
							return
						}
					}
				})
				var mu sync.Mutex
				var n int64
				g.Go(func() {
					p.b.WriteTo(writerFunc(func(b []byte) (int, error) {
						mu.Lock()
						defer mu.Unlock()
						n += int64(len(b))
						return len(b), nil
					}))
				})
				read := func() int64 { mu.Lock(); defer mu.Unlock(); return n }
				time.Sleep(time.Duration(x.after * 1e9))
				before := read()
				time.Sleep(10 * x.trip)
				rate := float64(read()-before) / (10 * x.trip).Seconds()
				p.b.mu.Lock()
				size, trip := p.b.window.size, p.b.window.trip
				p.b.mu.Unlock()
				t.Logf("%.1f MB/s after %v s, window %d KiB, round trip %v", rate/1e6, x.after, size>>10, trip)
				if rate < x.want {
					t.Errorf("%.1f MB/s, want %.1f", rate/1e6, x.want/1e6)
				}
				if trip < x.trip {
					t.Errorf("round trip measured as %v", trip)
				}
				if size > x.most {
					t.Errorf("window of %d KiB, want at most %d", size>>10, x.most>>10)
				}
				p.a.Fail(io.ErrClosedPipe)
				p.b.Fail(io.ErrClosedPipe)
				g.Wait()
			})
		})
	}
}

// TestAWindowFollowsASlowReader: what a reader doesn't take is not promised.
func TestAWindowFollowsASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, shape{delay: 5 * time.Millisecond, slots: 1 << 14}, nil)
		go func() {
			b := make([]byte, bufferSize)
			for {
				if _, err := p.a.Write(b); err != nil {
					return
				}
			}
		}()
		b := make([]byte, 10_000)
		for range 1000 { // 1 MB/s
			time.Sleep(10 * time.Millisecond)
			if _, err := io.ReadFull(p.b, b); err != nil {
				t.Fatal(err)
			}
		}
		p.b.mu.Lock()
		defer p.b.mu.Unlock()
		if p.b.window.size > 2*windowFloor {
			t.Errorf("window of %d bytes for 10 kB a round trip", p.b.window.size)
		}
	})
}
