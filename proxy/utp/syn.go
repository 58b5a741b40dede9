package utp

import (
	"net/netip"
	"sync"
	"time"
)

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

// syns decides about the SYNs of one client. One that turns to TCP at a reset
// is refused once: by TCP it hears what became of the peer, and moves several
// times more. If it comes again by µTP, and not by TCP, it is taken.
type syns struct {
	mu      sync.Mutex
	refused map[netip.Addr]time.Time // stand-ins that were not dialled by TCP since
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

// judge decides about a SYN to a stand-in; turns says if its sender is one that
// turns to TCP.
func (s *syns) judge(k synKey, turns bool, now time.Time) verdict {
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
	if turns && (!again || now.Sub(at) >= refusedFor) {
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
