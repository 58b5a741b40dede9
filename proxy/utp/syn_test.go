package utp

import (
	"net/netip"
	"testing"
	"time"
)

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

		stays bool // the client does not turn to TCP
	}{
		{synKey{at(1), 10}, 0, nil, refuse, false},                                                // try TCP
		{synKey{at(1), 11}, 0, nil, open, false},                                                  // it won't
		{synKey{at(1), 11}, time.Second, nil, drop, false},                                        // being opened
		{synKey{at(1), 11}, 0, func() { s.opened(synKey{at(1), 11}, true, now) }, through, false}, // its answer was lost
		{synKey{at(1), 12}, 0, func() { s.opened(synKey{at(1), 12}, false, now) }, open, false},   // a second one
		{synKey{at(1), 11}, 2 * synFor, nil, refuse, false},                                       // long forgotten
		{synKey{at(2), 10}, 0, nil, refuse, false},                                                // another peer
		{synKey{at(2), 11}, 0, func() { s.connected(at(2).Addr()) }, refuse, false},               // it did TCP
		{synKey{at(2), 12}, refusedFor, nil, refuse, false},                                       // too long ago
		{synKey{at(3), 10}, 0, nil, open, true},                                                   // it would not
	} {
		now = now.Add(step.wait)
		if i == 3 || i == 7 {
			step.do()
		}
		if got := s.judge(step.k, !step.stays, now); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	for i := range maxSyns + maxSyns/2 {
		s.judge(synKey{at(i), 1}, true, now)
		s.judge(synKey{at(i), 2}, true, now)
	}
	if len(s.refused) > maxSyns || len(s.conns) > maxSyns || s.opening > maxDials {
		t.Errorf("%d refused, %d conns, %d opening are kept", len(s.refused), len(s.conns), s.opening)
	}
}
