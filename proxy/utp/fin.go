package utp

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// fins remembers which µTP connections we have closed. The µTP package forgets
// such a connection the moment it has sent its FIN, and answers the client's
// own FIN with resets. libtorrent (2.0.8) ignores those, and does not close
// its connection before its FIN is acknowledged: for ten seconds it would take
// no other from that stand-in.
type fins map[netip.AddrPort]fin

type fin struct {
	at  time.Time
	id  uint16 // connection, as in our packets
	seq uint16 // of our FIN
}

const finFor = time.Minute // how long a FIN may be answered

// sent notes a packet of ours.
func (f fins) sent(standIn netip.AddrPort, b []byte, now time.Time) {
	if kind(b) != typeFin {
		return
	}
	if len(f) >= maxFlows {
		for a, c := range f {
			if now.Sub(c.at) > finFor {
				delete(f, a)
			}
		}
	}
	if len(f) < maxFlows {
		f[standIn] = fin{now, connection(b), sequence(b)}
	}
}

// answer returns the acknowledgment of b, if it is the client's FIN on a
// connection that we have closed, and makes b one that only acknowledges.
func (f fins) answer(standIn netip.AddrPort, b []byte, now time.Time) []byte {
	if kind(b) != typeFin {
		return nil
	}
	c, ok := f[standIn]
	if diff := c.id - connection(b); !ok || diff != 1 && diff != ^uint16(0) || now.Sub(c.at) > finFor {
		return nil
	}
	ack := make([]byte, headerSize)
	ack[0] = typeState<<4 | 1
	binary.BigEndian.PutUint16(ack[2:], c.id)
	binary.BigEndian.PutUint32(ack[4:], uint32(now.UnixMicro()))
	binary.BigEndian.PutUint32(ack[12:], inFlight)
	binary.BigEndian.PutUint16(ack[16:], c.seq)
	binary.BigEndian.PutUint16(ack[18:], sequence(b))
	b[0] = typeState<<4 | 1
	return ack
}
