package swarm

import (
	"context"
	"time"

	"github.com/shoal-p2p/shoal/tracker/announce"
)

// identity is who a member is this week and, for visitors who know it by a
// record of last week's, who it was before.
type identity struct {
	secret *announce.Secret
	keys   *announce.Member

	old     *announce.Member // nil: none, or its overlap is over
	until   time.Time        // when that is, in the network's time
	retired bool             // old's records are taken out
}

// oldLife is how long last week's keys are answered: as long as a record that
// was published just before may be believed.
const oldLife = recordLife

func (w *identity) all() []*announce.Member {
	if w.old == nil {
		return []*announce.Member{w.keys}
	}
	return []*announce.Member{w.keys, w.old}
}

// keys returns who the member is now.
func (m *member) keys() *announce.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.who.keys
}

// all returns the keys whose records may be out.
func (m *member) all() []*announce.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.who.all()
}

// turnWeek moves on to the keys of a new week, with the first day of it that
// the swarm has, and forgets those of the old one when their overlap is over.
// All members of a swarm turn at that moment: one that did it alone would tell
// the others which of the new keys are its own.
func (m *member) turnWeek() {
	now := m.net.cfg.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.who.old != nil && !now.Before(m.who.until) {
		for _, b := range m.bound {
			for r := range b.here {
				if r.as == m.who.old {
					delete(b.here, r)
				}
			}
		}
		m.who.old = nil
	}
	week := m.who.secret.Week()
	if week != m.who.keys.Week() && announce.InWeek(m.id.hash, week, now) {
		m.turnLocked(m.who.secret.Member(m.id.hash), now)
	}
}

// turnLocked makes keys the member's. Its circuits and streams stay; bind
// registers anew on them, and the record follows. Caller holds mu.
func (m *member) turnLocked(keys *announce.Member, now time.Time) {
	m.who.old, m.who.until, m.who.retired = m.who.keys, now.Add(oldLife), false
	m.who.keys = keys
	m.union.Skip(keys.S())
	m.carrier.skip = append(m.carrier.skip[max(0, len(m.carrier.skip)-1):], keys.S())
	m.carrier.own, m.last = nil, nil
}

// retireLocked takes the records of the old keys out, once the new ones have
// one: nobody is to take the member for two. Caller holds mu.
func (m *member) retireLocked() {
	old := m.who.old
	if old == nil || m.who.retired || m.left {
		return
	}
	m.who.retired = true
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(m.ctx, time.Minute)
		defer cancel()
		m.withdraw(ctx, old)
	})
}
