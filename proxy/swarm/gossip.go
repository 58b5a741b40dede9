package swarm

import (
	"math/rand/v2"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/stream"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

// Sidecars pass sealed records on inside the streams between them: what PEX is
// between clients. So a swarm finds its members when no tracker is left.

const (
	// gossipPace is about how long there is between two records on one stream,
	// so that they are no burst that marks the beginning of every stream.
	gossipPace = time.Second

	// gossipLook is how often to look for records that are to be told again.
	gossipLook = 5 * time.Minute

	// maxHearsay is how many members may be known by gossip: the rest of
	// maxKnown is for what trackers say.
	maxHearsay = maxKnown / 2
)

// gossip passes records on to peer inside conn, and takes what it passes on,
// until conn is over.
func (m *member) gossip(peer Key, conn *stream.Conn) {
	m.mu.Lock()
	t := m.carrier.begin(peer, time.Now())
	m.mu.Unlock()
	if t == nil {
		return
	}
	defer func() {
		m.mu.Lock()
		t.streams--
		m.mu.Unlock()
	}()
	timer := time.NewTimer(m.net.pause())
	defer timer.Stop()
	news := m.newsNow()
	for {
		select {
		case b := <-conn.Heard():
			m.hear(t, b)
		case <-news:
			news = m.newsNow()
			timer.Reset(m.net.pause())
		case <-timer.C:
			more, err := m.pass(t, conn)
			switch {
			case err != nil: // its client has no more to say; the peer may
			case more:
				timer.Reset(m.net.pause())
			default:
				timer.Reset(jitter(gossipLook))
			}
		case <-conn.Done():
			return
		case <-m.ctx.Done():
			return
		}
	}
}

func (n *Net) pause() time.Duration {
	return n.pace/2 + time.Duration(rand.Int64N(int64(n.pace)))
}

// newsNow returns what is closed when there is something to pass on.
func (m *member) newsNow() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.news
}

// newsLocked tells all streams that there is something to pass on. Caller holds mu.
func (m *member) newsLocked() {
	close(m.news)
	m.news = make(chan struct{})
}

// pass tells the peer one record that it lacks; more says whether there was one.
func (m *member) pass(t *talk, conn *stream.Conn) (more bool, err error) {
	m.mu.Lock()
	r := m.carrier.next(t, m.net.cfg.Now())
	m.mu.Unlock()
	if r == nil {
		return false, nil
	}
	if err := conn.Gossip(r.append(nil)); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t.tell(r)
	return true, nil
}

// hear takes in what a peer passes on.
func (m *member) hear(t *talk, b []byte) {
	now := m.net.cfg.Now()
	m.mu.Lock()
	ok := t.heard.may(now)
	if ok {
		t.heard.add(now)
	}
	m.mu.Unlock()
	if !ok {
		return
	}
	o, tracker, day, err := parseRumour(b)
	if err != nil || !m.plausible(&o, tracker, day, now) {
		return
	}
	record, err := announce.OpenRecord(m.id.hash, tracker, day, &o, now)
	if err != nil {
		return
	}
	r := newRumour(o, record, Key(record.E) == t.peer)
	m.mu.Lock()
	defer m.mu.Unlock()
	t.tell(r)
	if m.union.Len() < maxHearsay || m.carrier.known[record.S] != nil {
		m.addLocked(record)
	}
	if m.carrier.carry(r) {
		m.newsLocked()
	}
}

// plausible reports whether a record can have been published where and when
// somebody says, with the stamp that was asked for there.
func (m *member) plausible(o *announce.Outer, tracker [32]byte, day announce.Day, now time.Time) bool {
	newest := announce.Days(m.id.hash, now)[0]
	if day > newest || day+1 < newest {
		return false
	}
	known := false
	for _, t := range m.net.cfg.Trackers() {
		known = known || t.ID == onion.ID(tracker)
	}
	if !known {
		return false
	}
	m.mu.Lock()
	bits := m.stamps[tracker]
	m.mu.Unlock()
	return announce.Check(announce.Name(m.id.hash, tracker, day), o.T, o.Stamp, bits)
}

// published notes the record that is to be passed on as this member's own.
func (m *member) published(as *announce.Member, o announce.Outer, day announce.Day, tracker onion.ID, r announce.Record) {
	r.S, r.E, r.Tracker, r.Day = as.S(), as.E(), tracker, day
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.started || m.left || as != m.who.keys {
		return
	}
	own := newRumour(o, r, true)
	old := m.carrier.own
	m.carrier.own = own
	if old == nil || old.sum != own.sum {
		m.newsLocked()
	}
}
