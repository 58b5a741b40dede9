package link

import (
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

const (
	// limitBatch is how long one write takes at the limit's rate: what comes
	// next on the link waits so long, and there it is chosen what comes next.
	limitBatch = time.Millisecond

	// limitBurst is what may be caught up on that no link wanted to send: a
	// timer may be late.
	limitBurst = 5 * time.Millisecond
)

// Limit is a rate that all links that have it share, as far as they send after
// their handshake. Links take turns, a batch each; which circuit's cells are in
// it is decided when the turn comes, so that nothing waits in the wrong order.
// Cells that go ahead of others on their link do not wait for turns either, up
// to a part of the rate; all others pay for them.
type Limit struct {
	bucket  *rate.Limiter // bytes; below zero: sent and not paid for
	ahead   *rate.Limiter // cells
	cells   int           // of one batch
	carried atomic.Uint64 // cells, of all links
}

// NewLimit returns a limit of so many bytes a second; nil, which limits
// nothing, for 0.
func NewLimit(bytes uint64) *Limit {
	if bytes == 0 {
		return nil
	}
	in := func(d time.Duration) int { return int(float64(bytes) * d.Seconds()) }
	return &Limit{
		bucket: rate.NewLimiter(rate.Limit(bytes), max(in(limitBurst), cell.FrameSize)),
		ahead:  rate.NewLimiter(rate.Limit(bytes)/(aheadShare*cell.FrameSize), sparseCells),
		cells:  min(max(in(limitBatch)/cell.FrameSize, 1), batchCells),
	}
}

// batch returns how many cells one write may have.
func (p *Limit) batch() int {
	if p == nil {
		return batchCells
	}
	return p.cells
}

// debt returns how long it takes until all that was sent is paid for.
func (p *Limit) debt() time.Duration {
	return time.Duration(-p.bucket.Tokens() / float64(p.bucket.Limit()) * float64(time.Second))
}

// mayHurry reports whether one more cell may go before all is paid for.
func (p *Limit) mayHurry() bool { return p.ahead.Allow() }

// sent takes note of n bytes.
func (p *Limit) sent(n int) {
	if p == nil {
		return
	}
	now := time.Now()
	for ; n > 0; n -= p.bucket.Burst() {
		p.bucket.ReserveN(now, min(n, p.bucket.Burst()))
	}
}

// pay waits until the limit allows what waits: all of it, or, with false, one
// cell that goes ahead, and more for which mayHurry says so. A KEEPALIVE that is
// due does not wait: among many busy links a turn can take longer than the other
// side waits for a sign of life. Caller holds mu,
// which is released meanwhile, and is the one who writes.
func (l *Link) pay() (all bool) {
	for {
		d := l.limit.debt()
		if d <= 0 || l.err != nil {
			return true
		}
		if l.alive.due || l.sched.hurries() && l.limit.mayHurry() {
			return false
		}
		l.mu.Unlock()
		t := time.NewTimer(d)
		paid := false
		select {
		case <-t.C:
			paid = true // whoever else waited for this moment may have made new debts in it
		case <-l.hurry:
		case <-l.done:
		}
		t.Stop()
		l.mu.Lock()
		if paid {
			return true
		}
	}
}
