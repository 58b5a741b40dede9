package socks

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// The µTP package has no congestion control: on each of its connections it
// sends whatever the other side's window allows. Here all of them share two
// sockets of this computer, whose buffers overflow at some hundred packets and
// whose round trip is next to nothing. So each packet's window is cut down to
// a share of what the buffer behind it holds.
const (
	utpInFlight = 96 << 10 // bytes on their way to a client, or from it
	utpLeast    = 2 << 10  // a share is no less: a packet and some

	shareEvery = 50 * time.Millisecond // who has sent in such a time has a share
	maxFlows   = 4096
)

// shares counts who sends in one direction. The zero value is ready.
type shares struct {
	seen   map[netip.AddrPort]int64 // when a connection has sent, in shareEvery
	now    int64
	recent int // that have sent in now
	before int // that did in the time before
}

// sent notes that data of a stand-in's connection was sent.
func (s *shares) sent(standIn netip.AddrPort, now time.Time) {
	s.turn(now)
	if s.seen == nil || len(s.seen) >= maxFlows {
		s.seen = make(map[netip.AddrPort]int64)
	}
	if last, ok := s.seen[standIn]; !ok || last != s.now {
		s.seen[standIn] = s.now
		s.recent++
	}
}

func (s *shares) turn(now time.Time) {
	t := now.UnixNano() / int64(shareEvery)
	if t == s.now {
		return
	}
	s.before = 0
	if t == s.now+1 {
		s.before = s.recent
	}
	s.now, s.recent = t, 0
}

// window returns what one of them may have in flight.
func (s *shares) window(now time.Time) uint32 {
	s.turn(now)
	return uint32(max(utpInFlight/max(s.before, s.recent, 1), utpLeast))
}

// share notes a µTP packet and cuts the window that it grants for the other
// direction.
func share(sent, granted *shares, standIn netip.AddrPort, b []byte, now time.Time) {
	if utpType(b) == utpData {
		sent.sent(standIn, now)
	}
	cut(b, granted.window(now))
}

// cut lowers the window that a µTP packet grants.
func cut(b []byte, most uint32) {
	if binary.BigEndian.Uint32(b[12:]) > most {
		binary.BigEndian.PutUint32(b[12:], most)
	}
}
