package utp

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
	inFlight    = 96 << 10 // bytes on their way to a client, or from it
	fullPayload = 1384     // of a full packet of the µTP package's
	leastWindow = 3 << 10  // what a client may send us: libtorrent falters at less

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

// sent notes that data of a stand-in's connection was sent, or its SYN: many
// that begin at once would each have the whole window before the first sends.
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

// each returns what one of them may have in flight.
func (s *shares) each(now time.Time) int {
	s.turn(now)
	return inFlight / max(s.before, s.recent, 1)
}

func sends(b []byte) bool { return kind(b) == typeData || kind(b) == typeSyn }

// flows are the two directions of an association. The zero value is ready.
type flows struct{ out, in shares }

// toClient notes a packet to the client and cuts the window that it grants.
func (f *flows) toClient(standIn netip.AddrPort, b []byte, now time.Time) {
	if sends(b) {
		f.out.sent(standIn, now)
	}
	cut(b, max(f.in.each(now), leastWindow))
}

// fromClient does the same for a packet from the client. The µTP package goes
// by a window once it is overrun, so a packet is taken off.
func (f *flows) fromClient(standIn netip.AddrPort, b []byte, now time.Time) {
	if sends(b) {
		f.in.sent(standIn, now)
	}
	cut(b, max(f.out.each(now)-fullPayload, 0))
}

// cut lowers the window in a µTP packet.
func cut(b []byte, most int) {
	if int64(binary.BigEndian.Uint32(b[12:])) > int64(most) {
		binary.BigEndian.PutUint32(b[12:], uint32(most))
	}
}
