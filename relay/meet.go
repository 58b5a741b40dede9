package relay

import (
	"encoding/binary"
	"sync"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
)

// A meeting point joins two circuits that end here: the one of whoever is
// registered and a visitor's. It maps (circuit, stream) to (circuit, stream)
// and moves sealed records between them; their ends are all it knows.
type meeting struct {
	verify func(confirm [32]byte, body []byte) (token [cell.TokenSize]byte, err error)
	budget *link.Budget // what stream windows may promise above their floor, records

	mu    sync.Mutex
	known map[[cell.TokenSize]byte]*side // guarded by mu
}

const (
	maxStreams  = 4096 // open at once on one circuit
	maxTokens   = 8    // registrations of one circuit: a day's and the day's before
	maxUnknown  = 16   // OPENs for nobody, before a visitor's circuit is ended
	maxOverruns = 1
)

// side is one circuit at the meeting point. Of two sides only one lock is held
// at a time.
type side struct {
	m *meeting
	c *hop.Circuit

	mu       sync.Mutex
	streams  map[uint32]*half // guarded by mu
	next     uint32           // guarded by mu: the next stream opened from here, even
	last     uint32           // guarded by mu: the owner's newest stream, odd
	waiting  []*half          // guarded by mu: those with records to send on this circuit
	tokens   [][cell.TokenSize]byte
	unknown  int
	overruns int
	closed   bool
}

// half is one stream on one side. Records that came on the other side wait
// here for credit on this one.
type half struct {
	side   *side
	id     uint32
	far    *half
	opened bool // the visited owner has answered

	// guarded by side.mu
	queue  []*cell.Frame
	listed bool
	gone   bool
	taken  uint64 // records moved on to this side's circuit

	// What may still come from far's owner to this queue, guarded by side.mu.
	win      link.Window
	received uint64
}

func newMeeting(verify func([32]byte, []byte) ([cell.TokenSize]byte, error), b *link.Budget) *meeting {
	return &meeting{verify: verify, budget: b, known: make(map[[cell.TokenSize]byte]*side)}
}

// Last makes the meeting point the owner of a circuit that ends here.
func (m *meeting) Last(c *hop.Circuit) hop.Last {
	return &side{m: m, c: c, streams: make(map[uint32]*half), next: 2}
}

// Early implements hop.Last.
func (s *side) Early(m cell.Message) { s.message(m) }

// Message implements hop.Last.
func (s *side) Message(f *cell.Frame, m cell.Message) {
	if m.Verb == cell.Record {
		s.record(f, m)
		return
	}
	s.message(m)
	f.Free()
}

func (s *side) message(m cell.Message) {
	switch m.Verb {
	case cell.Register:
		s.register(m)
	case cell.Open:
		s.open(m)
	case cell.Opened:
		s.opened(m)
	case cell.Refused, cell.Close:
		s.closeStream(m)
	default:
		s.c.Destroy(cell.Protocol)
	}
}

// register makes this circuit the one that token leads to. The newest wins.
func (s *side) register(m cell.Message) {
	token, err := s.m.verify(s.c.Confirm(), m.Body)
	if err != nil || m.Stream != 0 {
		s.c.Control(cell.Message{Verb: cell.Refused, Body: []byte{byte(cell.BadRequest)}})
		return
	}
	s.mu.Lock()
	if len(s.tokens) >= maxTokens || s.closed {
		s.mu.Unlock()
		s.c.Control(cell.Message{Verb: cell.Refused, Body: []byte{byte(cell.Busy)}})
		return
	}
	s.tokens = append(s.tokens, token)
	s.mu.Unlock()
	s.m.mu.Lock()
	s.m.known[token] = s
	s.m.mu.Unlock()
	s.c.Control(cell.Message{Verb: cell.Registered, Body: token[:]})
}

// open joins a visitor's new stream to the circuit that its token names.
func (s *side) open(m cell.Message) {
	if len(m.Body) < cell.TokenSize {
		s.c.Destroy(cell.Protocol)
		return
	}
	s.mu.Lock()
	ok := m.Stream%2 == 1 && m.Stream > s.last && !s.closed
	s.last = max(s.last, m.Stream)
	full := len(s.streams) >= maxStreams
	s.mu.Unlock()
	if !ok {
		s.c.Destroy(cell.Protocol)
		return
	}
	if full {
		s.refuse(m.Stream, cell.Busy)
		return
	}
	token := [cell.TokenSize]byte(m.Body)
	s.m.mu.Lock()
	to := s.m.known[token]
	s.m.mu.Unlock()
	if to == nil || to == s {
		s.mu.Lock()
		s.unknown++
		many := s.unknown > maxUnknown
		s.mu.Unlock()
		if many {
			s.c.Destroy(cell.Protocol)
			return
		}
		s.refuse(m.Stream, cell.UnknownToken)
		return
	}
	near := &half{side: s, id: m.Stream, win: link.NewWindow(s.m.budget)}
	far := &half{side: to, far: near, win: link.NewWindow(s.m.budget)}
	near.far = far
	to.mu.Lock()
	if to.closed || len(to.streams) >= maxStreams || to.next > 1<<32-4 {
		to.mu.Unlock()
		s.refuse(m.Stream, cell.Busy)
		return
	}
	far.id = to.next
	to.next += 2
	to.streams[far.id] = far
	to.mu.Unlock()
	s.mu.Lock()
	s.streams[near.id] = near
	s.mu.Unlock()
	to.c.Control(cell.Message{Stream: far.id, Verb: cell.Open, Body: m.Body})
}

func (s *side) refuse(stream uint32, r cell.Reason) {
	s.c.Control(cell.Message{Stream: stream, Verb: cell.Refused, Body: []byte{byte(r)}})
}

// get returns a live stream of this side. A number that was never used breaks
// the protocol; one that is over crossed our CLOSE.
func (s *side) get(stream uint32) *half {
	s.mu.Lock()
	h := s.streams[stream]
	seen := stream != 0 && (stream%2 == 1 && stream <= s.last || stream%2 == 0 && stream < s.next)
	s.mu.Unlock()
	if h == nil && !seen {
		s.c.Destroy(cell.Protocol)
	}
	return h
}

// opened hands the visited owner's answer to the visitor.
func (s *side) opened(m cell.Message) {
	h := s.get(m.Stream)
	if h == nil {
		return
	}
	s.mu.Lock()
	ok := h.id%2 == 0 && !h.opened
	h.opened = true
	far := h.far
	s.mu.Unlock()
	if !ok {
		s.c.Destroy(cell.Protocol)
		return
	}
	if far != nil {
		far.side.c.Control(cell.Message{Stream: far.id, Verb: cell.Opened, Body: m.Body})
	}
}

// closeStream ends a stream for its owner; the far owner hears of it after all
// records before it.
func (s *side) closeStream(m cell.Message) {
	h := s.get(m.Stream)
	if h == nil {
		return
	}
	r := cell.Gone
	if len(m.Body) == 1 {
		r = cell.Reason(m.Body[0])
	}
	s.mu.Lock()
	far := h.far
	s.mu.Unlock()
	h.drop()
	if far != nil {
		far.finish(m.Verb, r)
	}
}

// drop forgets h and what waits on it.
func (h *half) drop() {
	s := h.side
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.gone {
		return
	}
	h.gone = true
	h.win.Close()
	for _, f := range h.queue {
		f.Free()
	}
	h.queue = nil
	if s.streams[h.id] == h {
		delete(s.streams, h.id)
	}
}

// finish tells h's owner that the stream is over, behind what still waits.
func (h *half) finish(v cell.Verb, r cell.Reason) {
	s := h.side
	s.mu.Lock()
	if h.gone {
		s.mu.Unlock()
		return
	}
	if len(h.queue) > 0 {
		f := cell.NewFrame()
		cell.Message{Stream: h.id, Verb: cell.Close, Body: []byte{byte(r)}}.Put(f.Body()[:])
		h.queue = append(h.queue, f)
		h.far = nil // nobody is behind it any more: see pump
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	h.drop()
	s.c.Control(cell.Message{Stream: h.id, Verb: v, Body: []byte{byte(r)}})
}

// record moves one sealed record to the far side, or lets it wait there.
func (s *side) record(f *cell.Frame, m cell.Message) {
	near := s.get(m.Stream)
	if near == nil {
		f.Free()
		return
	}
	s.mu.Lock()
	h := near.far
	s.mu.Unlock()
	if h == nil {
		f.Free()
		return
	}
	to := h.side
	to.mu.Lock()
	if h.gone {
		to.mu.Unlock()
		f.Free()
		return
	}
	h.received++
	if h.received > h.win.Granted()+cell.Reserve {
		to.mu.Unlock()
		f.Free()
		s.overrun(near)
		return
	}
	if h.win.Timed(h.received) {
		h.win.Received(h.received, link.Clock())
	}
	cell.PutStream(f.Body()[:], h.id)
	h.queue = append(h.queue, f)
	if !h.listed {
		h.listed = true
		to.waiting = append(to.waiting, h)
	}
	to.pump()
}

// overrun ends a stream whose sender took more than it was allowed; the second
// time it is the circuit that goes.
func (s *side) overrun(near *half) {
	s.mu.Lock()
	s.overruns++
	many := s.overruns > maxOverruns
	far := near.far
	s.mu.Unlock()
	if many {
		s.c.Destroy(cell.Overrun)
		return
	}
	near.finish(cell.Close, cell.Overrun)
	if far != nil {
		far.finish(cell.Close, cell.Gone)
	}
}

// allowance is an ALLOW to send once no lock is held.
type allowance struct {
	to    *half
	total uint64
}

// pump sends what waits, a record a stream in turn, while the circuit has
// credit. The caller holds mu; pump releases it.
func (s *side) pump() {
	var allow []allowance
	for len(s.waiting) > 0 {
		h := s.waiting[0]
		if len(h.queue) == 0 {
			h.listed = false
			s.waiting = s.waiting[1:]
			continue
		}
		if !s.c.Send(h.queue[0]) {
			break
		}
		h.queue[0] = nil
		h.queue = h.queue[1:]
		h.taken++
		if h.far == nil && len(h.queue) == 0 { // its CLOSE has gone
			h.gone, h.listed = true, false
			h.win.Close()
			delete(s.streams, h.id)
			s.waiting = s.waiting[1:]
			continue
		}
		if total, ok := h.win.Grant(h.taken, 1<<63, link.Clock); ok && h.far != nil {
			allow = append(allow, allowance{h.far, total})
		}
		s.waiting = append(s.waiting[1:], h)
	}
	s.mu.Unlock()
	for _, a := range allow {
		a.to.side.c.Control(cell.Message{Stream: a.to.id, Verb: cell.Allow, Body: binary.BigEndian.AppendUint64(nil, a.total)})
	}
}

// Room implements hop.Last.
func (s *side) Room() {
	s.mu.Lock()
	s.pump()
}

// Closed implements hop.Last: all streams end with their circuit.
func (s *side) Closed() {
	s.mu.Lock()
	s.closed = true
	all, tokens := s.streams, s.tokens
	s.streams, s.waiting = make(map[uint32]*half), nil
	s.mu.Unlock()
	s.m.mu.Lock()
	for _, t := range tokens {
		if s.m.known[t] == s {
			delete(s.m.known, t)
		}
	}
	s.m.mu.Unlock()
	for _, h := range all {
		h.drop()
		s.mu.Lock()
		far := h.far
		s.mu.Unlock()
		if far != nil {
			far.finish(cell.Close, cell.Gone)
		}
	}
}
