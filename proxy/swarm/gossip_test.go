package swarm

import (
	"testing"

	"github.com/shoal-p2p/shoal/tracker/announce"
)

// TestASwarmOfThreeGoesOnWithoutTrackers: the third knows one of the others
// and learns of the other from it.
func TestASwarmOfThreeGoesOnWithoutTrackers(t *testing.T) {
	w := newWorld(t, 4, 2)
	h := someHash()
	a := w.sidecar(nil).join(t, h, 0)
	b := w.sidecar(nil).join(t, h, 1)
	meet(t, b, a) // each has shown the other who it is
	c := w.sidecar(nil).join(t, h, 2)
	for _, tr := range w.trackers {
		tr.stop()
		k := c.askOf(tr.Relay) // whose last answer is taken in then
		k.turn.take(soon(t))
		k.turn.give()
	}
	c.mu.Lock() // as if the trackers had not told of a
	for _, r := range c.union.Records() {
		if Key(r.E) == a.Self() {
			forget(c, r.S)
		}
	}
	c.mu.Unlock()
	if c.knows(a.Self()) {
		t.Fatal("c knows a already")
	}
	meet(t, c, b)
	within(t, func() bool { return c.knows(a.Self()) })
	got, err := c.Announce(soon(t), Announce{Left: 1, NumWant: -1})
	if len(got.Peers) != 2 {
		t.Errorf("told the client of %d peers, want 2 (%v)", len(got.Peers), err)
	}
	meet(t, c, a)
}

// forget makes m know nothing of s. Caller holds mu.
func forget(m *member, s [32]byte) {
	old := m.union
	m.union = announce.NewUnion(maxKnown, m.who.keys.S())
	for _, r := range old.Records() {
		if r.S != s {
			m.union.Add(r)
		}
	}
	delete(m.carrier.known, s)
}
