package stream

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// wire is a circuit in memory, one direction of it: a Sender for one Conn that
// hands records to another.
type wire struct {
	to    *Conn
	shape shape

	slots chan struct{} // room for data records on the circuit
	items chan item

	mu      sync.Mutex // seals in order; guards what follows
	broken  error
	closes  []cell.Reason
	control int
	data    int
	dropped bool                // nothing arrives any more
	alter   func(record []byte) // what the path does to a record

	quit     sync.Once
	quitting chan struct{}
	done     chan struct{} // run has returned
}

// shape is what the path of a wire is like. The zero value has no delay.
type shape struct {
	delay time.Duration // one way
	rate  float64       // bytes per second; 0: no limit
	slots int           // data records under way at most; 0: 256
}

type item struct {
	f      *testFrame
	n      int
	due    time.Time
	closed bool
	to     *Conn // nil: the wire's own
}

// freed is told when the record it stands for is given back.
type freed func()

func (f freed) Free() { f() }

// testFrame is a pooled record.
type testFrame struct{ buf [MaxRecord]byte }

func (f *testFrame) Free() { testFrames.Put(f) }

var testFrames = sync.Pool{New: func() any { return new(testFrame) }}

func newWire(s shape) *wire {
	if s.slots == 0 {
		s.slots = 256
	}
	return &wire{
		shape:    s,
		slots:    make(chan struct{}, s.slots),
		items:    make(chan item, 1<<16), // more than any test has under way
		quitting: make(chan struct{}),
		done:     make(chan struct{}),
	}
}

func (w *wire) Flush() {}

func (w *wire) Data(seal func([]byte) []byte, cancel <-chan struct{}) error {
	select {
	case <-cancel:
		return ErrCancelled
	default:
	}
	select {
	case w.slots <- struct{}{}:
	case <-cancel:
		return ErrCancelled
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.data++
	return w.send(seal)
}

func (w *wire) Go(f func()) { go f() }

func (w *wire) Control(seal func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.control++
	return w.send(seal)
}

func (w *wire) send(seal func([]byte) []byte) error {
	if w.broken != nil {
		return w.broken
	}
	f := testFrames.Get().(*testFrame)
	sealed := seal(f.buf[:0])
	if len(sealed) == 0 {
		return nil
	}
	if w.alter != nil {
		w.alter(sealed)
	}
	w.items <- item{f: f, n: len(sealed), due: w.due()}
	return nil
}

func (w *wire) due() time.Time {
	if w.shape.delay == 0 {
		return time.Time{}
	}
	return time.Now().Add(w.shape.delay)
}

func (w *wire) Close(r cell.Reason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closes = append(w.closes, r)
	w.items <- item{closed: true, due: w.due()}
}

func (w *wire) stop() {
	w.quit.Do(func() { close(w.quitting) })
	<-w.done
}

// run is the circuit's reader at the far side.
func (w *wire) run() {
	defer close(w.done)
	var free time.Time // when the path has carried all before
	for {
		var it item
		select {
		case it = <-w.items:
		case <-w.quitting:
			return
		}
		if !it.due.IsZero() {
			time.Sleep(time.Until(it.due))
		}
		if w.shape.rate > 0 {
			now := time.Now()
			if free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(float64(it.n) / w.shape.rate * 1e9))
			if wait := free.Sub(now); wait > time.Millisecond {
				time.Sleep(wait)
			}
		}
		w.deliver(it)
	}
}

func (w *wire) deliver(it item) {
	w.mu.Lock()
	dropped := w.dropped
	w.mu.Unlock()
	switch {
	case it.closed:
		w.to.Fail(errClosedByPeer)
		return
	case dropped:
		it.f.Free()
	default:
		to := it.to
		if to == nil {
			to = w.to
		}
		to.Receive(it.f.buf[:it.n], it.f)
		to.Wake()
	}
	if it.n == DataSize {
		<-w.slots
	}
}

func (w *wire) reasons() []cell.Reason {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]cell.Reason(nil), w.closes...)
}

func (w *wire) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

var errClosedByPeer = errors.New("test: closed by the far side")

// pair is two Conns and the wires between them.
type pair struct {
	a, b   *Conn // a opened
	ab, ba *wire
}

func keyPair(t testing.TB) (a, b *Keys) {
	t.Helper()
	sa, sb := PrivateKey{1}, PrivateKey{2}
	i, msg1, err := Initiate(sa, sb.Public(), []byte("prologue"), 7)
	if err != nil {
		t.Fatal(err)
	}
	b, msg2, _, _, err := Respond(sb, []byte("prologue"), msg1)
	if err != nil {
		t.Fatal(err)
	}
	if a, err = i.Finish(msg2); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// newPair makes a pair that ends with the test.
func newPair(t testing.TB, s shape, b *window.Budget) *pair {
	t.Helper()
	ka, kb := keyPair(t)
	p := &pair{ab: newWire(s), ba: newWire(s)}
	var err error
	if p.b, err = New(kb, p.ba, b, testAddr("b"), testAddr("a")); err != nil {
		t.Fatal(err)
	}
	if p.a, err = New(ka, p.ab, b, testAddr("a"), testAddr("b")); err != nil {
		t.Fatal(err)
	}
	p.ab.to, p.ba.to = p.b, p.a
	go p.ab.run()
	go p.ba.run()
	t.Cleanup(p.stop)
	return p
}

// stop ends both Conns and returns when both wires have.
func (p *pair) stop() {
	p.a.Fail(nil)
	p.b.Fail(nil)
	p.a.Close()
	p.b.Close()
	p.ab.stop()
	p.ba.stop()
}

type testAddr string

func (testAddr) Network() string  { return "test" }
func (a testAddr) String() string { return string(a) }

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ Sender        = (*wire)(nil)
)
