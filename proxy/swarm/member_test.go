package swarm

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/stream"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

func TestJoinIsTheSameMembershipUntilItIsLeft(t *testing.T) {
	s := newWorld(t, 2, 1).sidecar(nil)
	h := someHash()
	first, err := s.Join("one", h)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := s.Join("one", h)
	other, _ := s.Join("two", h)
	if again != first || other == first || other.Self() == first.Self() {
		t.Error("a membership is not that of one client and swarm")
	}
	if got := s.Members("one"); len(got) != 1 || got[0] != first {
		t.Errorf("a member of %v", got)
	}
	<-first.Leave()
	if len(s.Members("one")) != 0 {
		t.Error("still a member after Leave")
	}
	if _, err := first.Announce(soon(t), Announce{}); !errors.Is(err, ErrLeft) {
		t.Errorf("Announce after Leave: %v", err)
	}
	if again, _ = s.Join("one", h); again == first || again.Self() != first.Self() {
		t.Error("joining again gave the membership that was left, or another key")
	}
}

func TestStreamsCarryBytesAndAreCounted(t *testing.T) {
	w, h := newWorld(t, 3, 1), someHash()
	sa, sb := w.sidecar(nil), w.sidecar(nil)
	a := sa.join(t, h, 0)
	b := sb.join(t, h, 1)
	out, in := meet(t, b, a)
	go func() { out.Write([]byte("hello")); out.CloseWrite() }()
	if got, err := io.ReadAll(in); err != nil || string(got) != "hello" {
		t.Errorf("read %q: %v", got, err)
	}
	if open, _, n := sb.Streams(); open != 1 || n != 5 {
		t.Errorf("%d streams, %d bytes out", open, n)
	}
	out.Close()
	in.Close()
	if open, _, _ := sb.Streams(); open != 0 {
		t.Errorf("%d streams open after Close", open)
	}
}

func TestStoppedWithdrawsTheRecord(t *testing.T) {
	w, h := newWorld(t, 3, 2), someHash()
	m := w.sidecar(nil).join(t, h, 0)
	for _, tr := range w.trackers {
		within(t, func() bool { return tr.held(h, time.Now()) > 0 })
	}
	if _, err := m.Announce(soon(t), Announce{Event: Stopped}); err != nil {
		t.Fatal(err)
	}
	for _, tr := range w.trackers {
		if n := tr.held(h, time.Now()); n != 0 {
			t.Errorf("a tracker holds %d records", n)
		}
	}
	if n := len(m.boundTo()); n != 0 {
		t.Errorf("it can still be met at %d relays", n)
	}
	if _, err := m.Announce(soon(t), Announce{Event: Started, Left: 1}); err != nil {
		t.Errorf("starting again: %v", err)
	}
	within(t, func() bool { return w.trackers[0].held(h, time.Now()) > 0 })
}

// TestTheRecordNamesBothMeetingRelays, also when one took longer than the first publish.
func TestTheRecordNamesBothMeetingRelays(t *testing.T) {
	w, h := newWorld(t, 4, 1), someHash()
	w.sidecar(nil).join(t, h, 0)
	b := w.sidecar(nil)
	within(t, func() bool {
		m := b.join(t, h, 1)
		m.mu.Lock()
		defer m.mu.Unlock()
		rs := m.union.Records()
		return len(rs) == 1 && len(rs[0].Meetings) == 2
	})
}

func TestDialTriesTheOtherMeetingRelay(t *testing.T) {
	for range 3 { // the first tried is a matter of chance
		w, h := newWorld(t, 2, 1), someHash()
		a := w.sidecar(nil).join(t, h, 0)
		within(t, func() bool { return len(a.boundTo()) == 2 })
		b := w.sidecar(nil).join(t, h, 1)
		within(t, func() bool {
			r := b.records(a.Self())
			if len(r) == 1 && len(r[0].Meetings) == 2 {
				return true
			}
			b.publish(soon(t), 50)
			return false
		})
		w.relays[0].stop()
		meet(t, b, a)
	}
}

// TestADeadMeetingRelayIsReplaced and the record says so.
func TestADeadMeetingRelayIsReplaced(t *testing.T) {
	w, h := newWorld(t, 5, 1), someHash()
	a := w.sidecar(nil).join(t, h, 0)
	within(t, func() bool { return len(a.boundTo()) == 2 })
	b := w.sidecar(nil).join(t, h, 1)
	for _, r := range w.relays {
		if r.ID == a.boundTo()[0] {
			r.stop()
			within(t, func() bool { return !slices.Contains(a.boundTo(), r.ID) })
			break
		}
	}
	within(t, func() bool {
		b.publish(soon(t), 50)
		r := b.records(a.Self())
		if len(r) != 1 || len(r[0].Meetings) != 2 {
			return false
		}
		now := a.boundTo()
		return slices.Contains(now, r[0].Meetings[0].Relay) && slices.Contains(now, r[0].Meetings[1].Relay)
	})
}

// TestVisitorsWhoProveNothingAreRefused: a wrong token, a message for another
// relay, and one that was sent before.
func TestVisitorsWhoProveNothingAreRefused(t *testing.T) {
	w, h := newWorld(t, 2, 1), someHash()
	a := w.sidecar(nil).join(t, h, 0)
	within(t, func() bool { return len(a.boundTo()) == 2 })
	visitor := w.sidecar(nil)
	key, _ := stream.GenerateKey()
	day := announce.Days(h, time.Now())[0]
	call := func(at, bound onion.ID, counter uint64) error {
		m := a.keys().Meeting(at, day)
		token := announce.Token(m.R, at, day)
		relay, _ := visitor.cfg.Relay(at)
		_, conn, err := visitor.circuits.Dial(soon(t), circuit.Want{Use: circuit.ForPeer, Key: path.Key{1}, Last: relay},
			circuit.Call{Static: key, Remote: a.Self(), Token: token, Prologue: announce.Prologue(h, bound, token), Counter: counter})
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return err
	}
	one, other := w.relays[0].ID, w.relays[1].ID
	if err := call(one, one, 7); err != nil {
		t.Fatal(err)
	}
	for what, try := range map[string]struct {
		at, bound onion.ID
		counter   uint64
		want      cell.Reason
	}{
		"the same counter at another relay": {other, other, 7, cell.Replayed},
		"a message made for another relay":  {one, other, 8, cell.Protocol},
	} {
		var refused *circuit.RefusedError
		if err := call(try.at, try.bound, try.counter); !errors.As(err, &refused) || refused.Reason != try.want {
			t.Errorf("%s: %v, want %v", what, err, try.want)
		}
	}
	if _, _, ok := a.tokenRelay(nil, [32]byte{1}); ok {
		t.Error("a token that nobody registered was found")
	}
}

func TestCircuitsThatOthersForceAreCapped(t *testing.T) {
	w, h := newWorld(t, 3, 1), someHash()
	a := w.sidecar(nil).join(t, h, 0)
	b := w.sidecar(nil).join(t, h, 1)
	if !b.forced.AllowN(time.Now(), forcedHour) {
		t.Fatal("there is less to begin with")
	}
	if _, err := b.Dial(soon(t), a.Self()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("Dial = %v, want %v", err, ErrUnreachable)
	}
	if _, err := b.Dial(soon(t), Key{1}); !errors.Is(err, ErrUnknownPeer) {
		t.Errorf("Dial of nobody = %v, want %v", err, ErrUnknownPeer)
	}
}

func TestLeaveEndsEverything(t *testing.T) {
	w, h := newWorld(t, 3, 1), someHash()
	sa, sb := w.sidecar(nil), w.sidecar(nil)
	a, b := sa.join(t, h, 0), sb.join(t, h, 1)
	out, in := meet(t, b, a)
	<-b.Leave()
	if _, err := in.Read(make([]byte, 1)); err == nil {
		t.Error("the peer's stream goes on")
	}
	if _, err := out.Write([]byte("x")); err == nil {
		t.Error("the stream goes on")
	}
	if _, _, err := b.Accept(soon(t)); !errors.Is(err, ErrLeft) {
		t.Errorf("Accept = %v", err)
	}
	if _, err := b.Dial(soon(t), a.Self()); err == nil {
		t.Error("dialled after Leave")
	}
	if n := w.trackers[0].held(h, time.Now()); n != 1 {
		t.Errorf("the tracker holds %d records, want the other one's", n)
	}
	sa.stop()
	sb.stop()
	within(t, func() bool { return !strings.Contains(stacks(), "proxy/swarm.(*member)") })
	within(t, func() bool { return len(sb.circuits.Circuits()) == 0 })
}

func stacks() string {
	b := make([]byte, 1<<20)
	return string(b[:runtime.Stack(b, true)])
}

// TestLeaveDoesNotWaitForATrackerThatIsSilent for longer than it gives a withdrawal.
func TestLeaveDoesNotWaitForATrackerThatIsSilent(t *testing.T) {
	w := newWorld(t, 2, 1)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	w.trackers[0].Addr = silent.Addr().(*net.TCPAddr).AddrPort()
	s := w.sidecar(nil)
	m, _ := s.Join("client", someHash())
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.Announce(ctx, Announce{Event: Started, Left: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Announce = %v", err)
	}
	began := time.Now()
	<-m.Leave()
	if took := time.Since(began); took > tellTimeout { // what a record may take
		t.Errorf("Leave took %v, want about %v", took, leaveWait)
	}
}

// TestBothDaysAreRegisteredAroundTheChange and announced to the trackers.
func TestBothDaysAreRegisteredAroundTheChange(t *testing.T) {
	w := newWorld(t, 3, 1)
	now := time.Now
	if s := now().Unix() % 86400; s < 5400 || s > 86400-5400 { // no swarm's day changes near midnight
		shift := 3 * time.Hour // within the day that the relays have
		if s > 5400 {
			shift = -shift
		}
		now = func() time.Time { return time.Now().Add(shift) }
		w.trackers[0].now = now
	}
	var h Hash
	for len(announce.Days(h, now())) != 2 {
		rand.Read(h[:])
	}
	m := w.sidecar(func(c *Config) { c.Now = now }).join(t, h, 0)
	days := announce.Days(h, now())
	within(t, func() bool { return len(m.meetings(m.keys(), days[0])) == 2 && len(m.meetings(m.keys(), days[1])) == 2 })
	within(t, func() bool { return w.trackers[0].held(h, now()) == 2 })
	if _, err := m.Announce(soon(t), Announce{Event: Stopped}); err != nil {
		t.Fatal(err)
	}
	if n := w.trackers[0].held(h, now()); n != 0 {
		t.Errorf("after Stopped the tracker holds %d records", n)
	}
}

// TestATrackersStampIsMinted: readers check it too.
func TestATrackersStampIsMinted(t *testing.T) {
	w, h := newWorld(t, 3, 1), someHash()
	w.trackers[0].bits = 8
	a := w.sidecar(nil).join(t, h, 0)
	b := w.sidecar(nil).join(t, h, 1)
	meet(t, b, a)
}
