// Package link is one neighbour: a TLS connection that carries the frames of
// many circuits, with credit per circuit and one fair, batching writer.
// Not here: what a cell means (packages onion, hop, circuit), whom to dial.
//
// # Credit
//
// A side sends DATA on a circuit only as far as the other side has allowed:
// Floor cells from the start, then what the newest CREDIT says, counted from
// the circuit's first cell. Sending more ends the circuit.
//
// # Endings
//
// DESTROY is answered by DESTROY; after both, the id is over. Frames that were
// on their way to a circuit that this side destroyed are dropped, up to the
// credit it had; a frame for any other unknown id closes the link.
package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

const (
	batchSize    = 64 << 10         // one write: past 16 KiB TLS gains nothing, fewer syscalls do
	writeTimeout = 30 * time.Second // a link that can't write for so long closes
	writeSlack   = 5 * time.Second  // of it may be missing: deadlines are not set for each write
	maxCircuits  = 1 << 16          // on one link
)

// ErrClosed is what opening a circuit on a dead link gives; callers dial anew.
var ErrClosed = errors.New("link: closed")

// Handler is the owner of a circuit's end at a link. The link's reader calls
// everything but Sent, which its writer calls: no method may block. After
// Destroyed, or once Circuit.Destroy has returned, nothing more is called, but
// a call of the other goroutine's may be under way.
type Handler interface {
	Created(body []byte)     // CREATED came, once; body is valid until return
	Cell(f *cell.Frame)      // a cell came, after CREATED; the handler owns f
	Credit(total uint64)     // so many cells may be sent in all, more than before
	Sent(total uint64)       // so many cells have gone to the wire in all
	Destroyed(r cell.Reason) // the circuit is over, by the neighbour or with the link
}

// Link is one neighbour. Its methods may be called from any goroutine.
type Link struct {
	conn    *tls.Conn
	wire    *wire
	peer    onion.ID
	dialled bool
	hello   []byte
	accept  func(c *Circuit, create []byte)

	done chan struct{}

	mu       sync.Mutex
	wake     sync.Cond            // for the writer
	circuits map[cell.ID]*Circuit // guarded by mu: alive, or with a DESTROY to send; nil once Run is over
	ghosts   map[cell.ID]uint64   // guarded by mu: destroyed here but not there yet: cells that may still come
	nextID   cell.ID              // guarded by mu: the next of ours
	lastPeer cell.ID              // guarded by mu: the last of theirs
	control  []*Circuit           // guarded by mu: those with a control frame to send
	sched    scheduler            // guarded by mu
	err      error                // guarded by mu: why the link closed
	idleFrom time.Time            // guarded by mu: since when no circuit is open

	bytesIn, bytesOut atomic.Uint64
}

func newLink(c *tls.Conn, w *wire, peer onion.ID, dialled bool) *Link {
	l := &Link{conn: c, wire: w, peer: peer, dialled: dialled, done: make(chan struct{}),
		circuits: make(map[cell.ID]*Circuit), ghosts: make(map[cell.ID]uint64), idleFrom: time.Now()}
	l.wake.L = &l.mu
	l.nextID = 2
	if dialled {
		l.nextID = 1
	}
	return l
}

// Peer returns the neighbour's identity, or zero when it shows none.
func (l *Link) Peer() onion.ID { return l.peer }

// Hello returns what the acceptor said of itself; whether to believe it is the
// caller's question. It is not to be changed.
func (l *Link) Hello() []byte { return l.hello }

// Done is closed when the link is over.
func (l *Link) Done() <-chan struct{} { return l.done }

// Bytes returns what the link has read and written, bytes inside TLS.
func (l *Link) Bytes() (in, out uint64) { return l.bytesIn.Load(), l.bytesOut.Load() }

// Idle returns for how long no circuit has been open on l; 0 while one is.
func (l *Link) Idle() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.circuits) > 0 {
		return 0
	}
	return time.Since(l.idleFrom)
}

// Circuits returns how many circuits are open on l.
func (l *Link) Circuits() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.circuits)
}

// Run carries frames until ctx ends or the link dies, and returns why. accept
// is called on the reader for each CREATE: it must not block, and owns the
// bytes. Somebody calls Handle and Created on the circuit then, or Destroy. A
// nil accept refuses circuits.
func (l *Link) Run(ctx context.Context, accept func(c *Circuit, create []byte)) error {
	l.accept = accept
	stop := context.AfterFunc(ctx, func() { l.close(ctx.Err()) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { l.close(l.writeLoop()) })
	l.close(l.readLoop())
	wg.Wait()
	l.mu.Lock()
	err, open := l.err, l.circuits
	l.circuits, l.ghosts, l.control = nil, nil, nil
	l.mu.Unlock()
	for _, c := range open {
		c.end(cell.Gone)
	}
	return err
}

// Close ends the link; Run returns.
func (l *Link) Close() { l.close(ErrClosed) }

func (l *Link) close(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
		if err == nil {
			l.err = ErrClosed
		}
		close(l.done)
	}
	l.mu.Unlock()
	l.wake.Broadcast()
	l.wire.Conn.Close()
}

// signal has the writer look at c's control frames. Caller holds mu.
func (l *Link) signal(c *Circuit) {
	if !c.signalled {
		c.signalled = true
		l.control = append(l.control, c)
		l.wake.Signal()
	}
}

// crowded reports whether the other side leaves too many DESTROYs unanswered.
// Caller holds mu.
func (l *Link) crowded() bool { return len(l.circuits)+len(l.ghosts) >= 2*maxCircuits }

// forget drops the id of a circuit that is over. Caller holds mu.
func (l *Link) forget(c *Circuit) {
	delete(l.circuits, c.id)
	if len(l.circuits) == 0 {
		l.idleFrom = time.Now()
	}
}

// bury drops a circuit whose DESTROY goes out. What the other side had sent
// before it sees that may still come. Caller holds mu.
func (l *Link) bury(c *Circuit) {
	l.forget(c)
	if !c.peerDead && l.ghosts != nil {
		l.ghosts[c.id] = c.allowed.Load() - min(c.received.Load(), c.allowed.Load())
	}
}

// batch is what one write carries.
type batch struct {
	buf     []byte // control frames; then the cells' room
	frames  [batchSize / cell.FrameSize]*cell.Frame
	n       int // of frames
	touched [batchSize / cell.FrameSize]*Circuit
	m       int // of touched
}

func (l *Link) writeLoop() error {
	var b batch
	var deadline time.Time
	for l.collect(&b) {
		for _, f := range b.frames[:b.n] {
			b.buf = append(b.buf, f[:]...)
			f.Free()
		}
		if now := time.Now(); deadline.Sub(now) < writeTimeout-writeSlack {
			deadline = now.Add(writeTimeout)
			l.wire.Conn.SetWriteDeadline(deadline)
		}
		err := l.wire.batch(l.conn, b.buf)
		l.bytesOut.Add(uint64(len(b.buf)))
		putBuffer(b.buf)
		if err != nil {
			return fmt.Errorf("link: write: %w", err)
		}
		for _, c := range b.touched[:b.m] {
			c.handler.Sent(c.report)
		}
		clear(b.frames[:b.n])
		clear(b.touched[:b.m])
	}
	return nil
}

// collect waits for frames to send, and reports false when the link is over.
// Control frames go first, but leave half of a batch to cells.
func (l *Link) collect(b *batch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && len(l.control) == 0 && l.sched.empty() {
		l.wake.Wait()
	}
	if l.err != nil {
		return false
	}
	b.buf, b.n, b.m = getBuffer(), 0, 0
	limit := batchSize
	if !l.sched.empty() {
		limit = batchSize / 2
	}
	n := 0
	for n < len(l.control) && len(b.buf) < limit {
		b.buf = l.control[n].appendControl(b.buf)
		n++
	}
	left := copy(l.control, l.control[n:])
	clear(l.control[left:])
	l.control = l.control[:left]
	for b.n < (batchSize-len(b.buf))/cell.FrameSize {
		f, c := l.sched.next()
		if f == nil {
			break
		}
		b.frames[b.n] = f
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
	return true
}

// readLoop reads each cell into a frame of its own, without a copy between.
func (l *Link) readLoop() error {
	f := cell.NewFrame()
	defer func() { f.Free() }()
	have := 0      // bytes of f that were read
	var c *Circuit // most cells come from the circuit of the one before
	for {
		var err error
		if have, err = l.fill(f[:], have, cell.HeaderSize); err != nil {
			return err
		}
		h, n, err := cell.ParseHeader(f[:])
		if err != nil {
			return fmt.Errorf("link: %w", err)
		}
		l.bytesIn.Add(uint64(cell.HeaderSize + n))
		switch h.Command {
		case cell.Data:
			if have, err = l.fill(f[:], have, cell.FrameSize); err != nil {
				return err
			}
			if c == nil || c.id != h.Circuit || c.state.Load() == over {
				if c, err = l.find(h); err != nil {
					return err
				}
			}
			if c != nil {
				taken := f
				f = cell.NewFrame()
				if err := c.receive(taken); err != nil {
					return err
				}
			}
			have = 0
		case cell.Create: // longer than f
			create := make([]byte, n)
			k := copy(create, f[cell.HeaderSize:have])
			if _, err := l.fill(create, k, n); err != nil {
				return err
			}
			have = 0
			if err := l.create(h.Circuit, create); err != nil {
				return err
			}
		default:
			end := cell.HeaderSize + n
			if have, err = l.fill(f[:], have, end); err != nil {
				return err
			}
			if err := l.handle(h, f[cell.HeaderSize:end]); err != nil {
				return err
			}
			have = copy(f[:], f[end:have])
		}
	}
}

// fill reads until b holds need bytes, of which it has some, and returns how
// many it holds then.
func (l *Link) fill(b []byte, have, need int) (int, error) {
	for have < need {
		n, err := l.conn.Read(b[have:])
		if have += n; err != nil && have < need {
			return have, fmt.Errorf("link: read: %w", err)
		}
	}
	return have, nil
}

// find returns the circuit that a frame is for, or nil when it was on its way
// while this side destroyed the circuit.
func (l *Link) find(h cell.Header) (*Circuit, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.circuits[h.Circuit]; c != nil {
		return c, nil
	}
	left, ok := l.ghosts[h.Circuit]
	switch {
	case !ok:
		return nil, fmt.Errorf("link: frame for circuit %d, which is not open", h.Circuit)
	case h.Command == cell.Destroy:
		delete(l.ghosts, h.Circuit)
	case h.Command == cell.Data && left == 0:
		return nil, fmt.Errorf("link: circuit %d, already destroyed, sends more than it may", h.Circuit)
	case h.Command == cell.Data:
		l.ghosts[h.Circuit] = left - 1
	}
	return nil, nil
}

// handle takes a control frame. An error closes the link.
func (l *Link) handle(h cell.Header, b []byte) error {
	if h.Command == cell.Padding {
		return nil
	}
	c, err := l.find(h)
	if c == nil {
		return err
	}
	switch h.Command {
	case cell.Created:
		c.created(b)
	case cell.Credit:
		total, err := cell.ParseCredit(b)
		if err != nil {
			return err
		}
		c.credited(total)
	default: // DESTROY: ParseHeader knows no other
		c.destroyed(cell.Reason(b[0]))
	}
	return nil
}

// create takes CREATE.
func (l *Link) create(id cell.ID, b []byte) error {
	if l.accept == nil {
		return errors.New("link: CREATE, but nobody here answers it")
	}
	l.mu.Lock()
	theirs := (id%2 == 1) != l.dialled
	if !theirs || id <= l.lastPeer {
		l.mu.Unlock()
		return fmt.Errorf("link: CREATE with id %d, which is not the next of the other side's", id)
	}
	if l.crowded() {
		l.mu.Unlock()
		return errors.New("link: DESTROYs stay unanswered")
	}
	l.lastPeer = id
	c := newCircuit(l, id)
	c.answers = true
	full := len(l.circuits) >= maxCircuits
	l.circuits[id] = c
	l.sched.join(&c.slot, nil)
	l.mu.Unlock()
	if full {
		c.Destroy(cell.Busy)
		return nil
	}
	l.accept(c, b)
	return nil
}
