package relay

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/stream"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// A meeting point joins two circuits that end here: the one of whoever is
// registered and a visitor's. It maps (circuit, stream) to (circuit, stream)
// and moves sealed records between them; their ends are all it knows.
//
// What one circuit can make it hold is bounded, whatever comes: per stream the
// records that it allowed, maxControl control records and one of each message;
// so many streams; so many that are half open.
type meeting struct {
	verify verifier
	budget *window.Budget // of the records that wait here

	mu    sync.Mutex
	known map[[cell.TokenSize]byte]*side // guarded by mu
}

// verifier returns what a REGISTER with body is for on the circuit of confirm,
// and for how long.
type verifier func(confirm [32]byte, body []byte) (token [cell.TokenSize]byte, life time.Duration, err error)

const (
	maxVisits   = 4096                          // streams open at once from visitors to one circuit
	maxOwn      = 512                           // and of one visitor's circuit
	maxHalfOpen = 64                            // visits whose OPEN the registered owner has not answered
	maxOpening  = 32                            // the same, as one visitor's circuit counts
	maxTokens   = 8                             // registrations of one circuit that hold: a day's and the day's before, and again; those refused stay counted
	maxUnknown  = 16                            // OPENs for nobody, before a visitor's circuit is ended
	maxOverruns = 1                             // streams that sent more than allowed, likewise
	maxControl  = 8                             // control records that wait on one stream: more than a Conn makes without an answer
	maxStrays   = link.Ceiling + maxControl + 2 // what may cross the end of a stream: records, a message or two
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

// registration is a token that leads here.
type registration struct {
	token [cell.TokenSize]byte
	ends  time.Time
}

// half is one stream on one side. Records that came on the other side wait
// here for room on this one.
type half struct {
	side    *side
	id      uint32
	far     *half // its other half
	visited bool  // side is the registered one

	// guarded by side.mu
	answered bool      // OPENED has come or gone
	live     bool      // in side.streams
	say      cell.Verb // OPEN or OPENED, to tell the owner; 0: nothing
	body     []byte    // its body
	allow    uint64    // ALLOW to tell the owner: what may come to far; 0: none
	ending   cell.Verb // CLOSE or REFUSED, to tell behind all records; 0: none
	reason   cell.Reason
	queue    link.Queue
	control  int // control records in queue
	inUrgent entry
	inBulk   entry

	// What far's owner may send to queue, guarded by side.mu.
	win      window.Window
	received uint64 // data records
	taken    uint64 // of these, moved on to side's circuit
}

func newMeeting(verify verifier, b *window.Budget) *meeting {
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

// register makes this circuit the one that token leads to. The newest wins.
func (s *side) register(m cell.Message) (ok bool) {
	if s.held() >= maxTokens || m.Stream != 0 {
		return false
	}
	token, life, err := s.m.verify(s.c.Confirm(), m.Body)
	if err != nil {
		s.mu.Lock()
		s.refused++
		s.mu.Unlock()
		s.refuse(0, cell.BadRequest)
		return true
	}
	s.m.mu.Lock()
	s.mu.Lock()
	if !s.closed {
		s.tokens = append(s.tokens, registration{token, time.Now().Add(life)})
		s.m.known[token] = s
	}
	s.mu.Unlock()
	s.m.mu.Unlock()
	s.c.Control(cell.Message{Verb: cell.Registered, Body: token[:]})
	return true
}

// held forgets the registrations that have lapsed, so that a circuit may stand
// for as long as its owner registers each day, and returns how many count.
func (s *side) held() int {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.tokens = slices.DeleteFunc(s.tokens, func(t registration) bool {
		lapsed := !now.Before(t.ends)
		if lapsed && s.m.known[t.token] == s {
			delete(s.m.known, t.token)
		}
		return lapsed
	})
	return len(s.tokens) + s.refused
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

func (h *half) openWindow() (ok bool) {
	h.win, ok = window.Open(&link.Cells, h.side.m.budget)
	return ok
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

// widen returns what the far side's owner may send at once, now that both are
// there; 0: no more than the floor. Caller holds side.mu.
func (h *half) widen() (total uint64) {
	total, _ = h.win.Widen(0, 1<<63)
	return total
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

// drop forgets h and what waits on it.
func (h *half) drop() {
	h.side.mu.Lock()
	defer h.side.mu.Unlock()
	h.dropped()
}

// dropped is drop for a caller that holds side.mu.
func (h *half) dropped() {
	if !h.live {
		return
	}
	s := h.side
	h.live = false
	if !h.visited {
		s.own--
	}
	switch {
	case h.answered:
	case h.visited:
		s.halfOpen--
	default:
		s.opening--
	}
	h.win.Close()
	h.queue.Clear()
	h.body = nil
	s.urgent.remove(&h.inUrgent)
	s.bulk.remove(&h.inBulk)
	delete(s.streams, h.id)
}

// finish has h's owner told that the stream is over, behind what waits.
func (h *half) finish(v cell.Verb, r cell.Reason) {
	s := h.side
	s.mu.Lock()
	if h.ending == 0 {
		h.ending, h.reason, h.allow = v, r, 0
		if h.say == cell.Open { // it has not heard of the stream yet
			h.dropped()
		} else if h.live && h.queue.Len() == 0 {
			s.want(&s.urgent, &h.inUrgent, h)
		}
	}
	s.mu.Unlock()
	s.pump()
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

// take puts a record into h's queue, and reports whether it was allowed to come.
func (h *half) take(f *cell.Frame, control bool) bool {
	s := h.side
	s.mu.Lock()
	defer s.mu.Unlock()
	if !control {
		h.received++
	}
	switch {
	case !control && h.received > h.win.Granted(), control && h.control >= maxControl:
		f.Free()
		return false
	case !h.live || h.ending != 0:
		f.Free()
		return true
	}
	if control {
		h.control++
	} else if h.win.Timed(h.received) {
		h.win.Received(h.received, window.Clock())
	}
	cell.PutStream(f.Body()[:], h.id)
	h.queue.Push(f)
	s.want(&s.bulk, &h.inBulk, h)
	return true
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

// want has pump look at h. Caller holds mu.
func (s *side) want(r *ring, e *entry, h *half) {
	r.add(e, h)
	s.waits.Store(true)
}

// allowance is an ALLOW to tell a half's owner.
type allowance struct {
	to    *half
	total uint64
}

// pump sends what waits and may go now: messages first, then a record of each
// stream in turn.
func (s *side) pump() {
	for {
		var allow [16]allowance
		s.mu.Lock()
		s.tell()
		n := s.send(allow[:])
		s.waits.Store(!s.urgent.empty() || !s.bulk.empty())
		s.mu.Unlock()
		for _, a := range allow[:n] {
			a.to.allowed(a.total)
		}
		if n < len(allow) {
			s.c.Flush()
			return
		}
	}
}

// allowed has h's owner told how many records may come.
func (h *half) allowed(total uint64) {
	s := h.side
	s.mu.Lock()
	if h.live && h.ending == 0 {
		h.allow = max(h.allow, total)
		s.want(&s.urgent, &h.inUrgent, h)
		s.tell()
	}
	s.mu.Unlock()
	s.c.Flush()
}

// tell sends messages while there is room. Caller holds mu.
func (s *side) tell() {
	for h := s.urgent.first(); h != nil; h = s.urgent.first() {
		if !h.tell() {
			return
		}
		s.urgent.remove(&h.inUrgent)
	}
}

// tell sends what h's owner is to hear, and reports whether there was room for
// all of it. Caller holds side.mu.
func (h *half) tell() bool {
	c := h.side.c
	if h.say != 0 {
		if !c.SendControl(cell.Message{Stream: h.id, Verb: h.say, Body: h.body}) {
			return false
		}
		h.say, h.body = 0, nil
	}
	if h.allow != 0 {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], h.allow)
		if !c.SendControl(cell.Message{Stream: h.id, Verb: cell.Allow, Body: b[:]}) {
			return false
		}
		h.allow = 0
	}
	if h.ending != 0 && h.queue.Len() == 0 {
		if !c.SendControl(cell.Message{Stream: h.id, Verb: h.ending, Body: []byte{byte(h.reason)}}) {
			return false
		}
		h.side.strays += maxStrays
		h.dropped()
	}
	return true
}

// send sends records while there is room, and notes in allow what their
// senders may send on. Caller holds mu.
func (s *side) send(allow []allowance) (n int) {
	for n < len(allow) {
		h := s.bulk.first()
		if h == nil {
			break
		}
		f := h.queue.Front()
		m, _ := cell.ParseMessage(f.Body()[:cell.Payload])
		control, reserve := len(m.Body) == stream.ControlSize, cell.Reserve
		if control {
			reserve = 0
		}
		if !s.c.Send(f, reserve) {
			break
		}
		h.queue.Pop()
		s.bulk.turn()
		if control {
			h.control--
		} else {
			h.taken++
			if total, ok := h.win.Grant(h.taken, 1<<63, window.Clock); ok {
				allow[n] = allowance{h.far, total}
				n++
			}
		}
		if h.queue.Len() == 0 {
			s.bulk.remove(&h.inBulk)
			if h.ending != 0 {
				s.want(&s.urgent, &h.inUrgent, h)
				s.tell()
			}
		}
	}
	return n
}

// Room implements hop.Last.
func (s *side) Room() {
	if s.waits.Load() {
		s.pump()
	}
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

// ring is halves that wait for their turn.
type ring struct{ head *entry }

// entry is a half's place in a ring; h is nil while it has none.
type entry struct {
	h          *half
	next, prev *entry
}

func (r *ring) empty() bool { return r.head == nil }

// first returns the half whose turn it is, or nil.
func (r *ring) first() *half {
	if r.head == nil {
		return nil
	}
	return r.head.h
}

// turn makes it the next one's turn.
func (r *ring) turn() { r.head = r.head.next }

// add puts h, whose place is e, at the end, unless it is there.
func (r *ring) add(e *entry, h *half) {
	if e.h != nil {
		return
	}
	e.h = h
	if r.head == nil {
		r.head, e.next, e.prev = e, e, e
		return
	}
	e.next, e.prev = r.head, r.head.prev
	e.prev.next, e.next.prev = e, e
}

// remove takes out whom e is the place of, if it is there.
func (r *ring) remove(e *entry) {
	if e.h == nil {
		return
	}
	if e.next == e {
		r.head = nil
	} else {
		if r.head == e {
			r.head = e.next
		}
		e.prev.next, e.next.prev = e.next, e.prev
	}
	*e = entry{}
}
