package relay

import (
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
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

// registration is a token that leads here.
type registration struct {
	token [cell.TokenSize]byte
	ends  time.Time
}

func newMeeting(verify verifier, b *window.Budget) *meeting {
	return &meeting{verify: verify, budget: b, known: make(map[[cell.TokenSize]byte]*side)}
}

// Last makes the meeting point the owner of a circuit that ends here.
func (m *meeting) Last(c *hop.Circuit) hop.Last {
	return &side{m: m, c: c, streams: make(map[uint32]*half), next: 2}
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
