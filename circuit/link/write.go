package link

import (
	"fmt"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

const (
	batchCells = batchSize / cell.FrameSize // what one write carries at most

	// directBatches is how many batches whoever flushes writes himself before
	// he goes on with his own work.
	directBatches = 2
)

// batch is what one write carries.
type batch struct {
	control []byte // frames that are no cells, in a buffer
	cells   [batchCells]*cell.Frame
	n       int // of cells
	touched [batchCells]*Circuit
	m       int // of touched

	records []byte // all of it as it goes out, in a buffer
	done    int    // of records: written
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// Whoever flushes writes himself, as far as the socket takes it at once: a
// goroutine that had to be woken for each batch would cost as much again as
// writing it does. What the socket does not take, and control frames that come
// alone, are writeLoop's, and everything on a link with a limit. One writes at
// a time: who has set l.writing.

// flushOut writes what waits, or leaves it to somebody who is writing.
func (l *Link) flushOut() {
	l.mu.Lock()
	if l.limit != nil || !l.wire.poll.direct() {
		if l.sched.hurries() || l.alive.due {
			select {
			case l.hurry <- struct{}{}:
			default:
			}
		}
		l.mu.Unlock()
		l.wake.Signal()
		return
	}
	for range directBatches {
		if !l.begin() {
			l.mu.Unlock()
			return
		}
		b := l.gather(true)
		l.mu.Unlock()
		l.seal(b)
		n, err := l.wire.poll.write(b.records)
		if err != nil {
			l.close(fmt.Errorf("link: write: %w", err))
			return
		}
		if b.done = n; n < len(b.records) {
			l.mu.Lock()
			l.left = b
			l.mu.Unlock()
			l.wake.Signal()
			return
		}
		l.finish(b)
		l.mu.Lock()
		l.writing = false
	}
	more := l.waits()
	l.mu.Unlock()
	if more {
		l.wake.Signal()
	}
}

// writeLoop writes what nobody else does.
func (l *Link) writeLoop() error {
	var deadline time.Time
	for {
		b := l.await()
		if b == nil {
			return nil
		}
		if b.records == nil {
			l.seal(b)
		}
		if now := time.Now(); deadline.Sub(now) < writeTimeout-writeSlack {
			deadline = now.Add(writeTimeout)
			l.wire.SetWriteDeadline(deadline)
		}
		if _, err := l.wire.Write(b.records[b.done:]); err != nil {
			return fmt.Errorf("link: write: %w", err)
		}
		l.finish(b)
		l.mu.Lock()
		l.writing = false
		l.mu.Unlock()
	}
}

// await waits for something to write, or returns nil when the link is over.
func (l *Link) await() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.err != nil {
			return nil
		}
		if b := l.left; b != nil {
			l.left = nil
			return b
		}
		if !l.begin() {
			l.wake.Wait()
			continue
		}
		all := l.limit == nil || l.pay()
		if l.waits() {
			return l.gather(all)
		}
		l.writing = false // what was there has gone
	}
}

// waits reports whether there is something to write. Caller holds mu.
func (l *Link) waits() bool { return l.alive.due || len(l.control) > 0 || !l.sched.empty() }

// begin makes the caller the one who writes, unless somebody is or there is
// nothing. Caller holds mu.
func (l *Link) begin() bool {
	if l.writing || l.err != nil || !l.waits() {
		return false
	}
	l.writing = true
	return true
}

// gather takes what goes out next, all or only what goes ahead. Control frames
// go first, but leave half of a batch to cells. Caller holds mu.
func (l *Link) gather(all bool) *batch {
	b := batches.Get().(*batch)
	b.control, b.n, b.m = getBuffer(), 0, 0
	n := 0
	for n < len(l.control) && len(b.control) < batchSize/2 {
		b.control = l.control[n].appendControl(b.control)
		n++
	}
	left := copy(l.control, l.control[n:])
	clear(l.control[left:])
	l.control = l.control[:left]
	for b.n < min((batchSize-len(b.control))/cell.FrameSize, l.limit.batch()) {
		if !all && (!l.sched.hurries() || b.n > 0 && !l.limit.mayHurry()) {
			break
		}
		f, c := l.sched.next()
		if f == nil {
			break
		}
		b.cells[b.n] = f
		b.n++
		if !c.touched {
			c.touched = true
			b.touched[b.m] = c
			b.m++
		}
		c.sent++
	}
	for _, c := range b.touched[:b.m] {
		c.touched, c.report = false, c.sent
	}
	if l.alive.due && len(b.control) == 0 && b.n == 0 {
		b.control = cell.AppendKeepalive(b.control)
	}
	l.alive.due = false
	return b
}

// seal makes the batch's records and frees what they are made of.
func (l *Link) seal(b *batch) {
	b.records, b.done = getBuffer(), 0
	control, cells := b.control, b.cells[:b.n]
	for len(control) > 0 || len(cells) > 0 {
		n := min(len(cells), recordCells)
		b.records = appendRecord(b.records, &l.out, control, cells[:n])
		control, cells = nil, cells[n:]
	}
	for i, f := range b.cells[:b.n] {
		f.Free()
		b.cells[i] = nil
	}
	putBuffer(b.control)
	b.control = nil
}

// finish tells the circuits what has gone out, and gives b back.
func (l *Link) finish(b *batch) {
	l.bytesOut.Add(uint64(len(b.records)))
	l.limit.sent(len(b.records))
	putBuffer(b.records)
	b.records = nil
	for i, c := range b.touched[:b.m] {
		c.handler.Sent(c.report)
		b.touched[i] = nil
	}
	batches.Put(b)
}
