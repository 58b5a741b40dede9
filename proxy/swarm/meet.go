package swarm

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/stream"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

// binding is one meeting relay of this member's.
type binding struct {
	relay   onion.ID
	circuit *circuit.Circuit // nil while it is built
	here    map[registration]bool
	busy    bool      // being built or registered
	retry   time.Time // not before
	fails   int       // in a row, at this place among the meeting relays
	lost    bool      // the circuit could not be built, or died: another relay's turn
}

// registration is under whose keys, and for which day.
type registration struct {
	as  *announce.Member
	day announce.Day
}

const (
	stoodFor = time.Minute // a circuit that dies sooner counts as one that could not be built
	maxLost  = 4           // relays that are not drawn again at once
)

// bind has as many meeting relays registered for the days of now as there are
// to be. It starts what is missing and does not wait.
func (m *member) bind() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return
	}
	var want []registration
	for _, d := range announce.Days(m.id.hash, m.net.cfg.Now()) {
		want = append(want, registration{m.who.keys, d})
	}
	var have []onion.ID
	var lost []*binding
	for id, b := range m.bound {
		if b.circuit != nil && over(b.circuit) && !b.busy {
			if time.Since(b.circuit.Born()) > stoodFor {
				b.fails = 0
			}
			b.lose()
			time.AfterFunc(time.Until(b.retry), m.wake)
			m.signalLocked()
		}
		if b.lost && !b.busy {
			delete(m.bound, id)
			m.lost = append(m.lost, id)
			lost = append(lost, b)
			continue
		}
		have = append(have, id)
	}
	m.lost = m.lost[max(0, len(m.lost)-maxLost):]
	for len(have) < m.net.cfg.Meetings {
		relays := m.net.cfg.Relays()
		r, err := m.net.cfg.Chooser.ChooseMeeting(relays, 1, slices.Concat(m.lost, have)...)
		if err != nil { // a small network: one of those once more
			r, err = m.net.cfg.Chooser.ChooseMeeting(relays, 1, have...)
		}
		if err != nil {
			break
		}
		b := &binding{relay: r[0].ID}
		if len(lost) > 0 {
			b.fails, b.retry = lost[0].fails, lost[0].retry
			lost = lost[1:]
		}
		m.bound[b.relay] = b
		have = append(have, b.relay)
	}
	for _, b := range m.bound {
		if b.busy || time.Now().Before(b.retry) {
			continue
		}
		for _, r := range want {
			if b.circuit == nil || !b.here[r] {
				b.busy = true
				m.work.Go(func() { m.register(b, want) })
				break
			}
		}
	}
}

// lose says that b's circuit is no more, and when the next one may be built.
func (b *binding) lose() {
	b.circuit, b.here, b.lost = nil, nil, true
	b.fails++
	b.retry = time.Now().Add(jitter(backoff(b.fails)))
}

func backoff(fails int) time.Duration {
	return min(time.Second<<min(fails-1, 8), 5*time.Minute)
}

// signalLocked tells all who wait that bound has changed. Caller holds mu.
func (m *member) signalLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// register builds b's circuit if need be and registers for all of want.
func (m *member) register(b *binding, want []registration) {
	ctx, cancel := context.WithTimeout(m.ctx, 30*time.Second)
	defer cancel()
	m.mu.Lock()
	c := b.circuit
	var missing []registration
	for _, r := range want {
		if c == nil || !b.here[r] {
			missing = append(missing, r)
		}
	}
	m.mu.Unlock()
	err := m.registerOn(ctx, b, &c, missing)
	m.mu.Lock()
	defer m.mu.Unlock()
	b.busy = false
	if err != nil {
		if c != nil {
			c.Close()
		}
		b.lose()
		m.wake()
		time.AfterFunc(time.Until(b.retry), m.wake)
	} else {
		if n, _ := c.Streams(); m.left || !m.started && n == 0 { // as stop would have, if it could wait
			c.Close()
			delete(m.bound, b.relay)
			m.signalLocked()
			return
		}
		fresh := b.circuit != c
		b.circuit = c
		here := make(map[registration]bool)
		for r := range b.here {
			if r.as == m.who.old { // answered as long as it is kept
				here[r] = true
			}
		}
		for _, r := range want {
			here[r] = true
		}
		b.here = here
		if fresh {
			m.work.Go(func() { // a circuit that dies is replaced at once, not at the next tick
				select {
				case <-c.Done():
					m.wake()
				case <-m.ctx.Done():
				}
			})
		}
		m.places++
		if !m.next.IsZero() { // the record names other relays than it did
			m.next = time.Now()
			m.wake()
		}
	}
	m.signalLocked()
}

func (m *member) registerOn(ctx context.Context, b *binding, c **circuit.Circuit, missing []registration) error {
	if *c == nil {
		relay, ok := m.net.cfg.Relay(b.relay)
		if !ok {
			return errors.New("swarm: the meeting relay has left the directory")
		}
		var err error
		*c, err = m.net.cfg.Circuits.Build(ctx, circuit.Want{Use: circuit.ForInbound, Key: m.path, Last: relay, Visit: m.visited})
		if err != nil {
			return err
		}
	}
	for _, r := range missing {
		r := announce.SignRegister(r.as, b.relay, (*c).Confirm(), r.day)
		if err := (*c).Register(ctx, r.Append(nil)); err != nil {
			return err
		}
	}
	return nil
}

// meetings returns what the record of as says of where to meet under day.
func (m *member) meetings(as *announce.Member, day announce.Day) []announce.Meeting {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []announce.Meeting
	for id, b := range m.bound {
		if b.circuit != nil && b.here[registration{as, day}] && len(out) < announce.MaxMeetings {
			out = append(out, as.Meeting(id, day))
		}
	}
	return out
}

// awaitBound waits until the member can be met somewhere.
func (m *member) awaitBound(ctx context.Context) error {
	for {
		m.mu.Lock()
		changed := m.changed
		ready := false
		for _, b := range m.bound {
			ready = ready || b.circuit != nil && b.serves(m.who.keys)
		}
		m.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-m.ctx.Done():
			return ErrLeft
		}
	}
}

// visited answers a stream that somebody opens at one of the meeting relays.
func (m *member) visited(c *circuit.Circuit, v circuit.Visitor) {
	as, relay, ok := m.tokenRelay(c, v.Token)
	if !ok {
		c.Refuse(v, cell.UnknownToken)
		return
	}
	keys, answer, peer, counter, err := stream.Respond(stream.PrivateKey(as.StreamKey()),
		announce.Prologue(m.id.hash, relay, v.Token), v.Message)
	if err != nil {
		c.Refuse(v, cell.Protocol)
		return
	}
	if !m.counters.Accept(peer, counter) {
		c.Refuse(v, cell.Replayed)
		return
	}
	conn, err := c.Accept(v, keys, answer, m.net.cfg.Budget)
	if err != nil {
		return
	}
	select {
	case <-conn.Confirmed():
	case <-time.After(confirmWait):
		conn.Close()
		return
	case <-c.Done():
		return
	case <-m.ctx.Done():
		conn.Close()
		return
	}
	select {
	case m.arrived <- arrival{Key(peer), conn}:
		m.spawn(func() { m.gossip(Key(peer), conn) })
	default:
		conn.Close() // nobody takes them: the client is not there
	}
}

// tokenRelay returns under whose keys, and at which relay, token of circuit c
// is registered.
func (m *member) tokenRelay(c *circuit.Circuit, token [32]byte) (*announce.Member, onion.ID, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, b := range m.bound {
		if b.circuit != c && !b.busy {
			continue
		}
		for _, as := range m.who.all() {
			for _, d := range append(announce.Days(m.id.hash, m.net.cfg.Now()), b.days(as)...) {
				if announce.Token(as.Meeting(id, d).R, id, d) == token {
					return as, id, true
				}
			}
		}
	}
	return nil, onion.ID{}, false
}

// days returns the days that as is registered for at b.
func (b *binding) days(as *announce.Member) (out []announce.Day) {
	for r := range b.here {
		if r.as == as {
			out = append(out, r.day)
		}
	}
	return out
}

// serves reports whether as is registered at b.
func (b *binding) serves(as *announce.Member) bool { return len(b.days(as)) > 0 }
