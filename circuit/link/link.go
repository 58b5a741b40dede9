// Package link is one neighbour: a connection that TLS opens and that carries
// the frames of many circuits, with credit per circuit and one fair, batching
// writer. File record.go says what goes over the wire.
// Not here: what a cell means (packages onion, hop, circuit), whom to dial.
//
// # Credit
//
// A side sends DATA on a circuit only as far as the other side has allowed:
// Floor cells from the start, then what the newest CREDIT says, counted from
// the circuit's first cell. Sending more ends the circuit.
//
// # Keepalive
//
// A side that has nothing to send sends KEEPALIVE, and one that receives
// nothing for holdTime closes the link (file keepalive.go).
//
// # Endings
//
// DESTROY is answered by DESTROY; after both, the id is over. Frames that were
// on their way to a circuit that this side destroyed are dropped, up to the
// credit it had; a frame for any other unknown id closes the link.
package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/window"
)

const (
	batchSize    = 64 << 10         // one write
	writeTimeout = 30 * time.Second // a link that can't write for so long closes
	writeSlack   = 5 * time.Second  // of it may be missing: deadlines are not set for each write
	maxCircuits  = 1 << 16          // on one link
)

// ErrClosed is what opening a circuit on a dead link gives; callers dial anew.
var ErrClosed = errors.New("link: closed")

// Handler is the owner of a circuit's end at a link. The link's reader calls
// everything but Sent, which whoever writes calls: no method may block. Flush comes
// after one or more calls of Cell, when the reader has none at hand: whoever
// makes work for others has them woken there, and not once for each cell. After
// Destroyed, or once Circuit.Destroy has returned, nothing more is called, but
// a call of the other goroutine's may be under way.
type Handler interface {
	Created(body []byte)     // CREATED came, once; body is valid until return
	Cell(b *[cell.Size]byte) // a cell came, after CREATED; b is valid until return
	Flush()                  // no more cells for now
	Credit(total uint64)     // so many cells may be sent in all, more than before
	Sent(total uint64)       // so many cells have gone to the wire in all
	Destroyed(r cell.Reason) // the circuit is over, by the neighbour or with the link
}

// Link is one neighbour. Its methods may be called from any goroutine.
type Link struct {
	wire    *wire
	peer    onion.ID
	dialled bool
	hello   []byte
	time    neighbourTime
	accept  func(c *Circuit, create []byte)
	limit   *Limit // set before Run

	done chan struct{}

	in     onion.Direction // owned by readLoop
	recent *Circuit        // owned by readLoop: most cells come from the circuit of the one before
	fed    []*Circuit      // owned by readLoop: whose handlers have got cells since Flush
	cells  int             // owned by readLoop: how many
	turn   turn            // owned by readLoop
	out    onion.Direction // owned by whoever writes

	mu       sync.Mutex
	wake     sync.Cond            // for writeLoop
	hurry    chan struct{}        // has one for a writeLoop that pays: there is something that goes ahead
	writing  bool                 // guarded by mu: somebody writes
	left     *batch               // guarded by mu: what the socket did not take at once; writeLoop is then who writes
	circuits map[cell.ID]*Circuit // guarded by mu: alive, or with a DESTROY to send; nil once Run is over
	ghosts   map[cell.ID]uint64   // guarded by mu: destroyed here but not there yet: cells that may still come
	lastID   cell.ID              // guarded by mu: the newest circuit's
	control  []*Circuit           // guarded by mu: those with a control frame to send
	sched    scheduler            // guarded by mu
	err      error                // guarded by mu: why the link closed
	idleFrom time.Time            // guarded by mu: since when no circuit is open, and nobody asked for the link
	alive    keepalive            // guarded by mu

	bytesIn, bytesOut atomic.Uint64
}

func newLink(w *wire, peer onion.ID, dialled bool) *Link {
	l := &Link{wire: w, peer: peer, dialled: dialled, done: make(chan struct{}), hurry: make(chan struct{}, 1),
		circuits: make(map[cell.ID]*Circuit), ghosts: make(map[cell.ID]uint64), idleFrom: time.Now()}
	l.wake.L = &l.mu
	return l
}

// Peer returns the neighbour's identity, or zero when it shows none.
func (l *Link) Peer() onion.ID { return l.peer }

// Remote returns the address at the other end of the connection; zero when it
// is none of TCP.
func (l *Link) Remote() netip.Addr {
	a, ok := l.wire.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return a.AddrPort().Addr().Unmap().WithZone("")
}

// Hello returns what the acceptor said of itself; whether to believe it is the
// caller's question. It is not to be changed.
func (l *Link) Hello() []byte { return l.hello }

// Done is closed when the link is over.
func (l *Link) Done() <-chan struct{} { return l.done }

// Err returns why the link is over; nil before.
func (l *Link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return endFault(l.err)
}

// Bytes returns what the link has read and written since its handshake, bytes.
func (l *Link) Bytes() (in, out uint64) { return l.bytesIn.Load(), l.bytesOut.Load() }

// Idle returns for how long no circuit has been open on l, nor has Pool.Get
// returned it; 0 while one is.
func (l *Link) Idle() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.circuits) > 0 {
		return 0
	}
	return time.Since(l.idleFrom)
}

// touch begins anew how long l was idle.
func (l *Link) touch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idleFrom = time.Now()
}

// Circuits returns how many circuits are open on l.
func (l *Link) Circuits() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.circuits)
}

// Limit has l send no faster than p allows, together with p's other links. It
// is called before Run, or not at all.
func (l *Link) Limit(p *Limit) {
	if l.limit = p; p != nil {
		l.sched.shared = &p.carried
	}
}

// Run carries frames until ctx ends or the link dies, and returns why. accept
// is called on the reader for each CREATE: it must not block, and owns the
// bytes. Somebody calls Handle and Created on the circuit then, or Destroy. A
// nil accept refuses circuits.
func (l *Link) Run(ctx context.Context, accept func(c *Circuit, create []byte)) error {
	l.accept = accept
	stop := context.AfterFunc(ctx, func() { l.close(ctx.Err()) })
	defer stop()
	l.keepalive()
	var wg sync.WaitGroup
	wg.Go(func() { l.close(l.writeLoop()) })
	l.close(l.readLoop())
	wg.Wait()
	l.mu.Lock()
	err, open := endFault(l.err), l.circuits
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
		l.alive.end()
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
		if !l.writing { // else whoever writes looks again
			l.wake.Signal()
		}
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

func (l *Link) readLoop() error {
	for {
		frames, bodies, err := l.readRecord()
		if err == nil {
			err = l.take(frames, bodies)
		}
		if err != nil {
			return err
		}
		if l.cells >= batchCells || !l.recordWaits() {
			now := window.Clock()
			l.flush(now)
			if l.turn.over(l.wire.poll.waited(), now) {
				yield()
			}
		}
	}
}

// flush tells handlers that there are no more cells for the moment, which is now.
func (l *Link) flush(now time.Duration) {
	for i, c := range l.fed {
		c.fed, l.fed[i] = false, nil
		l.meet(c, now)
		if c.state.Load() != over {
			c.handler.Flush()
		}
	}
	l.fed, l.cells = l.fed[:0], 0
}

// take takes the frames of a record, and their cells. An error closes the link.
func (l *Link) take(frames, bodies []byte) error {
	for len(frames) > 0 {
		h, n, err := cell.ParseHeader(frames)
		if err != nil {
			return fmt.Errorf("link: %w", err)
		}
		frames = frames[cell.HeaderSize:]
		from := &frames
		if h.Command == cell.Data || h.Command == cell.Padding {
			from = &bodies
		}
		if len(*from) < n {
			return errRecord
		}
		body := (*from)[:n]
		*from = (*from)[n:]
		switch h.Command {
		case cell.Data:
			err = l.cell(h, body)
		case cell.Create:
			err = l.create(h.Circuit, append([]byte(nil), body...))
		case cell.Padding, cell.Keepalive:
		default:
			err = l.handle(h, body)
		}
		if err != nil {
			return err
		}
	}
	if len(bodies) > 0 {
		return errRecord
	}
	return nil
}

// cell takes DATA.
func (l *Link) cell(h cell.Header, body []byte) error {
	c := l.recent
	if c == nil || c.id != h.Circuit || c.state.Load() == over {
		var err error
		if c, err = l.find(h); c == nil {
			return err
		}
		l.recent = c
	}
	if !c.fed {
		c.fed = true
		l.fed = append(l.fed, c)
	}
	l.cells++
	return c.receive((*[cell.Size]byte)(body))
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
	if l.dialled || id <= l.lastID {
		l.mu.Unlock()
		return fmt.Errorf("link: CREATE with id %d, which is not the next of the dialler's", id)
	}
	if l.crowded() {
		l.mu.Unlock()
		return errors.New("link: DESTROYs stay unanswered")
	}
	l.lastID = id
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
