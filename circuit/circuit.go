// Package circuit is the client's side of circuits: building one, keeping it,
// and the streams and requests that run inside.
// Not here: what a relay does (package hop), which relays (package path), what
// streams carry.
package circuit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/stream"
)

// Use is what a circuit is for: all that the status page says of it.
type Use string

// The uses.
const (
	ForPeer    Use = "peer"    // streams that this sidecar opens
	ForInbound Use = "inbound" // streams that others open
	ForTracker Use = "tracker" // announces, views, descriptors
)

// maxHalfOpen bounds the visitors of one circuit whose handshake is under way.
const maxHalfOpen = 64

// maxEarly bounds the records that may come between OPENED and the end of the
// handshake's arithmetic: a stream's first window and some control.
const maxEarly = 32

// ErrGone is what a dead circuit gives: build another.
var ErrGone = errors.New("circuit: over")

// RefusedError is a REFUSED from the last hop, or from the peer through it.
type RefusedError struct{ Reason cell.Reason }

func (e *RefusedError) Error() string { return "circuit: refused: " + e.Reason.String() }

// Visitor is an OPEN that came to a registered circuit.
type Visitor struct {
	Stream  uint32
	Token   [cell.TokenSize]byte
	Message []byte // the first handshake message
}

// Circuit is the owner's end of one circuit.
type Circuit struct {
	use    Use
	hops   int
	slot   *link.Circuit
	layers *onion.Circuit // Seal guarded by mu; Open owned by the reader
	intake *link.Intake
	visit  func(*Circuit, Visitor) // nil: nobody may open streams from outside
	born   time.Time

	wrapped *onion.Pending // owned by the reader: what CREATED completes
	stands  chan error     // gets how the handshake ended, once
	done    chan struct{}  // closed when over
	reason  atomic.Uint32
	over    atomic.Bool
	room    signal // something may be sent again

	mu      sync.Mutex
	pending []waiting // guarded by mu: control messages that wait for credit

	streamsMu sync.Mutex
	streams   map[uint32]*entry // guarded by streamsMu; nil when over
	next      uint32            // guarded by streamsMu: the next own stream, odd
	lastVisit uint32            // guarded by streamsMu: the last hop's newest stream, even
	halfOpen  int               // guarded by streamsMu
	usedAt    time.Time         // guarded by streamsMu: since when no stream is open
	ended     func()            // guarded by streamsMu: told once c is over
}

// waiting is a control message that has its place in its stream's order, but
// no layers yet: it goes when credit allows.
type waiting struct {
	e *entry // nil: of no stream that stands
	m cell.Message
	f *cell.Frame
}

// entry is one stream of a circuit.
type entry struct {
	conn    atomic.Pointer[stream.Conn] // nil until the handshake is over
	mu      sync.Mutex                  // held while conn is set
	early   []*cell.Frame               // guarded by mu: records that came before conn was there
	reply   chan cell.Message           // gets what answers OPEN, REQUEST, REGISTER; own bytes
	answer  []byte                      // owned by the reader: the parts so far
	most    int                         // the longest answer
	sent    uint64                      // guarded by the circuit's mu: records
	held    int                         // guarded by the circuit's mu: own control that waits
	allowed atomic.Uint64
}

// signal wakes all that wait for a change.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns what is closed at the next change. Take it, then look, then wait.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) changed() {
	s.mu.Lock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
	s.mu.Unlock()
}

// Use returns what c is for.
func (c *Circuit) Use() Use { return c.use }

// Hops returns how many relays c has, the last hop included.
func (c *Circuit) Hops() int { return c.hops }

// Done is closed when c is over.
func (c *Circuit) Done() <-chan struct{} { return c.done }

// Born returns when c was built.
func (c *Circuit) Born() time.Time { return c.born }

// Confirm returns the value that binds REGISTER to c.
func (c *Circuit) Confirm() [32]byte { return c.layers.Confirm() }

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
	c.room.changed()
	if ended != nil {
		ended()
	}
	for _, e := range all {
		if conn := e.conn.Load(); conn != nil {
			conn.Fail(ErrGone)
		}
	}
}

// add makes room for one more stream of this side's.
func (c *Circuit) add(most int) (uint32, *entry, error) {
	c.streamsMu.Lock()
	defer c.streamsMu.Unlock()
	if c.streams == nil || c.next > 1<<32-4 {
		return 0, nil, ErrGone
	}
	e := newEntry(most)
	id := c.next
	c.next += 2
	c.streams[id] = e
	return id, e, nil
}

func newEntry(most int) *entry {
	e := &entry{reply: make(chan cell.Message, 1), most: most}
	e.allowed.Store(cell.StreamFloor)
	return e
}

func (c *Circuit) remove(id uint32) {
	c.streamsMu.Lock()
	if _, ok := c.streams[id]; ok {
		delete(c.streams, id)
		c.usedAt = time.Now()
	}
	c.streamsMu.Unlock()
}

// control sends a message ahead of data. It does not wait: what can't go yet
// is kept until there is credit. body appends the message's body.
func (c *Circuit) control(e *entry, id uint32, verb cell.Verb, body func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() {
		return ErrGone
	}
	f := cell.NewFrame()
	payload := f.Body()[:cell.Payload]
	b := body(payload[cell.HeaderSize:cell.HeaderSize])
	if len(b) == 0 && verb == cell.Record { // the stream is over
		f.Free()
		return nil
	}
	w := waiting{e, cell.Message{Stream: id, Verb: verb, Body: b}, f}
	w.m.Put(payload)
	if len(c.pending) > 0 || !c.may(w) {
		c.pending = append(c.pending, w)
		if verb == cell.Record {
			e.held++
		}
		return nil
	}
	c.put(w)
	return nil
}

// may reports whether w can go now: a stream's control records go up to Reserve
// past what the stream is allowed, its CLOSE behind them. Caller holds mu.
func (c *Circuit) may(w waiting) bool {
	switch {
	case c.slot.Room() == 0:
		return false
	case w.e == nil:
		return true
	case w.m.Verb == cell.Record:
		return w.e.sent < w.e.allowed.Load()+cell.Reserve
	default:
		return w.e.held == 0
	}
}

// put sends w. Caller holds mu.
func (c *Circuit) put(w waiting) {
	if w.m.Verb == cell.Record {
		w.e.sent++
	}
	c.layers.Seal(w.f.Body())
	c.slot.Send(w.f)
}

// message is control for a body that is ready.
func (c *Circuit) message(m cell.Message) error {
	return c.control(nil, m.Stream, m.Verb, func(b []byte) []byte { return append(b, m.Body...) })
}

// flush sends what waited for credit and may go now.
func (c *Circuit) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 || c.over.Load() {
		return
	}
	kept := c.pending[:0]
	for _, w := range c.pending {
		if !c.may(w) {
			kept = append(kept, w)
			continue
		}
		if w.m.Verb == cell.Record {
			w.e.held--
		}
		c.put(w)
	}
	clear(c.pending[len(kept):])
	c.pending = kept
}

// sender is the circuit under one stream.
type sender struct {
	c  *Circuit
	id uint32
	e  *entry
}

// Data implements stream.Sender.
func (s sender) Data(seal func([]byte) []byte, cancel <-chan struct{}) error {
	c := s.c
	for {
		room := c.room.wait()
		c.mu.Lock()
		if c.over.Load() {
			c.mu.Unlock()
			return ErrGone
		}
		if s.e.sent < s.e.allowed.Load() && s.e.held == 0 && c.slot.Room() > cell.Reserve {
			f := cell.NewFrame()
			payload := f.Body()[:cell.Payload]
			if b := seal(payload[cell.HeaderSize:cell.HeaderSize]); len(b) > 0 {
				cell.Message{Stream: s.id, Verb: cell.Record, Body: b}.Put(payload)
				c.put(waiting{s.e, cell.Message{Verb: cell.Record}, f})
			} else {
				f.Free() // the stream is over
			}
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		select {
		case <-room:
		case <-cancel:
			return stream.ErrCancelled
		case <-c.done:
			return ErrGone
		}
	}
}

// Control implements stream.Sender.
func (s sender) Control(seal func([]byte) []byte) error {
	return s.c.control(s.e, s.id, cell.Record, seal)
}

// Close implements stream.Sender.
func (s sender) Close(r cell.Reason) {
	s.c.control(s.e, s.id, cell.Close, func(b []byte) []byte { return append(b, byte(r)) })
	s.c.remove(s.id)
}

// await returns what answers on e.
func (c *Circuit) await(ctx context.Context, id uint32, e *entry, want cell.Verb) (cell.Message, error) {
	var err error
	select {
	case m := <-e.reply:
		if m.Verb == want {
			return m, nil
		}
		r := cell.Gone
		if len(m.Body) == 1 {
			r = cell.Reason(m.Body[0])
		}
		err = &RefusedError{r}
	case <-ctx.Done():
		err = ctx.Err()
		if want == cell.Opened { // a stream that nobody waits for
			c.message(cell.Message{Stream: id, Verb: cell.Close, Body: []byte{byte(cell.Gone)}})
		}
	case <-c.done:
		err = ErrGone
	}
	c.remove(id)
	return cell.Message{}, err
}

// Request asks the last hop and returns its answer, at most most bytes.
func (c *Circuit) Request(ctx context.Context, kind byte, body []byte, most int) ([]byte, error) {
	id, e, err := c.add(most)
	if err != nil {
		return nil, err
	}
	if err := c.message(cell.Message{Stream: id, Verb: cell.Request, Body: append([]byte{kind}, body...)}); err != nil {
		return nil, err
	}
	m, err := c.await(ctx, id, e, cell.Answer)
	if err != nil {
		return nil, err
	}
	c.remove(id)
	return m.Body, nil
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
	e := newEntry(0)
	c.streams[0] = e
	c.streamsMu.Unlock()
	defer c.remove(0)
	if err := c.message(cell.Message{Verb: cell.Register, Body: body}); err != nil {
		return err
	}
	_, err := c.await(ctx, 0, e, cell.Registered)
	return err
}

// Call is a stream to open: who calls, whom, and at which registration.
type Call struct {
	Static   stream.PrivateKey
	Remote   [32]byte
	Token    [cell.TokenSize]byte
	Prologue []byte
	Counter  uint64 // greater than in any call before to Remote
	Budget   *stream.Budget
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
	id, e, err := c.add(0)
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
	m, err := c.await(ctx, id, e, cell.Opened)
	if err != nil {
		return nil, err
	}
	keys, err := call.handshake.Finish(m.Body)
	if err != nil {
		c.message(cell.Message{Stream: id, Verb: cell.Close, Body: []byte{byte(cell.Protocol)}})
		c.remove(id)
		return nil, fmt.Errorf("circuit: %w", err)
	}
	return c.attach(id, e, keys, call.Budget)
}

func (c *Circuit) attach(id uint32, e *entry, keys *stream.Keys, b *stream.Budget) (*stream.Conn, error) {
	conn, err := stream.New(keys, sender{c, id, e}, b, Addr{}, Addr{})
	if err != nil {
		c.message(cell.Message{Stream: id, Verb: cell.Close, Body: []byte{byte(cell.Busy)}})
		c.remove(id)
		return nil, fmt.Errorf("circuit: %w", err)
	}
	e.mu.Lock()
	for _, f := range e.early {
		if m, err := cell.ParseMessage(f.Body()[:cell.Payload]); err == nil {
			conn.Receive(m.Body, f.Free)
		}
	}
	e.early = nil
	e.conn.Store(conn)
	e.mu.Unlock()
	if c.over.Load() {
		conn.Fail(ErrGone)
	}
	return conn, nil
}

// Accept answers a visitor with the second handshake message.
func (c *Circuit) Accept(v Visitor, keys *stream.Keys, message []byte, b *stream.Budget) (*stream.Conn, error) {
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
	c.remove(v.Stream)
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
	layers, err := c.wrapped.Finish(b)
	if err == nil {
		c.mu.Lock()
		c.layers = layers
		c.mu.Unlock()
	}
	c.stands <- err
}

func (c handler) Sent(uint64) {}

func (c handler) Credit(uint64) {
	c.flush()
	c.room.changed()
}

func (c handler) Destroyed(r cell.Reason) { c.end(r) }

func (c handler) Cell(f *cell.Frame) {
	if c.layers == nil || c.over.Load() {
		f.Free()
		c.fail(cell.Protocol)
		return
	}
	if err := c.layers.Open(f.Body()); err != nil {
		f.Free()
		c.fail(cell.Protocol)
		return
	}
	m, err := cell.ParseMessage(f.Body()[:cell.Payload])
	if err != nil {
		f.Free()
		c.fail(cell.Protocol)
		return
	}
	c.intake.Arrived(c.slot)
	c.dispatch(f, m)
}

// dispatch hands m to its stream, or ends the circuit when nothing waits for
// such a message. It owns f.
func (c *Circuit) dispatch(f *cell.Frame, m cell.Message) {
	if m.Verb == cell.Open {
		c.visited(m)
		f.Free()
		return
	}
	c.streamsMu.Lock()
	e := c.streams[m.Stream]
	mine := m.Stream%2 == 1
	seen := m.Stream == 0 || (mine && m.Stream < c.next) || (!mine && m.Stream <= c.lastVisit)
	c.streamsMu.Unlock()
	if e == nil {
		f.Free()
		if !seen {
			c.fail(cell.Protocol)
		}
		return // it crossed our CLOSE
	}
	conn := e.conn.Load()
	if m.Verb == cell.Record && conn == nil {
		e.mu.Lock()
		if conn = e.conn.Load(); conn == nil {
			defer e.mu.Unlock()
			if !mine || len(e.early) >= maxEarly {
				f.Free()
				c.fail(cell.Protocol)
				return
			}
			e.early = append(e.early, f)
			return
		}
		e.mu.Unlock()
	}
	if m.Verb == cell.Record {
		if conn.Receive(m.Body, f.Free) != nil {
			c.remove(m.Stream) // the stream has reset itself
		}
		return
	}
	defer f.Free()
	switch {
	case m.Verb == cell.Allow && len(m.Body) == 8:
		if total := binary.BigEndian.Uint64(m.Body); total > e.allowed.Load() {
			e.allowed.Store(total)
			c.flush()
			c.room.changed()
		}
	case m.Verb == cell.Close || m.Verb == cell.Refused:
		if conn != nil {
			c.remove(m.Stream)
			conn.Fail(ErrGone)
			return
		}
		if !mine && m.Stream != 0 {
			c.remove(m.Stream)
			return
		}
		c.answered(e, m)
	case conn == nil && (m.Verb == cell.Opened || m.Verb == cell.Registered):
		c.answered(e, m)
	case conn == nil && m.Verb == cell.Answer && len(m.Body) >= 1:
		if len(e.answer)+len(m.Body) > e.most {
			c.fail(cell.Protocol)
			return
		}
		e.answer = append(e.answer, m.Body[1:]...)
		if m.Body[0] == 0 {
			m.Body = e.answer
			c.answered(e, m)
		}
	default:
		c.fail(cell.Protocol)
	}
}

func (c *Circuit) answered(e *entry, m cell.Message) {
	m.Body = append([]byte(nil), m.Body...)
	select {
	case e.reply <- m:
	default:
	}
}

// visited takes an OPEN from the meeting relay.
func (c *Circuit) visited(m cell.Message) {
	if c.visit == nil || len(m.Body) != cell.TokenSize+stream.Message1Size {
		c.fail(cell.Protocol)
		return
	}
	c.streamsMu.Lock()
	if c.streams == nil {
		c.streamsMu.Unlock()
		return
	}
	if m.Stream == 0 || m.Stream%2 == 1 || m.Stream <= c.lastVisit {
		c.streamsMu.Unlock()
		c.fail(cell.Protocol)
		return
	}
	c.lastVisit = m.Stream
	busy := c.halfOpen >= maxHalfOpen
	if !busy {
		c.halfOpen++
		c.streams[m.Stream] = newEntry(0)
	}
	c.streamsMu.Unlock()
	v := Visitor{Stream: m.Stream, Message: append([]byte(nil), m.Body[cell.TokenSize:]...)}
	copy(v.Token[:], m.Body)
	if busy {
		c.Refuse(v, cell.Busy)
		return
	}
	go func() {
		c.visit(c, v)
		c.streamsMu.Lock()
		c.halfOpen--
		c.streamsMu.Unlock()
	}()
}
