package hop

import (
	"sync"
	"sync/atomic"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Last owns the messages of one circuit that ends here. The link's reader
// calls it: no method may block.
type Last interface {
	// Message takes m, which lies in f; Last owns f from here on.
	Message(f *cell.Frame, m cell.Message)

	// Early takes the message that came with CREATE; its body is valid until return.
	Early(m cell.Message)

	// Room says that the circuit may be able to send again.
	Room()

	// Closed says that the circuit is over. Nothing is called after it.
	Closed()
}

const (
	maxControl  = 256 // control messages that wait for credit, per circuit
	maxRequests = 4   // requests being answered, per circuit
)

// Circuit is a circuit at its last hop.
type Circuit struct {
	s    *Server
	prev *link.Circuit
	last Last

	confirm [32]byte

	intake *link.Intake

	over atomic.Bool

	mu      sync.Mutex
	layer   *onion.Layer   // Backward guarded by mu; Forward owned by the reader
	control []cell.Message // guarded by mu: wait for credit; bodies are own
	answers []answer       // guarded by mu: wait for credit
	asked   int            // guarded by mu: requests being answered
	value   any            // guarded by mu: the requests' own
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

// answer is what is left of a reply.
type answer struct {
	stream uint32
	body   []byte
}

// end makes this server the circuit's last hop.
func (s *Server) end(h handshake, p *onion.Peeled) {
	layer, err := p.Accept(s.cfg.Suite)
	if err != nil {
		s.refuse(h, cell.Protocol)
		return
	}
	c := &Circuit{s: s, prev: h.c, layer: layer, confirm: layer.Confirm(), intake: link.NewIntake(s.budget)}
	if s.cfg.Last != nil {
		c.last = s.cfg.Last(c)
	}
	s.Counters.Circuits.Add(1)
	if !h.slot.become(lastHandler{c}) {
		c.end()
		return
	}
	s.Counters.Created.Add(1)
	h.c.Created(p.Created(nil))
	if p.Early == nil {
		return
	}
	m, err := cell.ParseMessage(p.Early)
	if err != nil {
		c.Destroy(cell.Protocol)
		return
	}
	c.early(m)
}

// Confirm returns the value that binds REGISTER to this circuit.
func (c *Circuit) Confirm() [32]byte { return c.confirm }

// Done reports whether the circuit is over.
func (c *Circuit) Done() bool { return c.over.Load() }

// Send seals the payload in f and sends it. It reports false, and keeps
// nothing, when the circuit has no room for data or is over; f is the
// caller's still.
func (c *Circuit) Send(f *cell.Frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() || c.prev.Room() <= cell.Reserve {
		return false
	}
	c.layer.Backward(f.Body())
	c.prev.Send(f)
	return true
}

// Control sends a message now or, without credit, as soon as there is some. A
// circuit whose owner never grants any is ended.
func (c *Circuit) Control(m cell.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() {
		return
	}
	if len(c.control) > 0 || c.prev.Room() == 0 {
		if len(c.control) >= maxControl {
			c.prev.Destroy(cell.Overrun)
			go c.end()
			return
		}
		m.Body = append([]byte(nil), m.Body...)
		c.control = append(c.control, m)
		return
	}
	c.send(m)
}

// send seals and sends m. Caller holds mu and knows of room.
func (c *Circuit) send(m cell.Message) {
	f := cell.NewFrame()
	m.Put(f.Body()[:])
	c.layer.Backward(f.Body())
	c.prev.Send(f)
}

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
	c.mu.Lock()
	c.control, c.answers = nil, nil
	c.mu.Unlock()
	c.s.Counters.Circuits.Add(-1)
	c.s.Counters.Died.Add(1)
	if c.last != nil {
		c.last.Closed()
	}
}

// pump sends what waits for credit: control first, then answers.
func (c *Circuit) pump() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() {
		return
	}
	for len(c.control) > 0 && c.prev.Room() > 0 {
		c.send(c.control[0])
		c.control = c.control[1:]
	}
	for len(c.answers) > 0 && c.prev.Room() > cell.Reserve {
		a := &c.answers[0]
		n := min(len(a.body), cell.MaxMessage-1)
		more := byte(0)
		if n < len(a.body) {
			more = 1
		}
		f := cell.NewFrame()
		payload := f.Body()[:cell.Payload]
		body := append(payload[cell.HeaderSize:cell.HeaderSize], more)
		body = append(body, a.body[:n]...)
		cell.Message{Stream: a.stream, Verb: cell.Answer, Body: body}.Put(payload)
		c.layer.Backward(f.Body())
		c.prev.Send(f)
		if a.body = a.body[n:]; more == 0 {
			c.answers = append(c.answers[:0], c.answers[1:]...)
		}
	}
}

// request answers one REQUEST in a goroutine of its own.
func (c *Circuit) request(stream uint32, body []byte) {
	var serve func(*Circuit, []byte) ([]byte, error)
	if len(body) > 0 {
		serve = c.s.cfg.Requests[body[0]]
	}
	refuse := func(r cell.Reason) {
		c.Control(cell.Message{Stream: stream, Verb: cell.Refused, Body: []byte{byte(r)}})
	}
	if serve == nil {
		refuse(cell.BadRequest)
		return
	}
	c.mu.Lock()
	c.asked++
	busy := c.asked > maxRequests
	if busy {
		c.asked--
	}
	c.mu.Unlock()
	if busy {
		refuse(cell.Busy)
		return
	}
	body = append([]byte(nil), body[1:]...)
	c.s.wg.Go(func() {
		reply, err := serve(c, body)
		c.mu.Lock()
		c.asked--
		if err == nil {
			c.answers = append(c.answers, answer{stream, reply})
		}
		c.mu.Unlock()
		if err != nil {
			refuse(cell.BadRequest)
			return
		}
		c.pump()
	})
}

func (c *Circuit) early(m cell.Message) {
	switch {
	case m.Verb == cell.Request:
		c.request(m.Stream, m.Body)
	case c.last != nil:
		c.last.Early(m)
	}
}

// lastHandler takes what the link brings for c.
type lastHandler struct{ *Circuit }

func (c lastHandler) Created([]byte) {}

func (c lastHandler) Cell(f *cell.Frame) {
	if err := c.layer.Forward(f.Body()); err != nil {
		f.Free()
		c.Destroy(cell.Protocol)
		return
	}
	m, err := cell.ParseMessage(f.Body()[:cell.Payload])
	if err != nil {
		f.Free()
		c.Destroy(cell.Protocol)
		return
	}
	c.s.Counters.CellsForward.Add(1)
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

func (c lastHandler) Credit(uint64) {
	c.pump()
	if c.last != nil {
		c.last.Room()
	}
}
func (c lastHandler) Sent(uint64)             {}
func (c lastHandler) Destroyed(r cell.Reason) { c.end() }
