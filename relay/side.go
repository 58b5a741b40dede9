package relay

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/stream"
)

// side is one circuit at the meeting point. Of all sides only one lock is held
// at a time.
type side struct {
	m *meeting
	c *hop.Circuit

	waits atomic.Bool // something waits for room; written under mu

	fed []*side // whom records went to since Flush; owned by the circuit's reader

	mu       sync.Mutex
	streams  map[uint32]*half // guarded by mu, like what follows
	next     uint32           // the next stream opened from here, even
	last     uint32           // the owner's newest stream, odd
	urgent   ring             // halves with a message to tell
	bulk     ring             // halves with records to send
	halfOpen int              // visitors whom the owner has not answered
	own      int              // streams that the owner opened
	opening  int              // of these, those that the other side has not answered
	strays   uint64           // messages that may still come for streams ended from here
	tokens   []registration
	refused  int // REGISTERs
	unknown  int
	overruns int
	closed   bool
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
	ok := false
	switch m.Verb {
	case cell.Register:
		ok = s.register(m)
	case cell.Open:
		ok = s.open(m)
	case cell.Opened:
		ok = s.opened(m)
	case cell.Refused, cell.Close:
		ok = s.close(m)
	}
	if !ok {
		s.c.Destroy(cell.Protocol)
	}
}

func (s *side) refuse(stream uint32, r cell.Reason) {
	s.c.Control(cell.Message{Stream: stream, Verb: cell.Refused, Body: []byte{byte(r)}})
}

// open joins a visitor's new stream to the circuit that its token names.
func (s *side) open(m cell.Message) (ok bool) {
	if len(m.Body) != cell.TokenSize+stream.Message1Size {
		return false // it would end the circuit of whoever is visited
	}
	s.m.mu.Lock()
	to := s.m.known[[cell.TokenSize]byte(m.Body)]
	s.m.mu.Unlock()
	if to == s {
		to = nil
	}
	near := &half{side: s, id: m.Stream}
	far := &half{side: to, far: near, visited: true, say: cell.Open, body: append([]byte(nil), m.Body...)}
	near.far = far
	ok, r := s.admit(near, to != nil)
	if !ok {
		return false
	}
	if r == cell.OK {
		if r = to.visit(far); r != cell.OK {
			near.drop()
		}
	}
	if r != cell.OK {
		s.refuse(m.Stream, r)
		return true
	}
	to.pump()
	return true
}

// admit makes room for a visitor's new stream; found says whether there is
// whom it asks for.
func (s *side) admit(h *half, found bool) (ok bool, r cell.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.id%2 == 0 || h.id <= s.last {
		return false, cell.Protocol
	}
	s.last = h.id
	if !found {
		s.unknown++
		return s.unknown <= maxUnknown, cell.UnknownToken
	}
	if s.closed || s.own >= maxOwn || s.opening >= maxOpening || !h.openWindow() {
		return true, cell.Busy
	}
	s.own++
	s.opening++
	h.live, s.streams[h.id] = true, h
	return true, cell.OK
}

// visit makes room for a stream that h.far's owner opens to this side's, and
// has this side's told.
func (s *side) visit(h *half) cell.Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.ending != 0 { // the visitor's circuit has died meanwhile
		return cell.Gone
	}
	if s.closed || len(s.streams) >= maxVisits || s.halfOpen >= maxHalfOpen || s.next > 1<<32-4 || !h.openWindow() {
		return cell.Busy
	}
	h.id = s.next
	s.next += 2
	s.halfOpen++
	h.live, s.streams[h.id] = true, h
	s.want(&s.urgent, &h.inUrgent, h)
	return cell.OK
}

// get returns a live stream of this side; ok is false when the owner breaks the
// protocol: a stream that was never opened, or one that is over and on which
// more comes than can have crossed its end. Caller holds mu.
func (s *side) get(stream uint32) (h *half, ok bool) {
	if h = s.streams[stream]; h != nil {
		return h, true
	}
	seen := stream != 0 && (stream%2 == 1 && stream <= s.last || stream%2 == 0 && stream < s.next)
	if !seen || s.strays == 0 {
		return nil, s.closed
	}
	s.strays--
	return nil, true
}

// opened hands the visited owner's answer to the visitor.
func (s *side) opened(m cell.Message) (ok bool) {
	s.mu.Lock()
	h, ok := s.get(m.Stream)
	if h == nil {
		s.mu.Unlock()
		return ok
	}
	ok = h.visited && !h.answered && h.say == 0 && len(m.Body) == stream.Message2Size
	if ok {
		h.answered = true
		s.halfOpen--
	}
	toVisitor, toOwner := h.widen(), uint64(0)
	s.mu.Unlock()
	if !ok {
		return false
	}
	far := h.far
	to := far.side
	s.c.Widen()
	to.c.Widen()
	to.mu.Lock()
	if far.live && far.ending == 0 {
		far.answered = true
		to.opening--
		far.allow, toOwner = toVisitor, far.widen()
		far.say, far.body = cell.Opened, append([]byte(nil), m.Body...)
		to.want(&to.urgent, &far.inUrgent, far)
	}
	to.mu.Unlock()
	to.pump()
	h.allowed(toOwner)
	return true
}

// close ends a stream for its owner; the far owner hears of it behind all
// records before it.
func (s *side) close(m cell.Message) (ok bool) {
	s.mu.Lock()
	h, ok := s.get(m.Stream)
	s.mu.Unlock()
	if h == nil {
		return ok
	}
	r := cell.Gone
	if len(m.Body) == 1 {
		r = cell.Reason(m.Body[0])
	}
	h.drop()
	h.far.finish(m.Verb, r)
	return true
}

// record moves one sealed record to the far side, or lets it wait there.
func (s *side) record(f *cell.Frame, m cell.Message) {
	control := len(m.Body) == stream.ControlSize
	s.mu.Lock()
	near, ok := s.get(m.Stream)
	if near != nil {
		ok = near.answered && (control || len(m.Body) == stream.DataSize)
		if near.ending != 0 && near.reason == cell.Overrun { // ended for its records: it has not heard of that yet
			near = nil
		}
	}
	s.mu.Unlock()
	if near == nil || !ok {
		f.Free()
		if !ok {
			s.c.Destroy(cell.Protocol)
		}
		return
	}
	if !near.far.take(f, control) {
		s.overrun(near)
		return
	}
	if to := near.far.side; !slices.Contains(s.fed, to) { // few: one circuit's visitors at a time
		s.fed = append(s.fed, to)
	}
}

// Flush implements hop.Last.
func (s *side) Flush() {
	for _, to := range s.fed {
		to.pump()
	}
	clear(s.fed)
	s.fed = s.fed[:0]
}

// overrun ends a stream whose sender took more than it was allowed; the second
// time it is the circuit that goes.
func (s *side) overrun(near *half) {
	s.mu.Lock()
	s.overruns++
	many := s.overruns > maxOverruns
	s.mu.Unlock()
	if many {
		s.c.Destroy(cell.Overrun)
		return
	}
	near.finish(cell.Close, cell.Overrun)
	near.far.finish(cell.Close, cell.Gone)
}

// Closed implements hop.Last: all streams end with their circuit.
func (s *side) Closed() {
	s.m.mu.Lock()
	s.mu.Lock()
	s.closed = true
	for _, t := range s.tokens {
		if s.m.known[t.token] == s {
			delete(s.m.known, t.token)
		}
	}
	all := slices.Collect(maps.Values(s.streams))
	for _, h := range all {
		h.dropped()
	}
	s.mu.Unlock()
	s.m.mu.Unlock()
	for _, h := range all {
		h.far.finish(cell.Close, cell.Gone)
	}
}
