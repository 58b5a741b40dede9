package scrub

import "github.com/shoal-p2p/shoal/proxy/swarm"

// The handshake of BEP 3:
//
//	 0  1  19
//	 1 19  "BitTorrent protocol"
//	20  8  reserved bits
//	28 20  info-hash
//	48 20  peer id
const (
	protocol   = "\x13BitTorrent protocol"
	reservedAt = len(protocol)
	hashAt     = reservedAt + 8
	idAt       = hashAt + 20
	helloSize  = idAt + 20
)

// reserved are the bits that work here, see the package comment.
var reserved = [8]byte{5: 0x10, 7: 0x04}

// checkHello checks as much of a handshake as there is in b.
func checkHello(b []byte, hash *swarm.Hash) error {
	n := min(len(b), len(protocol))
	if string(b[:n]) != protocol[:n] {
		return ErrNotBitTorrent
	}
	if len(b) <= hashAt {
		return nil
	}
	n = min(len(b)-hashAt, len(hash))
	if string(b[hashAt:hashAt+n]) != string(hash[:n]) {
		return ErrWrongSwarm
	}
	return nil
}

// rewriteHello rewrites a whole handshake in place.
func rewriteHello(b []byte, show ID) {
	for i, mask := range reserved {
		b[reservedAt+i] &= mask
	}
	copy(b[idAt:helloSize], show[:])
}
