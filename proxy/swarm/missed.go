package swarm

import (
	"context"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/tracker/announce"
)

// missed is who was learned of soon after a client was answered, and would
// have been named by that answer. It is guarded by member.mu.
type missed struct {
	until  time.Time     // later ones are left to the client's next announce
	asking int           // announces whose answers will name whoever is learned of
	peers  []Key         // at most MaxRecords
	more   chan struct{} // closed and replaced when there are more
}

// missedFor is for how long after a start, or an answer that came before the
// trackers', a client has missed who is learned of. Trackers that are reached
// at all have answered by then.
const missedFor = 2 * time.Minute

func (s *missed) open() { s.until = time.Now().Add(missedFor) }

func (s *missed) close() { s.until, s.peers = time.Time{}, nil }

func (s *missed) wants() bool {
	return s.asking == 0 && time.Now().Before(s.until) && len(s.peers) < announce.MaxRecords
}

func (s *missed) add(k Key) {
	s.peers = append(s.peers, k)
	close(s.more)
	s.more = make(chan struct{})
}

// addLocked takes r into what is known of the swarm. Caller holds mu.
func (m *member) addLocked(r announce.Record) {
	missed := m.missed.wants() && !m.union.Knows(r.E)
	if m.union.Add(r) && missed && slices.Contains(m.othersLocked(), r.E) {
		m.missed.add(r.E)
	}
}

// Later implements Swarm.
func (m *member) Later(ctx context.Context) ([]Key, error) {
	for {
		m.mu.Lock()
		peers, more := m.missed.peers, m.missed.more
		m.missed.peers = nil
		m.mu.Unlock()
		if len(peers) > 0 {
			return peers, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-m.ctx.Done():
			return nil, ErrLeft
		}
	}
}
