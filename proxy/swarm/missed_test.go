package swarm

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

// TestWhoIsLearnedOfAfterTheAnswerIsToldLater: a client is not as patient as
// the trackers are slow.
func TestWhoIsLearnedOfAfterTheAnswerIsToldLater(t *testing.T) {
	w, h := newWorld(t, 3, 1), someHash()
	slow := make(chan struct{})
	w.trackers[0].slow = slow
	var all [2]*member
	for i := range all {
		s := w.sidecar(nil)
		s.again = 200 * time.Millisecond
		joined, err := s.Join("client", h)
		if err != nil {
			t.Fatal(err)
		}
		all[i] = joined.(*member)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		a, err := all[i].Announce(ctx, Announce{Event: Started, Left: 1, NumWant: -1})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || len(a.Peers) != 0 {
			t.Fatalf("Announce = %v, %v", a, err)
		}
	}
	within(t, func() bool { return w.trackers[0].waiting.Load() == 2 })
	close(slow)
	for i, m := range all { // one of them by asking again
		peers, err := m.Later(soon(t))
		if err != nil || len(peers) != 1 || peers[0] != all[1-i].Self() {
			t.Errorf("Later = %v, %v", peers, err)
		}
	}
}

// TestWhoTheAnswerWillNameIsNotMissed: one tracker's peers are known long before
// another tracker has answered, and the client with it.
func TestWhoTheAnswerWillNameIsNotMissed(t *testing.T) {
	w, h := newWorld(t, 3, 2), someHash()
	slow := make(chan struct{})
	w.trackers[1].slow = slow
	other := w.sidecar(func(c *Config) {
		c.Trackers = func() []path.Relay { return []path.Relay{w.trackers[0].Relay} }
	}).join(t, h, 0).Self()
	joined, err := w.sidecar(nil).Join("client", h)
	if err != nil {
		t.Fatal(err)
	}
	m := joined.(*member)
	answered := make(chan Answer, 1)
	go func() {
		a, _ := m.Announce(soon(t), Announce{Event: Started, Left: 1, NumWant: -1})
		answered <- a
	}()
	within(t, func() bool { return m.knows(other) })
	none, cancel := context.WithCancel(t.Context())
	cancel()
	if peers, _ := m.Later(none); len(peers) != 0 {
		t.Errorf("of %d peers it is told before it is answered", len(peers))
	}
	close(slow)
	if a := <-answered; len(a.Peers) != 1 || a.Peers[0] != other {
		t.Errorf("the answer names %d peers", len(a.Peers))
	}
	if peers, _ := m.Later(none); len(peers) != 0 {
		t.Errorf("of %d peers it is told once more", len(peers))
	}
}

// TestNobodyIsToldTwice: neither who was named in an answer, nor after a while.
func TestNobodyIsToldTwice(t *testing.T) {
	w, h := newWorld(t, 3, 1), someHash()
	other := w.sidecar(nil).join(t, h, 0).Self()
	m := w.sidecar(nil).join(t, h, 1)
	within(t, func() bool { // or it is learned of in the midst of what follows
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.union.Knows(other)
	})
	record := func(e byte, seeder bool) announce.Record {
		return announce.Record{S: [32]byte{e}, E: [32]byte{e}, Sequence: 1, Seeder: seeder}
	}
	none, cancel := context.WithCancel(t.Context())
	cancel()
	m.Later(none)
	for _, c := range []struct {
		what   string
		record announce.Record
		seeder bool
		until  time.Duration
		want   int
	}{
		{"another leecher", record(1, false), false, time.Minute, 1},
		{"the same once more", record(1, false), false, time.Minute, 0},
		{"another seeder, to a seeder", record(2, true), true, time.Minute, 0},
		{"a leecher, to a seeder", record(3, false), true, time.Minute, 1},
		{"long after the answer", record(4, false), false, -time.Second, 0},
	} {
		m.mu.Lock()
		m.seeder, m.missed.until = c.seeder, time.Now().Add(c.until)
		m.addLocked(c.record)
		got := m.missed.peers
		m.mu.Unlock()
		if len(got) != c.want {
			t.Errorf("%s: %d peers are to be told, want %d", c.what, len(got), c.want)
		}
		if peers, _ := m.Later(none); len(peers) != c.want {
			t.Errorf("%s: Later = %v", c.what, peers)
		}
	}
	for e := range byte(2 * announce.MaxRecords) {
		m.mu.Lock()
		m.seeder, m.missed.until = false, time.Now().Add(time.Minute)
		m.addLocked(record(100+e, false))
		n := len(m.missed.peers)
		m.mu.Unlock()
		if n > announce.MaxRecords {
			t.Fatalf("%d peers are to be told", n)
		}
	}
	if _, err := m.Announce(soon(t), Announce{NumWant: -1}); err != nil {
		t.Fatal(err)
	}
	if peers, _ := m.Later(none); len(peers) != 0 {
		t.Errorf("after an answer %d peers are to be told", len(peers))
	}
}

// TestAStartThatFindsNobodyAsksOnceMore and only once.
func TestAStartThatFindsNobodyAsksOnceMore(t *testing.T) {
	w, h := newWorld(t, 3, 1), someHash()
	one := func(c *Config) { c.Meetings = 1 } // a second would make the record change
	alone := w.sidecar(one)
	alone.again = 10 * time.Millisecond
	m := alone.join(t, h, 0)
	asked := func(n int) func() bool {
		return func() bool {
			took, _ := w.trackers[0].counts()
			m.mu.Lock()
			defer m.mu.Unlock()
			return took == n && time.Until(m.next) > 10*time.Minute
		}
	}
	within(t, asked(2))
	other := w.sidecar(one)
	other.again = 10 * time.Millisecond
	o := other.join(t, h, 1)
	o.mu.Lock()
	defer o.mu.Unlock()
	if took, _ := w.trackers[0].counts(); took != 3 || time.Until(o.next) < 10*time.Minute {
		t.Errorf("who found somebody announced %d times, and will in %v", took-2, time.Until(o.next))
	}
}
