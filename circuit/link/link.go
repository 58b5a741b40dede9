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
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

const (
	batchSize    = 64 << 10         // one write: past 16 KiB TLS gains nothing, fewer syscalls do
	readSize     = 128 << 10        // one read
	writeTimeout = 30 * time.Second // a link that can't write for so long closes
	maxCircuits  = 1 << 16          // on one link
)

// ErrClosed is what opening a circuit on a dead link gives; callers dial anew.
var ErrClosed = errors.New("link: closed")

// Handler is the owner of a circuit's end at a link. The link's reader calls
// everything but Sent, which its writer calls: no method may block. After
// Destroyed no other is called by the reader.
type Handler interface {
	Created(body []byte)     // CREATED came; body is valid until return
	Cell(f *cell.Frame)      // a cell came; the handler owns f
	Credit(total uint64)     // so many cells may be sent in all
	Sent(total uint64)       // so many cells have gone to the wire in all
	Destroyed(r cell.Reason) // the circuit is over, by the neighbour or with the link
}

// Link is one neighbour. Its methods may be called from any goroutine.
type Link struct {
	conn    *tls.Conn
	wire    *wire // owned by writeLoop after the handshake, but for Close
	peer    onion.ID
	dialled bool
	hello   []byte
	accept  func(c *Circuit, create []byte)

	done chan struct{}

	mu       sync.Mutex
	wake     sync.Cond
	circuits map[cell.ID]*Circuit // guarded by mu
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
		circuits: make(map[cell.ID]*Circuit), idleFrom: time.Now()}
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
// is called on the reader for each CREATE: it must not block, owns the bytes,
// and calls SetHandler before anything else. A nil accept refuses circuits.
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
	l.circuits = nil
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

// Open makes a circuit of this side's; Create then sends its CREATE. source
// groups circuits for fairness: those with the same source share one turn; nil
// is a source too.
func (l *Link) Open(h Handler, source any) (*Circuit, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || l.circuits == nil {
		return nil, ErrClosed
	}
	if len(l.circuits) >= maxCircuits {
		return nil, fmt.Errorf("link: %d circuits are open, at most %d", len(l.circuits), maxCircuits)
	}
	if l.nextID > 1<<32-4 {
		return nil, errors.New("link: circuit ids are used up")
	}
	c := newCircuit(l, l.nextID, source)
	c.handler = h
	l.nextID += 2
	l.circuits[c.id] = c
	return c, nil
}

// signal has the writer look at c's control frames. Caller holds mu.
func (l *Link) signal(c *Circuit) {
	if !c.signalled {
		c.signalled = true
		l.control = append(l.control, c)
		l.wake.Signal()
	}
}

func (l *Link) writeLoop() error {
	buf := make([]byte, 0, batchSize+cell.MaxFrame)
	var frames []*cell.Frame
	var touched []*Circuit
	for {
		l.mu.Lock()
		for l.err == nil && len(l.control) == 0 && l.sched.empty() {
			l.wake.Wait()
		}
		if l.err != nil {
			l.mu.Unlock()
			return nil
		}
		buf, frames, touched = buf[:0], frames[:0], touched[:0]
		n := 0
		for n < len(l.control) && len(buf) < batchSize {
			buf = l.control[n].appendControl(buf)
			n++
		}
		l.control = append(l.control[:0], l.control[n:]...)
		for room := batchSize - len(buf); room > 0; room -= cell.FrameSize {
			f, c := l.sched.next()
			if f == nil {
				break
			}
			frames = append(frames, f)
			if !c.touched {
				c.touched = true
				touched = append(touched, c)
			}
			c.sent++
		}
		for _, c := range touched {
			c.touched, c.report = false, c.sent
		}
		l.mu.Unlock()

		for _, f := range frames {
			buf = append(buf, f[:]...)
			f.Free()
		}
		l.wire.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err := l.wire.batch(l.conn, buf); err != nil {
			return fmt.Errorf("link: write: %w", err)
		}
		l.bytesOut.Add(uint64(len(buf)))
		for _, c := range touched {
			c.handler.Sent(c.report)
		}
	}
}

func (l *Link) readLoop() error {
	r := bufio.NewReaderSize(l.conn, batchSize)
	var last *Circuit // most cells come from the circuit of the one before
	var head [cell.HeaderSize]byte
	var body [cell.MaxFrame]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return fmt.Errorf("link: read: %w", err)
		}
		h, n, err := cell.ParseHeader(head[:])
		if err != nil {
			return fmt.Errorf("link: %w", err)
		}
		l.bytesIn.Add(uint64(cell.HeaderSize + n))
		if h.Command == cell.Data {
			f := cell.NewFrame()
			if _, err := io.ReadFull(r, f.Body()[:]); err != nil {
				f.Free()
				return fmt.Errorf("link: read: %w", err)
			}
			if last == nil || last.id != h.Circuit || last.over.Load() {
				if last, err = l.find(h.Circuit); err != nil {
					f.Free()
					return err
				}
			}
			h.Put(f[:]) // the id of this link; whoever sends f on puts its own
			if err := last.receive(f); err != nil {
				return err
			}
			continue
		}
		b := body[:n]
		if h.Command == cell.Create {
			b = make([]byte, n) // handed to accept
		}
		if _, err := io.ReadFull(r, b); err != nil {
			return fmt.Errorf("link: read: %w", err)
		}
		if err := l.handle(h, b); err != nil {
			return err
		}
	}
}

// find returns the circuit that id names.
func (l *Link) find(id cell.ID) (*Circuit, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.circuits[id]
	if c == nil {
		return nil, fmt.Errorf("link: frame for circuit %d, which is not open", id)
	}
	return c, nil
}

func (l *Link) handle(h cell.Header, b []byte) error {
	switch h.Command {
	case cell.Padding:
		return nil
	case cell.Create:
		return l.create(h.Circuit, b)
	}
	c, err := l.find(h.Circuit)
	if err != nil {
		return err
	}
	switch h.Command {
	case cell.Created:
		return c.created(b)
	case cell.Credit:
		total, err := cell.ParseCredit(b)
		if err != nil {
			return err
		}
		return c.credited(total)
	default: // DESTROY: ParseHeader knows no other
		c.destroyed(cell.Reason(b[0]))
		return nil
	}
}

func (l *Link) create(id cell.ID, b []byte) error {
	if l.accept == nil {
		return fmt.Errorf("link: CREATE, but nobody here answers it")
	}
	l.mu.Lock()
	theirs := (id%2 == 1) != l.dialled
	if !theirs || id <= l.lastPeer {
		l.mu.Unlock()
		return fmt.Errorf("link: CREATE with id %d, which is not the next of the other side's", id)
	}
	l.lastPeer = id
	c := newCircuit(l, id, l)
	c.answers = true
	full := len(l.circuits) >= maxCircuits
	l.circuits[id] = c
	l.mu.Unlock()
	if full {
		c.handler = ignore{}
		c.Destroy(cell.Busy)
		return nil
	}
	l.accept(c, b)
	return nil
}

type ignore struct{}

func (ignore) Created([]byte)        {}
func (ignore) Cell(f *cell.Frame)    { f.Free() }
func (ignore) Credit(uint64)         {}
func (ignore) Sent(uint64)           {}
func (ignore) Destroyed(cell.Reason) {}
