package stream

import (
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/window"
)

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
				budget := window.NewBudget(256 << 20)
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
				size := p.b.inbox.Size()
				p.b.mu.Unlock()
				t.Logf("%.1f MB/s after %v s, window %d KiB", rate/1e6, x.after, size>>10)
				if rate < x.want {
					t.Errorf("%.1f MB/s, want %.1f", rate/1e6, x.want/1e6)
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
		if p.b.inbox.Size() > 2*windowFloor {
			t.Errorf("window of %d bytes for 10 kB a round trip", p.b.inbox.Size())
		}
	})
}
