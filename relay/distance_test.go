package relay

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
	"github.com/shoal-p2p/shoal/circuit/stream"
)

// meter counts what comes out of a stream whose other end sends all it can.
type meter struct{ n atomic.Int64 }

func fill(from, to *stream.Conn) *meter {
	m := new(meter)
	go func() {
		b := make([]byte, 16*stream.MaxData)
		for {
			if _, err := from.Write(b); err != nil {
				return
			}
		}
	}()
	go func() {
		b := make([]byte, 16*stream.MaxData)
		for {
			n, err := to.Read(b)
			if m.n.Add(int64(n)); err != nil {
				return
			}
		}
	}()
	return m
}

// perTenth runs for so many tenths of a second and returns what came in each.
func perTenth(tenths int, ms ...*meter) (out [][]float64) {
	out = make([][]float64, len(ms))
	last := make([]int64, len(ms))
	for i, m := range ms {
		last[i] = m.n.Load()
	}
	for range tenths {
		time.Sleep(time.Second / 10)
		for i, m := range ms {
			n := m.n.Load()
			out[i] = append(out[i], float64(n-last[i]))
			last[i] = n
		}
	}
	return out
}

// lastSecond returns bytes per second over the second that ends with tenth i.
func lastSecond(tenths []float64, i int) (sum float64) {
	for _, n := range tenths[max(i-9, 0) : i+1] {
		sum += n
	}
	return sum
}

// Over six links of 25 ms a stream has 10 MB/s within 5 s and holds it, and one
// that joins it on the same circuit, or on another through the same links, has
// its half within 3 s. Virtual time leaves the windows alone to blame.
func TestDistantStreams(t *testing.T) {
	for name, way := range map[string]func(there, here *stream.Conn) (from, to *stream.Conn){
		"to the visitor": func(there, here *stream.Conn) (from, to *stream.Conn) { return here, there },
		"to the host":    func(there, here *stream.Conn) (from, to *stream.Conn) { return there, here },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := startNetwork(t, 6, linktest.NewNet(linktest.Shape{Delay: 25 * time.Millisecond, Rate: 16e6}))
				h := n.host(t, 2)
				one := fill(way(n.visit(t, h, 2)))
				alone := perTenth(50, one)[0]
				const rate, start = 10e6, 40 // tenths
				for i := start; i < len(alone); i++ {
					if got := lastSecond(alone, i); got < rate {
						t.Errorf("%.1f MB in the second that ends after %.1f s, want %.0f", got/1e6, float64(i+1)/10, rate/1e6)
					}
				}
				if most := 2 * int64(link.Ceiling); n.meets[5].budget.Used() > most {
					t.Errorf("the meeting relay has promised %d records, at most %d", n.meets[5].budget.Used(), most)
				}
				two := fill(way(n.visit(t, h, 2)))
				both := perTenth(40, one, two)
				{ // the second that begins after three; in whose turn goroutines run is chance
					const i = 39
					a, b := lastSecond(both[0], i), lastSecond(both[1], i)
					if b < 0.4*(a+b) {
						t.Errorf("%.1f and %.1f MB in the second that ends after %.1f s", a/1e6, b/1e6, float64(i+1)/10)
					}
				}
				t.Logf("alone, by tenths of a second, MB: %.2f", scaled(alone))
				t.Logf("the first of two: %.2f", scaled(both[0]))
				t.Logf("the second: %.2f", scaled(both[1]))
			})
		})
	}
}

func scaled(tenths []float64) (out []float64) {
	for _, n := range tenths {
		out = append(out, n/1e6)
	}
	return out
}
