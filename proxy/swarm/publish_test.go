package swarm

import (
	"context"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/tracker/announce"
)

// TestAStartRightAfterAStopIsAnother membership, whose record stays: the
// withdrawal of the first does not overtake it.
func TestAStartRightAfterAStopIsAnother(t *testing.T) {
	w, h := newWorld(t, 3, 2), someHash()
	s, other := w.sidecar(nil), w.sidecar(nil)
	m := s.join(t, h, 0)
	for range 3 {
		m.Leave()
		joined, err := s.Join("client", h)
		if err != nil || joined == Swarm(m) || joined.Self() != m.Self() {
			t.Fatalf("joined the membership that is left, or as another: %v", err)
		}
		m = joined.(*member)
		if _, err := m.Announce(soon(t), Announce{Event: Started, Left: 1, NumWant: -1}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tr := range w.trackers {
		within(t, func() bool { return tr.held(h, time.Now()) == 1 })
	}
	meet(t, other.join(t, h, 1), m)
	<-m.Leave()
	within(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.alive == 0 && len(s.members) == 0
	})
}

// TestMembershipsThatAreLeavingCount: nobody makes more of them by stopping and
// starting than there may be.
func TestMembershipsThatAreLeavingCount(t *testing.T) {
	w := newWorld(t, 2, 1)
	s := w.sidecar(nil)
	s.join(t, someHash(), 0)
	s.mu.Lock()
	s.alive += maxMembers - 1
	s.mu.Unlock()
	if _, err := s.Join("client", someHash()); err == nil {
		t.Errorf("joined beyond %d", maxMembers)
	}
	s.mu.Lock()
	s.alive -= maxMembers - 1
	s.mu.Unlock()
}

// TestWhoMayNotKnowWhatItLacksIsGivenSeeders: a magnet is announced with nothing
// left by some clients.
func TestWhoMayNotKnowWhatItLacksIsGivenSeeders(t *testing.T) {
	w, h := newWorld(t, 3, 1), someHash()
	announced := func(m *member, a Announce) Answer {
		t.Helper()
		a.NumWant = -1
		out, err := m.Announce(soon(t), a)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	member := func() *member {
		joined, err := w.sidecar(nil).Join("client", h)
		if err != nil {
			t.Fatal(err)
		}
		return joined.(*member)
	}
	seeder, magnet := member(), member()
	announced(seeder, Announce{Event: Started, Left: 0})
	within(t, func() bool { return w.trackers[0].held(h, time.Now()) == 1 })
	for _, event := range []Event{Started, None} { // also when it asks again
		if a := announced(magnet, Announce{Event: event, Left: 0}); !slices.Contains(a.Peers, seeder.Self()) {
			t.Errorf("event %d: given %d peers, want the seeder", event, len(a.Peers))
		}
	}
	if a := announced(magnet, Announce{Left: 5}); !slices.Contains(a.Peers, seeder.Self()) {
		t.Error("the seeder is kept from one that lacks something")
	}
	for _, event := range []Event{Completed, None} {
		if a := announced(magnet, Announce{Event: event, Left: 0}); len(a.Peers) != 0 {
			t.Errorf("event %d: a seeder is given %d seeders", event, len(a.Peers))
		}
	}
}

// TestOneThatMaySeedIsGivenFewSeeders, and the same ones each time.
func TestOneThatMaySeedIsGivenFewSeeders(t *testing.T) {
	m := newWorld(t, 1, 1).sidecar(nil).join(t, someHash(), 0)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range 100 {
		r := announce.Record{Seeder: i < 90, Expiry: time.Now().Add(time.Hour).Unix()}
		rand.Read(r.S[:])
		rand.Read(r.E[:])
		m.union.Add(r)
	}
	m.sure = false
	for seeder, want := range map[bool]int{false: 100, true: doubted + 10} {
		m.seeder = seeder
		one, two := m.othersLocked(), m.othersLocked()
		if len(one) != want {
			t.Errorf("seeder %v: given %d, want %d", seeder, len(one), want)
		}
		if seeder && !slices.Equal(one[:doubted], two[:doubted]) {
			t.Error("given other seeders the second time")
		}
	}
	m.seeder, m.sure = true, true
	if n := len(m.othersLocked()); n != 10 {
		t.Errorf("one that has lacked something is given %d, want the 10 that lack something", n)
	}
}

// TestAloneIsWhoTheTrackersSaySo of, twice.
func TestAloneIsWhoTheTrackersSaySo(t *testing.T) {
	w, h := newWorld(t, 3, 1), someHash()
	s := w.sidecar(nil)
	s.again = time.Hour
	joined, err := s.Join("client", h)
	if err != nil {
		t.Fatal(err)
	}
	m := joined.(*member)
	ask := func(ctx context.Context) Answer {
		t.Helper()
		m.mu.Lock()
		m.last = nil // the next announce asks again
		m.mu.Unlock()
		a, _ := m.Announce(ctx, Announce{Left: 1, NumWant: -1})
		return a
	}
	if a := ask(soon(t)); a.Alone || a.Interval > aloneInterval/2 {
		t.Errorf("%+v by the first answer: of two that start together one is told that it is alone", a)
	}
	if a := ask(soon(t)); !a.Alone || a.Interval > aloneInterval {
		t.Errorf("alone %v, asked again after %v", a.Alone, a.Interval)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if a := ask(over); a.Alone {
		t.Error("alone although no tracker has answered")
	}
	w.sidecar(nil).join(t, h, 1)
	within(t, func() bool { a := ask(soon(t)); return !a.Alone && len(a.Peers) == 1 })
	m.Announce(soon(t), Announce{Event: Stopped})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked != 0 {
		t.Error("answers of before the stop count")
	}
}
