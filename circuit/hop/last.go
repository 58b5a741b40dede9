package hop

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Last owns the messages of one circuit that ends here. No method may block:
// all but Room are called by the link's reader, Room by its writer, too. Once
// Closed was called, one of the others may still be under way.
type Last interface {
	// Message takes m, which lies in f; Last owns f from here on.
	Message(f *cell.Frame, m cell.Message)

	// Early takes the message that came with CREATE, before any other; its body
	// is valid until return.
	Early(m cell.Message)

	// Flush says that there are no more messages for now: it follows one or more.
	Flush()

	// Room says that the circuit may be able to send again.
	Room()

	// Closed says that the circuit is over.
	Closed()
}

const (
	maxControl  = 256       // control messages that wait for credit, per circuit
	maxRequests = 4         // requests being answered, per circuit
	maxAnswers  = 256 << 20 // bytes of replies that wait for their clients, in all
)

// Circuit is a circuit at its last hop.
type Circuit struct {
	s       *Server
	prev    *link.Circuit
	last    Last // nil: only requests are served
	confirm [32]byte
	intake  *link.Intake

	over  atomic.Bool
	waits atomic.Bool // control or answers do: written under mu

	opening sync.Mutex // held while the layer opens a cell
	cells   uint64     // opened; owned by the reader

	mu      sync.Mutex
	layer   *onion.Layer   // Backward guarded by mu, Forward by opening
	room    int            // guarded by mu: at least so many cells may go
	sealed  uint64         // guarded by mu: cells
	control []cell.Message // guarded by mu: wait for credit; bodies are own
	answers []answer       // guarded by mu: wait for credit
	asked   int            // guarded by mu: requests being answered
	value   any            // guarded by mu: the requests' own
}

// answer is what is left of a reply.
type answer struct {
	stream uint32
	body   []byte
	size   int64 // of the whole
}

// Value returns what the answerers of requests keep with the circuit, made by
// fresh at the first call.
func (c *Circuit) Value(fresh func() any) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.value == nil {
		c.value = fresh()
	}
	return c.value
}

// end makes this server the circuit's last hop.
func (s *Server) end(prev *link.Circuit, p *onion.Peeled) {
	layer, err := p.Accept(s.cfg.Suite)
	if err != nil {
		s.Counters.Refused.Add(1)
		prev.Destroy(cell.Protocol)
		return
	}
	c := &Circuit{s: s, prev: prev, layer: layer, confirm: layer.Confirm(), intake: link.NewIntake(nil)}
	if s.cfg.Last != nil {
		c.last = s.cfg.Last(c)
	}
	s.Counters.Circuits.Add(1)
	if !prev.Handle(lastHandler{c}) {
		c.end()
		return
	}
	if p.Early != nil { // before CREATED goes, since cells may follow it; what is sent here follows CREATED
		m, err := cell.ParseMessage(p.Early)
		if err != nil {
			c.Destroy(cell.Protocol)
			return
		}
		c.early(m)
	}
	s.Counters.Created.Add(1)
	prev.Created(p.Created(nil))
}

// Confirm returns the value that binds REGISTER to this circuit.
func (c *Circuit) Confirm() [32]byte { return c.confirm }

// Neighbour returns who the circuit came from, zero when its link shows nobody,
// and the address at the link's other end.
func (c *Circuit) Neighbour() (onion.ID, netip.Addr) {
	l := c.prev.Link()
	return l.Peer(), l.Remote()
}

// Done reports whether the circuit is over.
func (c *Circuit) Done() bool { return c.over.Load() }

// Send seals the payload in f and sends it with the next Flush, leaving reserve
// cells of credit: cell.Reserve for data. It reports false, and keeps nothing,
// when there is no room or the circuit is over; f is the caller's still.
func (c *Circuit) Send(f *cell.Frame, reserve int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.may(reserve) {
		return false
	}
	c.seal(f)
	return true
}

// SendControl sends m with the next Flush, from the credit that data leaves to
// it too. It reports false when there is none, or the circuit is over.
func (c *Circuit) SendControl(m cell.Message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.may(0) {
		return false
	}
	c.send(m)
	return true
}

// Flush sends what Send and SendControl took.
func (c *Circuit) Flush() { c.prev.Flush() }

// Control sends a message now or, without credit, as soon as there is some. A
// circuit whose owner makes many wait is ended.
func (c *Circuit) Control(m cell.Message) {
	if !c.enqueue(m) {
		c.Destroy(cell.Overrun)
	}
	c.Flush()
}

func (c *Circuit) enqueue(m cell.Message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over.Load():
		return true
	case len(c.control) == 0 && c.may(0):
		c.send(m)
		return true
	case len(c.control) >= maxControl:
		return false
	}
	m.Body = append([]byte(nil), m.Body...)
	c.control = append(c.control, m)
	c.waits.Store(true)
	c.flush() // credit that came since may was asked was not told of
	return true
}

// may reports whether a cell may go that leaves reserve cells of credit.
// Caller holds mu.
func (c *Circuit) may(reserve int) bool {
	if c.over.Load() {
		return false
	}
	if c.room <= reserve {
		c.room = c.prev.Room()
	}
	return c.room > reserve
}

// send sends m. Caller holds mu and knows of room.
func (c *Circuit) send(m cell.Message) {
	f := cell.NewFrame()
	m.Put(f.Body()[:])
	c.seal(f)
}

// seal seals and sends f. Caller holds mu and knows of room.
func (c *Circuit) seal(f *cell.Frame) {
	c.layer.Seal(f.Body())
	c.prev.Queue(f)
	c.room--
	if c.sealed++; c.sealed%countEvery == 0 {
		c.s.Counters.cells.Add(countEvery)
	}
}

// Widen lets the owner send more than the floor: for a circuit that streams
// are about to use.
func (c *Circuit) Widen() { c.intake.Widen(c.prev) }

// Destroy ends the circuit.
func (c *Circuit) Destroy(r cell.Reason) {
	c.prev.Destroy(r)
	c.end()
}

func (c *Circuit) end() {
	if c.over.Swap(true) {
		return
	}
	c.intake.Close()
	c.opening.Lock()
	c.mu.Lock()
	c.layer.Clear()
	for _, a := range c.answers {
		c.s.answers.Add(-a.size)
	}
	c.control, c.answers = nil, nil
	left := c.sealed%countEvery + c.cells%countEvery
	c.mu.Unlock()
	c.opening.Unlock()
	c.s.Counters.cells.Add(left)
	c.s.Counters.Circuits.Add(-1)
	c.s.Counters.Died.Add(1)
	if c.last != nil {
		c.last.Closed()
	}
}

// pump sends what waits for credit: control first, then answers.
func (c *Circuit) pump() {
	c.mu.Lock()
	c.flush()
	c.mu.Unlock()
	c.Flush()
}

// flush is pump for a caller that holds mu, and calls Flush.
func (c *Circuit) flush() {
	for len(c.control) > 0 && c.may(0) {
		c.send(c.control[0])
		c.control[0] = cell.Message{}
		c.control = c.control[1:]
	}
	for len(c.answers) > 0 && c.may(cell.Reserve) {
		a := &c.answers[0]
		n := min(len(a.body), cell.MaxMessage-1)
		more := byte(1)
		if n == len(a.body) {
			more = 0
		}
		f := cell.NewFrame()
		payload := f.Body()[:cell.Payload]
		body := append(payload[cell.HeaderSize:cell.HeaderSize], more)
		body = append(body, a.body[:n]...)
		cell.Message{Stream: a.stream, Verb: cell.Answer, Body: body}.Put(payload)
		c.seal(f)
		if a.body = a.body[n:]; more == 0 {
			c.s.answers.Add(-a.size)
			c.answers = append(c.answers[:0], c.answers[1:]...)
		}
	}
	c.waits.Store(len(c.control)+len(c.answers) > 0)
}

// request answers one REQUEST in a goroutine of its own.
func (c *Circuit) request(stream uint32, body []byte) {
	var serve func(*Circuit, []byte) ([]byte, error)
	if len(body) > 0 {
		serve = c.s.cfg.Requests[body[0]]
	}
	if serve == nil {
		c.refuse(stream, cell.BadRequest)
		return
	}
	c.mu.Lock()
	busy := c.asked+len(c.answers) >= maxRequests
	if !busy {
		c.asked++
	}
	c.mu.Unlock()
	if busy {
		c.refuse(stream, cell.Busy)
		return
	}
	body = append([]byte(nil), body[1:]...)
	c.s.wg.Go(func() {
		reply, err := serve(c, body)
		r := c.answer(stream, reply, err)
		if r != cell.OK {
			c.refuse(stream, r)
		}
		c.pump()
	})
}

// answer queues a reply, unless too much waits already.
func (c *Circuit) answer(stream uint32, reply []byte, err error) cell.Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked--
	size := int64(len(reply))
	switch {
	case err != nil:
		return cell.BadRequest
	case c.over.Load():
		return cell.OK
	case c.s.answers.Add(size) > maxAnswers:
		c.s.answers.Add(-size)
		return cell.Busy
	}
	c.answers = append(c.answers, answer{stream, reply, size})
	c.waits.Store(true)
	return cell.OK
}

func (c *Circuit) refuse(stream uint32, r cell.Reason) {
	c.Control(cell.Message{Stream: stream, Verb: cell.Refused, Body: []byte{byte(r)}})
}

func (c *Circuit) early(m cell.Message) {
	switch {
	case m.Verb == cell.Request:
		c.request(m.Stream, m.Body)
	case c.last != nil:
		c.last.Early(m)
	default:
		c.Destroy(cell.Protocol)
	}
}

// lastHandler takes what the link brings for c.
type lastHandler struct{ *Circuit }

func (c lastHandler) Created([]byte) {}

func (c lastHandler) Cell(b *[cell.Size]byte) {
	f := cell.NewFrame()
	c.opening.Lock()
	err := c.layer.Forward(f.Body(), b)
	c.cells++
	c.opening.Unlock()
	var m cell.Message
	if err == nil {
		m, err = cell.ParseMessage(f.Body()[:cell.Payload])
	}
	if err != nil {
		f.Free()
		c.Destroy(cell.Protocol)
		return
	}
	if c.cells%countEvery == 0 {
		c.s.Counters.cells.Add(countEvery)
	}
	c.intake.Arrived(c.prev) // taken at once: streams and requests have bounds of their own
	switch {
	case m.Verb == cell.Request:
		c.request(m.Stream, m.Body)
		f.Free()
	case c.last != nil:
		c.last.Message(f, m)
	default:
		f.Free()
		c.Destroy(cell.Protocol)
	}
}

func (c lastHandler) Flush() {
	if c.last != nil {
		c.last.Flush()
	}
}

func (c lastHandler) Credit(uint64) { c.Sent(0) }

func (c lastHandler) Sent(uint64) {
	if c.waits.Load() {
		c.pump()
	}
	if c.last != nil {
		c.last.Room()
	}
}

func (c lastHandler) Destroyed(cell.Reason) { c.end() }
