package stream

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/window"
)

// TestWhateverHappensAStreamEnds lets both ends write, read, close, break and
// set deadlines at random times, and then checks what must always hold: what
// was read is what was written from its beginning, nobody hangs (the bubble
// would say so), each circuit is told at most once, and the budget is whole.
func TestWhateverHappensAStreamEnds(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			budget := window.NewBudget(1 << 20)
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				p := newPair(t, shape{
					delay: time.Duration(r.IntN(3)) * time.Duration(r.IntN(20)) * time.Millisecond,
					slots: 1 + r.IntN(40),
				}, budget)
				var g sync.WaitGroup
				a, b := newEnd(p.a, p.b, r), newEnd(p.b, p.a, r)
				for _, e := range []*end{a, b} {
					g.Go(e.write)
					g.Go(e.read)
					g.Go(e.disturb)
				}
				g.Wait()
				a.compare(t, b)
				b.compare(t, a)
				p.a.Close()
				p.b.Close()
				time.Sleep(2 * linger)
				synctest.Wait()
				for _, w := range []*wire{p.ab, p.ba} {
					if got := w.reasons(); len(got) > 1 {
						t.Errorf("the circuit was told %v", got)
					}
				}
			})
			if got := budget.Used(); got != 0 {
				t.Errorf("%d bytes of budget never given back", got)
			}
		})
	}
}

// end is one side of TestWhateverHappensAStreamEnds.
type end struct {
	c     *Conn
	far   *Conn
	seeds [3]uint64 // of write, read, disturb

	wrote, got []byte
	readErr    error
}

func newEnd(c, far *Conn, r *rand.Rand) *end {
	return &end{c: c, far: far, seeds: [3]uint64{r.Uint64(), r.Uint64(), r.Uint64()}}
}

func (e *end) write() {
	r := rand.New(rand.NewPCG(e.seeds[0], 0))
	for range r.IntN(30) {
		p := make([]byte, 1+r.IntN(30_000)>>r.IntN(12))
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		n, err := e.c.Write(p)
		e.wrote = append(e.wrote, p[:n]...)
		if err != nil && err != os.ErrDeadlineExceeded {
			return
		}
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond)
		}
	}
	e.c.CloseWrite()
}

func (e *end) read() {
	r := rand.New(rand.NewPCG(e.seeds[1], 0))
	p := make([]byte, 1+r.IntN(100_000))
	for {
		n, err := e.c.Read(p)
		e.got = append(e.got, p[:n]...)
		if err != nil && err != os.ErrDeadlineExceeded {
			e.readErr = err
			return
		}
		time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
	}
}

// disturb does one or two things, or nothing.
func (e *end) disturb() {
	r := rand.New(rand.NewPCG(e.seeds[2], 0))
	for range r.IntN(3) {
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		switch r.IntN(7) {
		case 0:
			e.c.Close()
		case 1:
			e.c.CloseWrite()
		case 2:
			e.c.Fail(io.ErrClosedPipe) // the circuit died, for both
			e.far.Fail(io.ErrClosedPipe)
		default:
			e.c.SetDeadline(time.Now().Add(time.Duration(r.IntN(20)-2) * time.Millisecond))
			time.Sleep(time.Duration(r.IntN(50)) * time.Millisecond)
			e.c.SetDeadline(time.Time{})
		}
	}
}

// compare checks what e read against what the far side wrote.
func (e *end) compare(t *testing.T, far *end) {
	t.Helper()
	if !bytes.HasPrefix(far.wrote, e.got) {
		t.Errorf("read %d bytes that are no beginning of the %d written", len(e.got), len(far.wrote))
	}
	if e.readErr == io.EOF && len(e.got) != len(far.wrote) {
		t.Errorf("the end came after %d bytes of %d", len(e.got), len(far.wrote))
	}
}
