// Package circuit is the client's side of circuits: building one, keeping it,
// and the streams and requests that run inside.
// Not here: what a relay does (package hop), which relays (package path), what
// streams carry.
package circuit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/stream"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// Use is what a circuit is for: all that the status page says of it.
type Use string

// The uses.
const (
	ForPeer    Use = "peer"    // streams that this sidecar opens
	ForInbound Use = "inbound" // streams that others open
	ForTracker Use = "tracker" // announces, views, descriptors
)

const (
	maxHalfOpen = 64  // visitors of one circuit whose handshake is under way
	maxPending  = 256 // control messages that wait for credit

	// maxEarly is how many records may come between OPENED and the end of the
	// handshake's arithmetic. Whoever answers a stream sends nothing before the
	// opener's first record, so these are few.
	maxEarly = 32

	// What may still come on a stream when this side ends it: what its meeting
	// relay has, what is on its way from there, and some messages.
	straysOfStream  = 2*link.Ceiling + 16
	straysOfRefused = 4
	maxStrays       = 8 * straysOfStream
)

// ErrGone is what a dead circuit gives: build another.
var ErrGone = errors.New("circuit: over")

// RefusedError is a REFUSED from the last hop, or from the peer through it.
type RefusedError struct{ Reason cell.Reason }

func (e *RefusedError) Error() string { return "circuit: refused: " + e.Reason.String() }

// Visitor is an OPEN that came to a registered circuit.
type Visitor struct {
	Stream  uint32
	Token   [cell.TokenSize]byte
	Message []byte // the first handshake message; the visit's
}

// Circuit is the owner's end of one circuit.
type Circuit struct {
	use    Use
	hops   int
	slot   *link.Circuit
	intake *link.Intake
	visit  func(*Circuit, Visitor) // nil: nobody may open streams from outside
	work   *work                   // its goroutines
	born   time.Time

	stands chan error    // gets how the handshake ended, once
	done   chan struct{} // closed when over
	reason atomic.Uint32
	over   atomic.Bool

	opening sync.Mutex // held while layers open a cell; taken before mu

	fed []*stream.Conn // that have got records since Flush; owned by the link's reader

	mu      sync.Mutex
	wrapped *onion.Pending // guarded by mu: what CREATED completes; nil then
	layers  *onion.Circuit // Seal guarded by mu, Open by opening; nil before
	confirm [32]byte       // guarded by mu
	room    int            // guarded by mu: at least so many cells may go
	pending link.Queue     // guarded by mu: control messages, not sealed, that wait for credit
	waiters waiters        // guarded by mu: streams that wait for room
	woken   *entry         // guarded by mu: the one whose turn it is, until it has seen that
	blocked atomic.Bool    // pending or waiters have some; written under mu

	streamsMu sync.Mutex
	streams   map[uint32]*entry // guarded by streamsMu; nil when over
	next      uint32            // guarded by streamsMu: the next own stream, odd
	lastVisit uint32            // guarded by streamsMu: the last hop's newest stream, even
	strays    int               // guarded by streamsMu: what may still come on streams that are over
	halfOpen  int               // guarded by streamsMu
	usedAt    time.Time         // guarded by streamsMu: since when no stream is open
	ended     func()            // guarded by streamsMu: told once c is over
}

// entry is one stream of a circuit.
type entry struct {
	want  cell.Verb         // what answers: OPENED, ANSWER, REGISTERED; 0: nothing, it is a visitor's
	most  int               // the longest ANSWER
	reply chan cell.Message // gets what answers, or ends: own bytes

	answer  []byte // owned by the reader: the parts so far
	replied bool   // owned by the reader: reply has got its message

	mu     sync.Mutex                  // held while conn is set
	conn   atomic.Pointer[stream.Conn] // nil until the handshake is over
	early  []*cell.Frame               // guarded by mu: records that came before conn was there
	closed bool                        // guarded by mu: the far side has ended the stream, or the circuit is over

	allowed atomic.Uint64 // data records that may be sent in all
	sent    uint64        // guarded by the circuit's mu: data records
	turn    int           // guarded by the circuit's mu: records it may send ahead of those that wait
	place   place         // guarded by the circuit's mu
	wake    chan struct{} // has one when it is worth looking again
}

// Use returns what c is for.
func (c *Circuit) Use() Use { return c.use }

// Hops returns how many relays c has, the last hop included.
func (c *Circuit) Hops() int { return c.hops }

// ClockAhead returns by how much this computer's clock is ahead of the first
// hop's, by that one's word.
func (c *Circuit) ClockAhead() time.Duration { return c.slot.Link().ClockAhead() }

// Done is closed when c is over.
func (c *Circuit) Done() <-chan struct{} { return c.done }

// Born returns when c was built.
func (c *Circuit) Born() time.Time { return c.born }

// Confirm returns the value that binds REGISTER to c.
func (c *Circuit) Confirm() [32]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.confirm
}

// Streams returns how many streams are open, and since when none is.
func (c *Circuit) Streams() (n int, idle time.Duration) {
	c.streamsMu.Lock()
	defer c.streamsMu.Unlock()
	if len(c.streams) == 0 {
		idle = time.Since(c.usedAt)
	}
	return len(c.streams), idle
}

// Close ends c and everything in it.
func (c *Circuit) Close() {
	c.slot.Destroy(cell.Done)
	c.end(cell.Done)
}

// onEnd has f called once c is over, at once if it is.
func (c *Circuit) onEnd(f func()) {
	c.streamsMu.Lock()
	over := c.streams == nil
	if !over {
		c.ended = f
	}
	c.streamsMu.Unlock()
	if over {
		f()
	}
}

// fail ends c for what came from the last hop.
func (c *Circuit) fail(r cell.Reason) {
	c.slot.Destroy(cell.OK)
	c.end(r)
}

func (c *Circuit) end(r cell.Reason) {
	if c.over.Swap(true) {
		return
	}
	c.reason.Store(uint32(r))
	c.intake.Close()
	c.streamsMu.Lock()
	all := c.streams
	c.streams = nil
	ended := c.ended
	c.streamsMu.Unlock()
	close(c.done)
	if ended != nil {
		ended()
	}
	for _, e := range all {
		e.close(ErrGone)
	}
	c.opening.Lock()
	c.mu.Lock()
	c.pending.Clear()
	if c.wrapped != nil {
		c.wrapped.Clear()
	}
	if c.layers != nil {
		c.layers.Clear()
	}
	c.mu.Unlock()
	c.opening.Unlock()
}

// add makes room for one more stream of this side's, which want answers.
func (c *Circuit) add(want cell.Verb, most int) (uint32, *entry, error) {
	c.streamsMu.Lock()
	defer c.streamsMu.Unlock()
	if c.streams == nil || c.next > 1<<32-4 {
		return 0, nil, ErrGone
	}
	e := newEntry(want, most)
	id := c.next
	c.next += 2
	c.streams[id] = e
	return id, e, nil
}

func newEntry(want cell.Verb, most int) *entry {
	e := &entry{want: want, reply: make(chan cell.Message, 1), most: most, wake: make(chan struct{}, 1)}
	e.allowed.Store(cell.StreamFloor)
	return e
}

// remove forgets a stream. So many messages may still come on it.
func (c *Circuit) remove(id uint32, strays int) {
	c.streamsMu.Lock()
	defer c.streamsMu.Unlock()
	if _, ok := c.streams[id]; ok {
		delete(c.streams, id)
		c.usedAt = time.Now()
		c.strays = min(c.strays+strays, maxStrays)
	}
}

// close tells the stream, if there is one, that nothing more comes.
func (e *entry) close(err error) {
	e.mu.Lock()
	e.closed = true
	for _, f := range e.early {
		f.Free()
	}
	e.early = nil
	conn := e.conn.Load()
	e.mu.Unlock()
	if conn != nil {
		conn.Fail(err)
	}
}

// await returns what answers on e. After an error the stream is forgotten.
func (c *Circuit) await(ctx context.Context, id uint32, e *entry) (cell.Message, error) {
	select {
	case m := <-e.reply:
		if m.Verb == e.want {
			return m, nil
		}
		r := cell.Gone // the reader has forgotten the stream
		if len(m.Body) == 1 {
			r = cell.Reason(m.Body[0])
		}
		return cell.Message{}, &RefusedError{r}
	case <-ctx.Done():
		if e.want == cell.Opened { // a stream that nobody waits for
			c.hangUp(id, e, cell.Gone)
		} else {
			c.remove(id, straysOfRefused+e.most/(cell.MaxMessage-1))
		}
		return cell.Message{}, ctx.Err()
	case <-c.done:
		return cell.Message{}, ErrGone
	}
}

// hangUp ends a stream that has no Conn, or never will.
func (c *Circuit) hangUp(id uint32, e *entry, r cell.Reason) {
	c.message(cell.Message{Stream: id, Verb: cell.Close, Body: []byte{byte(r)}})
	c.remove(id, straysOfStream)
	e.close(ErrGone)
}

// Request asks the last hop and returns its answer, at most most bytes.
func (c *Circuit) Request(ctx context.Context, kind byte, body []byte, most int) ([]byte, error) {
	if len(body) >= cell.MaxMessage {
		return nil, fmt.Errorf("circuit: request of %d bytes, at most %d", len(body), cell.MaxMessage-1)
	}
	id, e, err := c.add(cell.Answer, most)
	if err != nil {
		return nil, err
	}
	if err := c.message(cell.Message{Stream: id, Verb: cell.Request, Body: append([]byte{kind}, body...)}); err != nil {
		return nil, err
	}
	m, err := c.await(ctx, id, e)
	return m.Body, err
}

// Register makes the last hop, a meeting relay, hand on what comes for body's key.
func (c *Circuit) Register(ctx context.Context, body []byte) error {
	c.streamsMu.Lock()
	if c.streams == nil {
		c.streamsMu.Unlock()
		return ErrGone
	}
	if c.streams[0] != nil {
		c.streamsMu.Unlock()
		return errors.New("circuit: a REGISTER is under way")
	}
	e := newEntry(cell.Registered, 0)
	c.streams[0] = e
	c.streamsMu.Unlock()
	if err := c.message(cell.Message{Verb: cell.Register, Body: body}); err != nil {
		return err
	}
	_, err := c.await(ctx, 0, e)
	return err
}

// Call is a stream to open: who calls, whom, and at which registration.
type Call struct {
	Static   stream.PrivateKey
	Remote   [32]byte
	Token    [cell.TokenSize]byte
	Prologue []byte
	Counter  uint64 // greater than in any call before to Remote
	Budget   *window.Budget
}

// calling is a call whose first message is made.
type calling struct {
	Call
	handshake *stream.Initiator
	message   []byte
}

func (k Call) start() (*calling, error) {
	i, m, err := stream.Initiate(k.Static, k.Remote, k.Prologue, k.Counter)
	if err != nil {
		return nil, err
	}
	return &calling{k, i, append(append([]byte(nil), k.Token[:]...), m...)}, nil
}

// Dial opens a stream through the last hop to whoever is registered there.
func (c *Circuit) Dial(ctx context.Context, k Call) (*stream.Conn, error) {
	call, err := k.start()
	if err != nil {
		return nil, err
	}
	id, e, err := c.add(cell.Opened, 0)
	if err != nil {
		return nil, err
	}
	if err := c.message(cell.Message{Stream: id, Verb: cell.Open, Body: call.message}); err != nil {
		return nil, err
	}
	return c.finish(ctx, id, e, call)
}

// finish waits for OPENED and makes the stream.
func (c *Circuit) finish(ctx context.Context, id uint32, e *entry, call *calling) (*stream.Conn, error) {
	m, err := c.await(ctx, id, e)
	if err != nil {
		return nil, err
	}
	keys, err := call.handshake.Finish(m.Body)
	if err != nil {
		c.hangUp(id, e, cell.Protocol)
		return nil, fmt.Errorf("circuit: %w", err)
	}
	return c.attach(id, e, keys, call.Budget)
}

// attach makes the stream of a finished handshake. When the far side has ended
// it meanwhile it is made all the same: what came before can be read.
func (c *Circuit) attach(id uint32, e *entry, keys *stream.Keys, b *window.Budget) (*stream.Conn, error) {
	conn, err := stream.New(keys, sender{c, id, e}, b, Addr{}, Addr{})
	if err != nil {
		c.hangUp(id, e, cell.Busy)
		return nil, fmt.Errorf("circuit: %w", err)
	}
	c.intake.Widen(c.slot)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.early {
		m, err := cell.ParseMessage(f.Body()[:cell.Payload])
		if err == nil {
			err = conn.Receive(m.Body, f)
		}
		if err != nil { // it has reset itself
			c.remove(id, straysOfStream)
		}
	}
	e.early = nil
	e.conn.Store(conn)
	if e.closed {
		conn.Fail(ErrGone)
	}
	return conn, nil
}

// Accept answers a visitor with the second handshake message.
func (c *Circuit) Accept(v Visitor, keys *stream.Keys, message []byte, b *window.Budget) (*stream.Conn, error) {
	c.streamsMu.Lock()
	e := c.streams[v.Stream]
	c.streamsMu.Unlock()
	if e == nil {
		return nil, ErrGone
	}
	conn, err := c.attach(v.Stream, e, keys, b)
	if err != nil {
		return nil, err
	}
	return conn, c.message(cell.Message{Stream: v.Stream, Verb: cell.Opened, Body: message})
}

// Refuse turns a visitor away.
func (c *Circuit) Refuse(v Visitor, r cell.Reason) {
	c.message(cell.Message{Stream: v.Stream, Verb: cell.Refused, Body: []byte{byte(r)}})
	c.remove(v.Stream, straysOfRefused)
}

// Addr is the address of a stream's end: there is none to tell.
type Addr struct{}

// Network implements net.Addr.
func (Addr) Network() string { return "shoal" }

// String implements net.Addr.
func (Addr) String() string { return "shoal" }

// handler takes what the link brings for c.
type handler struct{ *Circuit }

// Created makes the layers here on the reader, so that a cell right behind
// CREATED can be opened.
func (c handler) Created(b []byte) {
	c.mu.Lock()
	if c.over.Load() {
		c.mu.Unlock()
		return
	}
	layers, err := c.wrapped.Finish(b)
	c.wrapped = nil
	if err == nil {
		c.layers, c.confirm = layers, layers.Confirm()
	}
	c.mu.Unlock()
	c.stands <- err
}

// Flush has those read who wait for what came.
func (c handler) Flush() {
	for _, conn := range c.fed {
		conn.Wake()
	}
	clear(c.fed)
	c.Circuit.fed = c.fed[:0]
}

func (c handler) Sent(uint64) { c.Credit(0) }

func (c handler) Credit(uint64) {
	if c.blocked.Load() {
		c.roomChanged()
	}
}

func (c handler) Destroyed(r cell.Reason) { c.end(r) }

func (c handler) Cell(b *[cell.Size]byte) {
	f := cell.NewFrame()
	m, err := c.open(f, b)
	if err != nil {
		f.Free()
		c.fail(cell.Protocol)
		return
	}
	c.intake.Arrived(c.slot)
	if !c.dispatch(f, m) {
		c.fail(cell.Protocol)
	}
}

// open takes all layers off b, into f.
func (c *Circuit) open(f *cell.Frame, b *[cell.Size]byte) (cell.Message, error) {
	c.opening.Lock()
	defer c.opening.Unlock()
	if c.layers == nil { // CREATED could not be read
		return cell.Message{}, ErrGone
	}
	if err := c.layers.Open(f.Body(), b); err != nil {
		return cell.Message{}, err
	}
	return cell.ParseMessage(f.Body()[:cell.Payload])
}

// dispatch hands m to its stream. It reports false when the last hop breaks the
// protocol: nothing here waits for such a message, and it can't have crossed
// anything. It owns f.
func (c *Circuit) dispatch(f *cell.Frame, m cell.Message) (ok bool) {
	if m.Verb == cell.Open {
		ok = c.visited(m)
		f.Free()
		return ok
	}
	e, ok := c.find(m.Stream)
	if e == nil {
		f.Free()
		return ok
	}
	if m.Verb == cell.Record {
		return c.record(f, m, e)
	}
	defer f.Free()
	switch m.Verb {
	case cell.Allow:
		return e.allow(m)
	case cell.Close, cell.Refused:
		c.remove(m.Stream, 0)
		m.Body = bytes.Clone(m.Body)
		e.respond(m)
		e.close(ErrGone)
		return true
	case cell.Answer:
		return c.answered(e, m)
	case e.want:
		if m.Verb == cell.Registered {
			c.remove(m.Stream, 0)
		}
		m.Body = bytes.Clone(m.Body)
		return e.respond(m)
	}
	return false
}

// find returns the stream that a message is for. A message for one that is
// over is ok as long as it can have been on its way.
func (c *Circuit) find(id uint32) (e *entry, ok bool) {
	c.streamsMu.Lock()
	defer c.streamsMu.Unlock()
	if e = c.streams[id]; e != nil {
		return e, true
	}
	seen := id%2 == 0 && id <= c.lastVisit || id%2 == 1 && id < c.next
	if !seen || c.strays == 0 {
		return nil, c.streams == nil
	}
	c.strays--
	return nil, true
}

// record hands a record to its stream.
func (c *Circuit) record(f *cell.Frame, m cell.Message, e *entry) (ok bool) {
	conn := e.conn.Load()
	if conn == nil {
		if conn, ok = e.wait(f); conn == nil {
			if !ok {
				f.Free()
			}
			if !ok && e.replied { // the far side's fault, not the last hop's
				c.hangUp(m.Stream, e, cell.Overrun)
				return true
			}
			return ok
		}
	}
	if conn.Receive(m.Body, f) != nil {
		c.remove(m.Stream, straysOfStream) // the stream has reset itself
	} else if !slices.Contains(c.fed, conn) { // few: what one read of the link brings
		c.fed = append(c.fed, conn)
	}
	return true
}

// wait keeps f until there is a Conn, and returns that if there is one by now.
// Only streams whose OPENED has come get records before.
func (e *entry) wait(f *cell.Frame) (conn *stream.Conn, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if conn = e.conn.Load(); conn != nil {
		return conn, true
	}
	if e.want != cell.Opened || !e.replied || len(e.early) >= maxEarly {
		return nil, false
	}
	if e.closed {
		f.Free()
	} else {
		e.early = append(e.early, f)
	}
	return nil, true
}

// allow takes ALLOW.
func (e *entry) allow(m cell.Message) (ok bool) {
	if len(m.Body) != 8 || e.want != 0 && e.want != cell.Opened {
		return false
	}
	total := binary.BigEndian.Uint64(m.Body)
	if total > e.allowed.Load() {
		e.allowed.Store(total)
		e.look()
	}
	return true
}

// look has a Data of the stream's that waits look again.
func (e *entry) look() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// answered takes a part of an answer.
func (c *Circuit) answered(e *entry, m cell.Message) (ok bool) {
	if e.want != cell.Answer || e.replied || len(m.Body) < 1 || m.Body[0] > 1 || len(e.answer)+len(m.Body)-1 > e.most {
		return false
	}
	if part := len(m.Body) - 1; cap(e.answer)-len(e.answer) < part {
		e.answer = slices.Grow(e.answer, max(part, len(e.answer))) // doubled: append alone grows long ones by a quarter
	}
	e.answer = append(e.answer, m.Body[1:]...)
	if m.Body[0] == 0 {
		m.Body = e.answer
		c.remove(m.Stream, 0)
		return e.respond(m)
	}
	return true
}

// respond hands the one message that answers to whoever asked. A second one is
// nobody's; CLOSE comes behind OPENED and is told otherwise. It keeps m.
func (e *entry) respond(m cell.Message) (ok bool) {
	if e.replied || e.want == 0 {
		return false
	}
	e.replied = true
	e.reply <- m
	return true
}

// visited takes an OPEN from the meeting relay.
func (c *Circuit) visited(m cell.Message) (ok bool) {
	if c.visit == nil || len(m.Body) != cell.TokenSize+stream.Message1Size {
		return false
	}
	v := Visitor{Stream: m.Stream, Message: append([]byte(nil), m.Body[cell.TokenSize:]...)}
	copy(v.Token[:], m.Body)
	c.streamsMu.Lock()
	if c.streams == nil {
		c.streamsMu.Unlock()
		return true
	}
	if m.Stream == 0 || m.Stream%2 == 1 || m.Stream <= c.lastVisit {
		c.streamsMu.Unlock()
		return false
	}
	c.lastVisit = m.Stream
	c.streams[m.Stream] = newEntry(0, 0)
	busy := c.halfOpen >= maxHalfOpen
	if !busy {
		c.halfOpen++
	}
	c.streamsMu.Unlock()
	if busy {
		c.Refuse(v, cell.Busy)
		return true
	}
	c.work.Go(func() {
		c.visit(c, v)
		c.streamsMu.Lock()
		c.halfOpen--
		c.streamsMu.Unlock()
	})
	return true
}
