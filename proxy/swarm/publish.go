package swarm

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

// ask is the circuit to one tracker. It carries this swarm alone.
type ask struct {
	turn    turn // while a request is under way; guards what follows
	circuit *circuit.Circuit
}

// sweep closes the circuit when idle says so, unless it is in use.
func (a *ask) sweep(idle func(*circuit.Circuit) bool) {
	if !a.turn.try() {
		return
	}
	defer a.turn.give()
	if a.circuit != nil && (over(a.circuit) || idle(a.circuit)) {
		a.circuit.Close()
		a.circuit = nil
	}
}

// Announce implements Swarm.
func (m *member) Announce(ctx context.Context, a Announce) (Answer, error) {
	if a.Event == Stopped {
		m.stop()
		m.withdraw(ctx, m.all()...)
		return Answer{Interval: defaultInterval}, nil
	}
	m.mu.Lock()
	first := !m.started
	if first && !m.left {
		m.unlive()
		m.live, m.unlive = context.WithCancel(m.ctx)
	}
	if first {
		m.again = true
		m.missed.open()
	}
	if a.NumWant != 0 {
		m.missed.asking++
	}
	m.started, m.heard = true, time.Now()
	m.saysLocked(a)
	seeder, live := m.seeder, m.live
	m.mu.Unlock()
	// What was begun goes on when the client's patience ends: publishing is
	// not undone because one answer came late.
	done := make(chan result, 1)
	ok := m.spawn(func() {
		ctx, cancel := context.WithTimeout(live, time.Minute)
		defer cancel()
		if first {
			if err := m.net.starts.Wait(ctx); err != nil {
				done <- result{err: err}
				return
			}
			m.wake()
		}
		interval, err := m.publishOnce(ctx, seeder)
		done <- result{interval, err}
	})
	if !ok {
		return Answer{}, ErrLeft
	}
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		r.err = ctx.Err()
	}
	return m.answer(a.NumWant, r)
}

// saysLocked notes whether the client has everything. Caller holds mu.
func (m *member) saysLocked(a Announce) {
	if a.Left != Unknown {
		m.sure = m.sure || a.Left > 0 || a.Event == Completed
		m.seeder = a.Left == 0
	}
}

type result struct {
	interval time.Duration
	err      error
}

// publishing is a publish that is under way, or was the last.
type publishing struct {
	done   chan struct{}
	seeder bool
	at     time.Time // when it began
	result
}

// publishSoon is for how long one publish answers the announces that follow
// it: a client announces each event to every tracker that a torrent names.
const publishSoon = 5 * time.Second

// publishOnce is publish, shared with who asks for the same at the same time.
func (m *member) publishOnce(ctx context.Context, seeder bool) (time.Duration, error) {
	m.mu.Lock()
	p := m.last
	if p == nil || p.seeder != seeder || time.Since(p.at) > publishSoon || p.over() && p.err != nil {
		p = &publishing{done: make(chan struct{}), seeder: seeder, at: time.Now()}
		m.last = p
		m.mu.Unlock()
		p.interval, p.err = m.publish(ctx, announce.MaxRecords)
		close(p.done)
		return p.interval, p.err
	}
	m.mu.Unlock()
	select {
	case <-p.done:
		return p.interval, p.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (p *publishing) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// askAgain is about how long after a start that found nobody the trackers are
// asked once more. Of two that start at the same moment the first finds nobody.
const askAgain = 4 * time.Second

// defaultInterval is what a client is told when no tracker said anything.
const defaultInterval = 10 * time.Minute

// aloneInterval is what it is told when it failed to reach any, or nobody is
// there: it shows its user words that are to go soon. Half of it is for the
// first answer, by which nothing is shown yet.
const aloneInterval = 2 * time.Minute

func (m *member) answer(want int, r result) (Answer, error) {
	if want < 0 || want > announce.MaxRecords {
		want = announce.MaxRecords
	}
	switch {
	case errors.Is(r.err, ErrNoTracker):
		r.interval = aloneInterval
	case r.interval == 0:
		r.interval = defaultInterval
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := Answer{Interval: r.interval, Seeders: int(m.seeds), Leechers: int(m.leeches)}
	if want > 0 {
		m.missed.asking--
		m.missed.peers = nil
	}
	if r.err != nil {
		m.missed.open()
	}
	if r.err == nil && m.union.Len() == 0 {
		out.Alone, out.Interval = m.asked > 1, min(out.Interval, aloneInterval)
		if !out.Alone {
			out.Interval = min(out.Interval, aloneInterval/2)
		}
	}
	out.Peers = m.othersLocked()
	out.Peers = out.Peers[:min(want, len(out.Peers))]
	return out, r.err
}

// doubted is how many seeders a client is given that says it has everything,
// but may not know yet what that is.
const doubted = 8

// othersLocked returns the members that are of use to this one. Two seeders have
// nothing for each other. But aria2 and webtorrent announce a magnet with
// nothing left, since they don't know the torrent's length. Until a client
// has lacked something it is therefore given some seeders as well, and each
// time the same ones, by their distance: a client that does seed finds once that
// they do too, and dials them no more. Caller holds mu.
func (m *member) othersLocked() []Key {
	var leechers, seeders []Key
	seen := make(map[Key]bool)
	for _, r := range m.union.Records() {
		switch {
		case seen[r.E]:
		case m.seeder && r.Seeder:
			seeders = append(seeders, r.E)
		default:
			leechers = append(leechers, r.E)
		}
		seen[r.E] = true
	}
	if m.sure || len(seeders) == 0 {
		return leechers
	}
	self := m.who.keys.E()
	slices.SortFunc(seeders, func(a, b Key) int { return bytes.Compare(distance(a, self), distance(b, self)) })
	return append(seeders[:min(doubted, len(seeders))], leechers...)
}

func distance(a, b Key) []byte {
	subtle.XORBytes(a[:], a[:], b[:])
	return a[:]
}

// usefulLocked reports whether somebody is known who has what this member lacks,
// or lacks what it has, by their own words. Caller holds mu.
func (m *member) usefulLocked() bool {
	return slices.ContainsFunc(m.union.Records(), func(r announce.Record) bool { return !m.seeder || !r.Seeder })
}

// publish announces to every tracker under every day of now, and takes the
// union of what they know. It fails only when no tracker answered.
func (m *member) publish(ctx context.Context, want int) (interval time.Duration, err error) {
	trackers := m.net.cfg.Trackers()
	if len(trackers) == 0 {
		return 0, ErrNotReady
	}
	if err := m.awaitBound(ctx); err != nil {
		return 0, fmt.Errorf("%w: no meeting relay: %w", ErrNotReady, err)
	}
	m.mu.Lock()
	places := m.places
	m.sequence = max(m.sequence+1, uint64(m.net.cfg.Now().Unix()))
	record := announce.Record{Sequence: m.sequence, Expiry: m.net.cfg.Now().Add(recordLife).Unix(), Seeder: m.seeder}
	m.mu.Unlock()

	var mu sync.Mutex
	var seeds, leeches uint32
	answered := 0
	var all sync.WaitGroup
	for _, t := range trackers {
		all.Go(func() {
			for _, day := range announce.Days(m.id.hash, m.net.cfg.Now()) {
				a, e := m.tell(ctx, t, day, record, want)
				mu.Lock()
				if e != nil {
					err = e
				} else {
					answered++
					interval = max(interval, a.Interval)
					seeds, leeches = max(seeds, a.Seeders), max(leeches, a.Leechers)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if answered == 0 {
		m.failed++
		if m.started {
			m.next = time.Now().Add(jitter(min(15*time.Second<<min(m.failed, 8), 5*time.Minute)))
		}
		return 0, fmt.Errorf("%w: %w", ErrNoTracker, err)
	}
	if interval <= 0 {
		interval = defaultInterval
	}
	m.seeds, m.leeches = seeds, leeches
	m.failed = 0
	m.asked++
	m.retireLocked()
	switch {
	case !m.started:
	case m.places != places: // the record names other relays than there are by now
		m.next = time.Now()
		m.wake()
	case m.again && !m.usefulLocked():
		m.again = false
		wait := jitter(m.net.again)
		m.next = time.Now().Add(wait)
		time.AfterFunc(wait, m.wake)
	default:
		m.again = false
		m.next = time.Now().Add(jitter(min(interval, recordLife/2)))
	}
	return interval, nil
}

// tellTimeout bounds one announce to one tracker.
const tellTimeout = 30 * time.Second

// tell announces to one tracker under one day, and takes in what it answers.
func (m *member) tell(ctx context.Context, t path.Relay, day announce.Day, r announce.Record, want int) (*announce.Answer, error) {
	k := m.askOf(t)
	if err := k.turn.take(ctx); err != nil {
		return nil, err
	}
	defer k.turn.give()
	if !m.started0() { // it may have been withdrawn meanwhile
		return nil, ErrLeft
	}
	as := m.keys()
	r.Meetings = m.meetings(as, day)
	if len(r.Meetings) == 0 {
		return nil, errors.New("swarm: not registered for that day yet")
	}
	name := announce.Name(m.id.hash, t.ID, day)
	for range 2 { // again when the tracker asks for a stamp
		var stamp uint64
		bits := m.stampOf(t)
		if bits > 0 {
			var err error
			tk := as.TrackerKey(t.ID, day)
			if stamp, err = announce.Mint(ctx, name, [32]byte(tk[32:]), bits); err != nil {
				return nil, err
			}
		}
		outer, err := announce.Seal(as, t.ID, day, r, stamp)
		if err != nil {
			return nil, err
		}
		if day == announce.Days(m.id.hash, m.net.cfg.Now())[0] {
			m.published(as, outer, day, t.ID, r)
		}
		// A stop does not cut it short: given up, it could reach the tracker
		// behind the withdrawal.
		sending, cancel := context.WithTimeout(m.ctx, tellTimeout)
		a, err := m.request(sending, k, t, &announce.Request{Name: name, Outer: &outer, NumWant: want})
		cancel()
		if err != nil {
			return nil, err
		}
		m.learn(t, day, name, a)
		if a.Status == announce.StampNeeded && a.StampBits > bits {
			continue
		}
		if a.Status != announce.Done {
			return nil, fmt.Errorf("swarm: the tracker did not take the record: %v", a.Status)
		}
		return a, nil
	}
	return nil, errors.New("swarm: the tracker did not take the stamp it asked for")
}

func (m *member) askOf(t path.Relay) *ask {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.asks[t.ID]
	if k == nil {
		k = &ask{turn: newTurn()}
		m.asks[t.ID] = k
	}
	return k
}

// request sends one request to tracker t, over the circuit that stands or a
// new one. Caller has k's turn.
func (m *member) request(ctx context.Context, k *ask, t path.Relay, r *announce.Request) (*announce.Answer, error) {
	body := r.Append(nil)
	var reply []byte
	err := circuit.ErrGone
	if k.circuit != nil && !over(k.circuit) {
		reply, err = k.circuit.Request(ctx, cell.RequestAnnounce, body, announce.MaxAnswer)
	}
	if errors.Is(err, circuit.ErrGone) {
		k.circuit, reply, err = m.net.cfg.Circuits.Request(ctx,
			circuit.Want{Use: circuit.ForTracker, Key: m.path, Last: t}, cell.RequestAnnounce, body, announce.MaxAnswer)
	}
	m.net.cfg.Heard(t.ID, err)
	if err != nil {
		return nil, err
	}
	return announce.ParseAnswer(reply)
}

// learn takes in the records of an answer that their owners signed, and
// stamped where this tracker asks for it: a stamp that only the tracker checks
// is one that it can waive.
func (m *member) learn(t path.Relay, day announce.Day, name [32]byte, a *announce.Answer) {
	m.mu.Lock()
	m.stamps[t.ID] = a.StampBits
	m.mu.Unlock()
	for i := range a.Records {
		o := &a.Records[i]
		if a.StampBits > 0 && !announce.Check(name, o.T, o.Stamp, a.StampBits) {
			continue
		}
		r, err := announce.OpenRecord(m.id.hash, t.ID, day, o, m.net.cfg.Now())
		if err != nil {
			continue // a tracker or a stranger made it up
		}
		m.mu.Lock()
		m.addLocked(r)
		if m.carrier.carry(newRumour(*o, r, false)) {
			m.newsLocked()
		}
		m.mu.Unlock()
	}
}

func (m *member) stampOf(t path.Relay) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stamps[t.ID]
}

// stop ends publishing, and the circuits of meeting relays that no stream uses.
func (m *member) stop() {
	m.mu.Lock()
	m.started, m.asked, m.next, m.last, m.carrier.own = false, 0, time.Time{}, nil, nil
	m.missed.close()
	m.unlive()
	var idle []*circuit.Circuit
	for id, b := range m.bound {
		if b.circuit == nil || b.busy {
			continue
		}
		if n, _ := b.circuit.Streams(); n == 0 {
			idle = append(idle, b.circuit)
			delete(m.bound, id)
		}
	}
	m.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
}

// withdraw takes the records of keys out everywhere.
func (m *member) withdraw(ctx context.Context, keys ...*announce.Member) {
	var all sync.WaitGroup
	for _, t := range m.net.cfg.Trackers() {
		all.Go(func() {
			k := m.askOf(t)
			if k.turn.take(ctx) != nil {
				return
			}
			defer k.turn.give()
			for _, day := range announce.Days(m.id.hash, m.net.cfg.Now()) {
				for _, as := range keys {
					m.request(ctx, k, t, &announce.Request{Name: announce.Name(m.id.hash, t.ID, day), Withdraw: announce.Withdraw(as, t.ID, day)})
				}
			}
		})
	}
	all.Wait()
}
