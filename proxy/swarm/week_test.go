package swarm

import (
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

// TestAMembershipTurnsWithItsSwarm: to the keys of the new week with the first
// day of it that the swarm has, not before and not with the client's others,
// and forgets the old ones.
func TestAMembershipTurnsWithItsSwarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nobody := func() []path.Relay { return nil }
		n := New(Config{
			State: t.TempDir(), Chooser: path.New(path.Rules{}, path.NewRand(), nil, nil), Relays: nobody, Trackers: nobody,
			Relay: func(onion.ID) (path.Relay, bool) { return path.Relay{}, false }, Now: time.Now,
		})
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() { n.Run(ctx); close(over) }()
		defer func() { cancel(); <-over }()
		synctest.Wait()

		// The clock of a test begins on a Saturday.
		monday := time.Date(2000, 1, 3, 0, 0, 0, 0, time.UTC)
		time.Sleep(time.Until(monday) - time.Minute)
		var members []*member
		for range 8 {
			s, err := n.Join("client", someHash())
			if err != nil {
				t.Fatal(err)
			}
			members = append(members, s.(*member))
		}
		first := make([]Key, len(members))
		for i, m := range members {
			first[i] = m.Self()
		}
		until := func(at time.Time) { // and no client leaves without a word
			for time.Now().Before(at) {
				time.Sleep(min(time.Until(at), abandoned/2))
				for _, m := range members {
					m.touch()
				}
			}
		}
		turned := make(map[time.Time]bool)
		for i := range members {
			m := slices.MinFunc(members[i:], func(a, b *member) int { return turns(a).Compare(turns(b)) })
			j := slices.Index(members, m)
			members[i], members[j], first[i], first[j] = members[j], members[i], first[j], first[i]
			at := turns(m)
			until(at.Add(-time.Second))
			if time.Now().Before(at) && m.Self() != first[i] { // it may be close behind the one before
				t.Errorf("it turned before %v", at)
			}
			until(at.Add(2 * maintain))
			if m.Self() == first[i] {
				t.Errorf("it has not turned at %v", at)
			}
			if all := m.all(); len(all) != 2 || Key(all[1].E()) != first[i] {
				t.Error("those who knew it before can't reach it")
			}
			turned[at] = true
		}
		if len(turned) < 2 {
			t.Error("all turned at once")
		}
		until(time.Now().Add(oldLife + 2*maintain))
		for _, m := range members {
			if len(m.all()) != 1 {
				t.Error("it still has last week's keys")
			}
		}
	})
}

// turns returns when m's swarm has its first day of the week of 3 January 2000.
func turns(m *member) time.Time {
	at := time.Date(2000, 1, 3, 0, 0, 0, 0, time.UTC)
	day := announce.Day(at.Unix() / 86400)
	for _, step := range []time.Duration{time.Hour, time.Minute, time.Second} {
		for announce.Days(m.id.hash, at.Add(step))[0] < day {
			at = at.Add(step)
		}
	}
	return at.Add(time.Second)
}

// touch makes m not look abandoned.
func (m *member) touch() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = time.Now()
}

// TestStreamsOutliveAWeek: they stay when their member turns to new keys; who
// has its old record still reaches it, and its new record takes the place of
// the old at the trackers.
func TestStreamsOutliveAWeek(t *testing.T) {
	w, h := newWorld(t, 3, 2), someHash()
	a := w.sidecar(nil).join(t, h, 0)
	b := w.sidecar(nil).join(t, h, 1)
	c := w.sidecar(nil).join(t, h, 2)
	within(t, func() bool { return len(a.boundTo()) == 2 })
	out, in := meet(t, b, a)
	old, record := a.Self(), b.records(a.Self())[0]

	next := w.sidecar(nil)
	other, err := next.Join("client", h) // keys of another secret
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	a.turnLocked(other.(*member).who.keys, time.Now())
	a.mu.Unlock()
	a.wake()
	if a.Self() == old {
		t.Fatal("it did not turn")
	}

	echo := func(out, in net.Conn) {
		t.Helper()
		go out.Write([]byte("hello"))
		got := make([]byte, 5)
		in.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != "hello" {
			t.Errorf("read %q: %v", got, err)
		}
	}
	echo(out, in)

	// By the record of last week.
	relay, _ := c.net.cfg.Relay(record.Meetings[0].Relay)
	late, err := c.dialAt(soon(t), record, record.Meetings[0], relay)
	if err != nil {
		t.Fatalf("by the old record: %v", err)
	}
	if k, conn, err := a.Accept(soon(t)); err != nil || k != c.Self() {
		t.Errorf("accepted another: %v", err)
	} else {
		echo(late, conn)
	}

	// By the new one, which is the only one before long.
	within(t, func() bool {
		c.publish(soon(t), announce.MaxRecords)
		return c.knows(a.Self())
	})
	echo(meet(t, c, a))
	for _, tr := range w.trackers {
		within(t, func() bool { return tr.held(h, time.Now()) == 3*len(announce.Days(h, time.Now())) })
	}
	echo(out, in)
}
