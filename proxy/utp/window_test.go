package utp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

func TestWindowIsSharedByThoseWhoSend(t *testing.T) {
	var s shares
	now := time.Unix(1000, 0)
	if got := s.each(now); got != inFlight {
		t.Errorf("nobody sends: %d, want %d", got, inFlight)
	}
	peer := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 1)
	}
	for range 3 {
		for i := range 4 {
			s.sent(peer(i), now)
		}
	}
	if got := s.each(now); got != inFlight/4 {
		t.Errorf("four send: %d, want %d", got, inFlight/4)
	}
	now = now.Add(shareEvery)
	s.sent(peer(0), now)
	if got := s.each(now); got != inFlight/4 {
		t.Errorf("four have just sent: %d, want %d", got, inFlight/4)
	}
	now = now.Add(shareEvery)
	if got := s.each(now); got != inFlight {
		t.Errorf("one has just sent: %d, want %d", got, inFlight)
	}
	for i := range maxFlows + 10 {
		s.sent(peer(i), now)
	}
	if got := s.each(now); got != inFlight/(maxFlows+10) || len(s.seen) > maxFlows {
		t.Errorf("thousands send: %d, want little; %d remembered", got, len(s.seen))
	}
	if got := s.each(now.Add(time.Hour)); got != inFlight {
		t.Errorf("nobody sends any more: %d, want %d", got, inFlight)
	}
}

func TestWindowsAreCutInBothDirections(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		senders  int
		out, in  int // the windows that reach the µTP package and the client
		original uint32
	}{
		{1, inFlight - fullPayload, inFlight, 1 << 20},
		{4, inFlight/4 - fullPayload, inFlight / 4, 1<<32 - 1},
		{60, inFlight/60 - fullPayload, leastWindow, 1 << 20},
		{1000, 0, leastWindow, 1 << 20},
		{1, 500, 500, 500},
		{1, 0, 0, 0},
	} {
		var f flows
		var peer netip.AddrPort
		for i := range c.senders {
			peer = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 1)
			b := make([]byte, headerSize)
			b[0] = []byte{typeData, typeSyn}[i%2] << 4 // who begins is about to send
			f.toClient(peer, b, now)
			f.fromClient(peer, b, now)
		}
		b := make([]byte, headerSize)
		window := func() int { return int(binary.BigEndian.Uint32(b[12:])) }
		binary.BigEndian.PutUint32(b[12:], c.original)
		if f.fromClient(peer, b, now); window() != c.out {
			t.Errorf("%d send: the µTP package may send %d, want %d", c.senders, window(), c.out)
		}
		binary.BigEndian.PutUint32(b[12:], c.original)
		if f.toClient(peer, b, now); window() != c.in {
			t.Errorf("%d send: the client may send %d, want %d", c.senders, window(), c.in)
		}
	}
}
