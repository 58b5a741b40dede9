package socks

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

func TestWindowIsSharedByThoseWhoSend(t *testing.T) {
	var s shares
	now := time.Unix(1000, 0)
	if got := s.each(now); got != utpInFlight {
		t.Errorf("nobody sends: %d, want %d", got, utpInFlight)
	}
	peer := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 1)
	}
	for range 3 {
		for i := range 4 {
			s.sent(peer(i), now)
		}
	}
	if got := s.each(now); got != utpInFlight/4 {
		t.Errorf("four send: %d, want %d", got, utpInFlight/4)
	}
	now = now.Add(shareEvery)
	s.sent(peer(0), now)
	if got := s.each(now); got != utpInFlight/4 {
		t.Errorf("four have just sent: %d, want %d", got, utpInFlight/4)
	}
	now = now.Add(shareEvery)
	if got := s.each(now); got != utpInFlight {
		t.Errorf("one has just sent: %d, want %d", got, utpInFlight)
	}
	for i := range maxFlows + 10 {
		s.sent(peer(i), now)
	}
	if got := s.each(now); got != utpInFlight/(maxFlows+10) || len(s.seen) > maxFlows {
		t.Errorf("thousands send: %d, want little; %d remembered", got, len(s.seen))
	}
	if got := s.each(now.Add(time.Hour)); got != utpInFlight {
		t.Errorf("nobody sends any more: %d, want %d", got, utpInFlight)
	}
}

func TestWindowsAreCutInBothDirections(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		senders  int
		out, in  int // the windows that reach the µTP package and the client
		original uint32
	}{
		{1, utpInFlight - utpPayload, utpInFlight, 1 << 20},
		{4, utpInFlight/4 - utpPayload, utpInFlight / 4, 1<<32 - 1},
		{60, utpInFlight/60 - utpPayload, utpLeast, 1 << 20},
		{1000, 0, utpLeast, 1 << 20},
		{1, 500, 500, 500},
		{1, 0, 0, 0},
	} {
		var f flows
		var peer netip.AddrPort
		for i := range c.senders {
			peer = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 1)
			data := make([]byte, utpHeaderSize)
			f.toClient(peer, data, now)
			f.fromClient(peer, data, now)
		}
		b := make([]byte, utpHeaderSize)
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

func TestSYNsAreJudged(t *testing.T) {
	s := newSyns()
	now := time.Unix(1000, 0)
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 6881)
	}
	for i, step := range []struct {
		k    synKey
		wait time.Duration
		do   func()
		want verdict
	}{
		{synKey{at(1), 10}, 0, nil, refuse},                                                // try TCP
		{synKey{at(1), 11}, 0, nil, open},                                                  // it won't
		{synKey{at(1), 11}, time.Second, nil, drop},                                        // being opened
		{synKey{at(1), 11}, 0, func() { s.opened(synKey{at(1), 11}, true, now) }, through}, // its answer was lost
		{synKey{at(1), 12}, 0, func() { s.opened(synKey{at(1), 12}, false, now) }, open},   // a second one
		{synKey{at(1), 11}, 2 * synFor, nil, refuse},                                       // long forgotten
		{synKey{at(2), 10}, 0, nil, refuse},                                                // another peer
		{synKey{at(2), 11}, 0, func() { s.connected(at(2).Addr()) }, refuse},               // it did TCP
		{synKey{at(2), 12}, refusedFor, nil, refuse},                                       // too long ago
	} {
		now = now.Add(step.wait)
		if i == 3 || i == 7 {
			step.do()
		}
		if got := s.judge(step.k, now); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	for i := range maxSyns + maxSyns/2 {
		s.judge(synKey{at(i), 1}, now)
		s.judge(synKey{at(i), 2}, now)
	}
	if len(s.refused) > maxSyns || len(s.conns) > maxSyns || s.opening > maxDials {
		t.Errorf("%d refused, %d conns, %d opening are kept", len(s.refused), len(s.conns), s.opening)
	}
}

// TestFINOnAClosedConnectionIsAcknowledged: libtorrent 2.0.8 would not close before.
func TestFINOnAClosedConnectionIsAcknowledged(t *testing.T) {
	packet := func(kind byte, id, seq uint16) []byte {
		b := make([]byte, utpHeaderSize)
		b[0] = kind<<4 | 1
		binary.BigEndian.PutUint16(b[2:], id)
		binary.BigEndian.PutUint16(b[16:], seq)
		return b
	}
	now := time.Unix(1000, 0)
	a, b := netip.MustParseAddrPort("198.18.5.5:6881"), netip.MustParseAddrPort("198.18.5.6:6881")
	f := make(fins)
	f.sent(a, packet(utpData, 101, 7), now)
	if f.answer(a, packet(utpFin, 100, 55), now) != nil {
		t.Error("a FIN was answered on a connection that is open")
	}
	f.sent(a, packet(utpFin, 101, 8), now)
	for name, c := range map[string]struct {
		from netip.AddrPort
		p    []byte
		at   time.Time
	}{
		"data":               {a, packet(utpData, 100, 55), now},
		"another connection": {a, packet(utpFin, 103, 55), now},
		"another stand-in":   {b, packet(utpFin, 100, 55), now},
		"long after":         {a, packet(utpFin, 100, 55), now.Add(2 * finFor)},
	} {
		if f.answer(c.from, c.p, c.at) != nil {
			t.Errorf("%s was answered", name)
		}
	}
	for _, id := range []uint16{100, 102} { // whoever opened it
		p := packet(utpFin, id, 55)
		ack := f.answer(a, p, now)
		if ack == nil || utpType(ack) != utpState || utpConnID(ack) != 101 || utpSequence(ack) != 8 || binary.BigEndian.Uint16(ack[18:]) != 55 || !isUTP(ack) {
			t.Errorf("answered %x", ack)
		}
		if utpType(p) != utpState {
			t.Errorf("the FIN goes on as %x", p)
		}
	}
	for i := range maxFlows + 10 {
		f.sent(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 1), packet(utpFin, 1, 1), now)
	}
	if len(f) > maxFlows {
		t.Errorf("%d are remembered", len(f))
	}
	f.sent(b, packet(utpFin, 1, 1), now.Add(2*finFor))
	if len(f) != 1 {
		t.Errorf("%d are remembered that are long over", len(f))
	}
}
