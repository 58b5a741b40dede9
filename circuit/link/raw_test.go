package link

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// somebody is an identity and its certificate.
func somebody(tb testing.TB) (onion.ID, tls.Certificate) {
	tb.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := Certificate(key)
	if err != nil {
		tb.Fatal(err)
	}
	return onion.ID(pub), cert
}

// connect makes the two ends of a link.
func connect(tb testing.TB, s linktest.Shape) (dialler, acceptor *Link) {
	tb.Helper()
	id, cert := somebody(tb)
	a, b := linktest.Pipe(s)
	accepted := make(chan *Link, 1)
	go func() {
		l, err := Accept(context.Background(), b, cert, time.Now(), []byte("hello"))
		if err != nil {
			tb.Error(err)
		}
		accepted <- l
	}()
	dialler, err := Dial(context.Background(), a, id, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return dialler, <-accepted
}

// running is a link that runs.
type running struct {
	*Link
	accepted chan *end // what the other side opens
	done     chan error
}

// run has l carry frames. It answers CREATE with CREATED when answer is set.
func run(tb testing.TB, l *Link, answer bool) *running {
	r := &running{Link: l, accepted: make(chan *end, 100), done: make(chan error, 1)}
	go func() {
		r.done <- l.Run(context.Background(), func(c *Circuit, create []byte) {
			e := newEnd()
			e.c = c
			c.Handle(e)
			if answer {
				c.Created(make([]byte, cell.CreatedSize))
			}
			r.accepted <- e
		})
	}()
	return r
}

// stop ends the link and waits for it.
func (r *running) stop() {
	r.Close()
	<-r.done
}

// end is a circuit's owner that keeps what it is told.
type end struct {
	c *Circuit

	mu      sync.Mutex
	told    []string // everything but cells and Sent
	cells   int
	sent    uint64
	last    byte // first byte of the last cell
	changed chan struct{}
}

func newEnd() *end { return &end{changed: make(chan struct{})} }

func (e *end) note(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *end) Created(b []byte) { e.note(func() { e.told = append(e.told, "created") }) }
func (e *end) Flush()           {}
func (e *end) Credit(n uint64)  { e.note(func() { e.told = append(e.told, fmt.Sprint("credit ", n)) }) }
func (e *end) Sent(n uint64)    { e.note(func() { e.sent = n }) }
func (e *end) Destroyed(r cell.Reason) {
	e.note(func() { e.told = append(e.told, "destroyed: "+r.String()) })
}
func (e *end) Cell(b *[cell.Size]byte) {
	e.note(func() {
		e.cells++
		e.last = b[0]
	})
}

// wait waits until ok, which is called with e locked.
func (e *end) wait(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	timeout := time.After(patience)
	for {
		e.mu.Lock()
		if ok() {
			e.mu.Unlock()
			return
		}
		changed := e.changed
		e.mu.Unlock()
		select {
		case <-changed:
		case <-timeout:
			e.mu.Lock()
			defer e.mu.Unlock()
			tb.Fatalf("waited in vain for %s; told %q, %d cells, sent %d", what, e.told, e.cells, e.sent)
		}
	}
}

// hears waits until e was told so, and nothing else before.
func (e *end) hears(tb testing.TB, want ...string) {
	tb.Helper()
	e.wait(tb, fmt.Sprintf("%q", want), func() bool { return len(e.told) >= len(want) })
	e.mu.Lock()
	defer e.mu.Unlock()
	if got := fmt.Sprintf("%q", e.told); got != fmt.Sprintf("%q", want) {
		tb.Fatalf("told %s, want %q", got, want)
	}
}

// open opens a circuit over l.
func open(tb testing.TB, l *Link) *end {
	tb.Helper()
	e := newEnd()
	e.c = l.NewCircuit(nil)
	if err := e.c.Open(e, make([]byte, cell.CreateSize)); err != nil {
		tb.Fatal(err)
	}
	return e
}

// send sends n cells that begin with b, and returns how many went.
func (e *end) send(n int, b byte) (sent int) {
	for range n {
		f := cell.NewFrame()
		f.Body()[0] = b
		if e.c.Send(f) {
			sent++
		}
	}
	return sent
}

// raw is a neighbour that sends what it likes.
type raw struct {
	tb      testing.TB
	l       *Link // shook hands, and never runs
	unread  []byte
	unfetch []byte // bodies that belong to unread
}

// dialRaw returns a neighbour that has dialled the link l, which runs.
func dialRaw(tb testing.TB) (*raw, *running) {
	tb.Helper()
	a, b := connect(tb, linktest.Shape{})
	return &raw{tb: tb, l: a}, run(tb, b, false)
}

// acceptRaw returns a neighbour that the link l, which runs, has dialled.
func acceptRaw(tb testing.TB) (*raw, *running) {
	tb.Helper()
	a, b := connect(tb, linktest.Shape{})
	return &raw{tb: tb, l: b}, run(tb, a, false)
}

// record sends frames and bodies as a record, whether or not they match.
func (r *raw) record(frames, bodies []byte) {
	r.tb.Helper()
	if _, err := r.l.wire.Write(sealRecord(r.l, frames, bodies)); err != nil {
		r.tb.Fatal(err)
	}
}

// sealRecord is appendRecord for any bytes.
func sealRecord(l *Link, frames, bodies []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(frames)+cell.TagSize))
	b = append(append(b, byte(len(bodies)/cell.Size), 0), bodies...)
	at := len(b)
	b = append(append(b, frames...), make([]byte, cell.TagSize)...)
	l.out.Seal(b[at:])
	return b
}

// frame sends a frame with a body of zeros, or of what is given.
func (r *raw) frame(id cell.ID, c cell.Command, body ...byte) {
	r.tb.Helper()
	size := map[cell.Command]int{cell.Create: cell.CreateSize, cell.Created: cell.CreatedSize, cell.Data: cell.Size,
		cell.Padding: cell.Size, cell.Destroy: 1, cell.Credit: 8}[c]
	b := make([]byte, cell.HeaderSize+size)
	cell.Header{Circuit: id, Command: c}.Put(b)
	copy(b[cell.HeaderSize:], body)
	if size == cell.Size {
		r.record(b[:cell.HeaderSize], b[cell.HeaderSize:])
	} else {
		r.record(b, nil)
	}
}

func (r *raw) credit(id cell.ID, total uint64) {
	r.tb.Helper()
	r.frame(id, cell.Credit, binary.BigEndian.AppendUint64(nil, total)...)
}

// read returns the next frame in words.
func (r *raw) read() string {
	r.tb.Helper()
	if len(r.unread) == 0 {
		r.l.wire.SetReadDeadline(time.Now().Add(patience))
		var err error
		if r.unread, r.unfetch, err = r.l.readRecord(); err != nil {
			return "closed"
		}
	}
	h, n, err := cell.ParseHeader(r.unread)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.unread = r.unread[cell.HeaderSize:]
	from := &r.unread
	if n == cell.Size {
		from = &r.unfetch
	}
	body := (*from)[:n]
	*from = (*from)[n:]
	switch h.Command {
	case cell.Create:
		return fmt.Sprint(h.Circuit, " create")
	case cell.Created:
		return fmt.Sprint(h.Circuit, " created")
	case cell.Credit:
		return fmt.Sprint(h.Circuit, " credit ", binary.BigEndian.Uint64(body))
	case cell.Destroy:
		return fmt.Sprint(h.Circuit, " destroy: ", cell.Reason(body[0]))
	}
	return fmt.Sprint(h.Circuit, " data ", body[0])
}

// reads checks what comes next.
func (r *raw) reads(want ...string) {
	r.tb.Helper()
	for _, w := range want {
		if got := r.read(); got != w {
			r.tb.Fatalf("the link sends %q, want %q", got, w)
		}
	}
}
