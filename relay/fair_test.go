package relay

import (
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/link/linktest"
	"github.com/shoal-p2p/shoal/circuit/stream"
)

// trips asks so often, one question in every 5 ms, and returns how long the
// answers took, in order of length.
func trips(t *testing.T, count int, ask, answer *stream.Conn) (took []time.Duration) {
	t.Helper()
	go func() {
		b := make([]byte, 64)
		for range count {
			if _, err := io.ReadFull(answer, b); err != nil {
				return
			}
			if _, err := answer.Write(b); err != nil {
				return
			}
		}
	}()
	b := make([]byte, 64)
	for range count {
		began := time.Now()
		ask.Write(b)
		if _, err := io.ReadFull(ask, b); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
		time.Sleep(max(0, 5*time.Millisecond-time.Since(began)))
	}
	slices.Sort(took)
	return took
}

// With a bulk stream filling its relays, which send no more than their limit, a
// small stream through the same relays has at most twice its round trip alone
// at the median, and four times that at the 99th percentile.
func TestASmallStreamBesideBulk(t *testing.T) {
	for _, x := range []struct {
		name  string
		delay time.Duration
		limit uint64
	}{
		{"distant", 5 * time.Millisecond, 4e6},
		{"near", time.Millisecond, 20e6},
		{"slow", 10 * time.Millisecond, 2e6},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := startLimited(t, 2, linktest.NewNet(linktest.Shape{Delay: x.delay}), x.limit)
				ask, answer := pair(t, n, 1, 1)
				alone := trips(t, 200, ask, answer)
				bulk := fill(pair(t, n, 1, 1))
				time.Sleep(3 * time.Second)
				before, began := bulk.n.Load(), time.Now()
				beside := trips(t, 400, ask, answer)
				rate := float64(bulk.n.Load()-before) / time.Since(began).Seconds()
				t.Logf("median %v and %v, 99th percentile %v and %v, bulk %.2f MB/s", alone[100], beside[200], alone[198], beside[396], rate/1e6)
				if beside[200] > 2*alone[100] {
					t.Errorf("median %v beside bulk, %v alone", beside[200], alone[100])
				}
				if beside[396] > 4*alone[100] {
					t.Errorf("99th percentile %v beside bulk, median %v alone", beside[396], alone[100])
				}
				// The guard of both ends sends the bulk twice.
				if rate < 0.35*float64(x.limit) || rate > float64(x.limit) {
					t.Errorf("bulk of %.2f MB/s through relays that send %.2f", rate/1e6, float64(x.limit)/1e6)
				}
			})
		})
	}
}
