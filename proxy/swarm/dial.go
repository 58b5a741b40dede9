package swarm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/stream"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

// outbound is the circuit to one meeting relay of others.
type outbound struct {
	turn    turn             // while the circuit is built
	circuit *circuit.Circuit // guarded by member.mu
}

// Dial implements Swarm.
func (m *member) Dial(ctx context.Context, peer Key) (Conn, error) {
	tried, limited := false, false
	for range 2 {
		for _, r := range m.records(peer) {
			for _, at := range shuffled(r.Meetings) {
				relay, ok := m.net.cfg.Relay(at.Relay)
				if !ok {
					continue
				}
				tried = true
				conn, err := m.dialAt(ctx, r, at, relay)
				if err == nil {
					m.meet(r)
					m.spawn(func() { m.gossip(peer, conn) })
					return m.net.counted(conn), nil
				}
				limited = limited || errors.Is(err, ErrLimit)
				if ctx.Err() != nil {
					return nil, ErrUnreachable
				}
			}
		}
		// The record may be older than its owner's meeting relays.
		if _, err := m.publish(ctx, announce.MaxRecords); err != nil {
			break
		}
	}
	switch {
	case !tried:
		return nil, ErrUnknownPeer
	case limited:
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, ErrLimit)
	}
	return nil, ErrUnreachable
}

// meet notes that the owner of r has proven its E.
func (m *member) meet(r announce.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.carrier.meet(r) {
		m.newsLocked()
	}
}

func shuffled(in []announce.Meeting) []announce.Meeting {
	out := append([]announce.Meeting(nil), in...)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// records returns what is known of peer, the newest first.
func (m *member) records(peer Key) (out []announce.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.union.Records() {
		if Key(r.E) == peer {
			out = append(out, r)
		}
	}
	return out
}

// dialAt opens a stream to the owner of r at one of its meeting relays, over
// the circuit to that relay or a new one.
func (m *member) dialAt(ctx context.Context, r announce.Record, at announce.Meeting, relay path.Relay) (*stream.Conn, error) {
	token := announce.Token(at.R, at.Relay, r.Day)
	call := circuit.Call{
		Static:   stream.PrivateKey(m.keys().StreamKey()),
		Remote:   r.E,
		Token:    token,
		Prologue: announce.Prologue(m.id.hash, at.Relay, token),
		Counter:  m.count(),
		Budget:   m.net.cfg.Budget,
	}
	m.mu.Lock()
	if m.left {
		m.mu.Unlock()
		return nil, ErrLeft
	}
	o := m.outbound[at.Relay]
	if o == nil {
		o = &outbound{turn: newTurn()}
		m.outbound[at.Relay] = o
	}
	m.mu.Unlock()

	if c := m.standing(o); c != nil {
		conn, err := c.Dial(ctx, call)
		if !errors.Is(err, circuit.ErrGone) {
			return conn, err
		}
		call.Counter = m.count()
	}
	if err := o.turn.take(ctx); err != nil {
		return nil, err
	}
	defer o.turn.give()
	if c := m.standing(o); c != nil { // somebody else built it meanwhile
		return c.Dial(ctx, call)
	}
	if !m.forced.Allow() {
		return nil, fmt.Errorf("swarm: enough circuits were built for this swarm this hour: %w", ErrLimit)
	}
	c, conn, err := m.net.cfg.Circuits.Dial(ctx, circuit.Want{Use: circuit.ForPeer, Key: m.path, Last: relay}, call)
	m.mu.Lock()
	defer m.mu.Unlock()
	if c != nil {
		o.circuit = c
		if m.left {
			c.Close()
		}
	}
	return conn, err
}

func (m *member) standing(o *outbound) *circuit.Circuit {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o.circuit == nil || over(o.circuit) {
		return nil
	}
	return o.circuit
}

// count returns a number greater than any before, also than those of an
// earlier run of this sidecar.
func (m *member) count() uint64 {
	for {
		was := m.counter.Load()
		to := max(was+1, uint64(time.Now().UnixNano()))
		if m.counter.CompareAndSwap(was, to) {
			return to
		}
	}
}

// counted is a stream whose bytes count in the sidecar's totals.
type counted struct {
	*stream.Conn
	n    *Net
	once sync.Once
}

func (n *Net) counted(c *stream.Conn) Conn {
	n.open.Add(1)
	return &counted{Conn: c, n: n}
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.in.Add(uint64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.n.out.Add(uint64(n))
	return n, err
}

func (c *counted) Close() error {
	c.once.Do(func() { c.n.open.Add(-1) })
	return c.Conn.Close()
}
