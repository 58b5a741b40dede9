package socks

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"
)

// The header of µTP (BEP 29):
//
//	 0  1  type << 4 | version
//	 1  1  kind of the first extension, 0 for none
//	 2  2  connection id
//	 4  4  time
//	 8  4  difference of time
//	12  4  window
//	16  2  sequence number
//	18  2  acknowledged number
const (
	utpHeaderSize = 20
	utpMaxPacket  = 8192 // what the µTP package reads

	utpData  = 0
	utpFin   = 1
	utpState = 2
	utpReset = 3
	utpSyn   = 4
	utpTypes = 5
)

// isUTP says if b is a packet that the µTP package may be given. It knows no
// error in a packet but a panic, so what it can't mean is kept from it.
func isUTP(b []byte) bool {
	if len(b) < utpHeaderSize || len(b) > utpMaxPacket || b[0]&0xf != 1 || b[0]>>4 >= utpTypes {
		return false
	}
	ext, rest := b[1], b[utpHeaderSize:]
	for ext != 0 {
		if len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return false
		}
		ext, rest = rest[0], rest[2+int(rest[1]):]
	}
	return true
}

func utpType(b []byte) byte       { return b[0] >> 4 }
func utpConnID(b []byte) uint16   { return binary.BigEndian.Uint16(b[2:]) }
func utpSequence(b []byte) uint16 { return binary.BigEndian.Uint16(b[16:]) }

// resetFor returns the packet that refuses a SYN. The client hears it under
// the SYN's own connection id; libtorrent then tries TCP within a millisecond,
// which it does after four seconds when it hears nothing.
func resetFor(syn []byte) []byte {
	b := make([]byte, utpHeaderSize)
	b[0] = utpReset<<4 | 1
	binary.BigEndian.PutUint16(b[2:], utpConnID(syn))
	binary.BigEndian.PutUint16(b[18:], utpSequence(syn))
	return b
}

// synKey names a connection that the client opens.
type synKey struct {
	addr netip.AddrPort // the stand-in
	id   uint16
}

// What to do with a SYN.
type verdict uint8

const (
	drop    verdict = iota
	refuse          // with a reset
	open            // reach the peer, then let the SYN through
	through         // a repeated SYN of a connection that stands
)

// The limits of what is kept about SYNs.
const (
	maxSyns    = 1024
	maxDials   = 128              // µTP connections being opened at once
	refusedFor = 10 * time.Second // how long a refused stand-in is remembered
	synFor     = time.Minute      // how long a connection's SYN may be repeated
)

// syns decides about the SYNs of one association. A client that tries µTP
// first is refused once, at which it turns to TCP at once: through a SOCKS
// CONNECT it hears what became of the peer, and moves several times more. If
// it comes again by µTP, and not by TCP, it is taken.
type syns struct {
	mu      sync.Mutex
	refused map[netip.Addr]time.Time // stand-ins that no CONNECT came for since
	conns   map[synKey]syn
	opening int
}

type syn struct {
	at   time.Time
	open bool // the peer is being reached
}

func newSyns() syns {
	return syns{refused: make(map[netip.Addr]time.Time), conns: make(map[synKey]syn)}
}

// judge decides about a SYN to a stand-in.
func (s *syns) judge(k synKey, now time.Time) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.conns[k]; ok && now.Sub(c.at) < synFor {
		if c.open {
			return drop
		}
		return through
	}
	s.forget(now)
	at, again := s.refused[k.addr.Addr()]
	if !again || now.Sub(at) >= refusedFor {
		if len(s.refused) < maxSyns {
			s.refused[k.addr.Addr()] = now
		}
		return refuse
	}
	if len(s.conns) >= maxSyns || s.opening >= maxDials {
		return drop
	}
	s.conns[k] = syn{at: now, open: true}
	s.opening++
	return open
}

// forget drops what is too old to matter.
func (s *syns) forget(now time.Time) {
	if len(s.refused) >= maxSyns {
		for a, at := range s.refused {
			if now.Sub(at) >= refusedFor {
				delete(s.refused, a)
			}
		}
	}
	if len(s.conns) >= maxSyns {
		for k, c := range s.conns {
			if !c.open && now.Sub(c.at) >= synFor {
				delete(s.conns, k)
			}
		}
	}
}

// opened ends what an open verdict began.
func (s *syns) opened(k synKey, ok bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening--
	if ok {
		s.conns[k] = syn{at: now}
	} else {
		delete(s.conns, k)
	}
}

// connected notes that the client came by TCP.
func (s *syns) connected(standIn netip.Addr) {
	s.mu.Lock()
	delete(s.refused, standIn)
	s.mu.Unlock()
}
