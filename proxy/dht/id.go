package dht

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash/crc32"
	"net/netip"
)

// nodeID returns the id of the node at addr: the same each time, and one that
// BEP 42 allows for its address.
func (n *Node) nodeID(addr netip.Addr) (id [20]byte) {
	addr = addr.Unmap()
	copy(id[:], n.mac("id", addr.AsSlice()))
	secure(&id, addr)
	return id
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// secure sets the 21 bits of id that BEP 42 ties to the address and to the
// random id[19].
func secure(id *[20]byte, addr netip.Addr) {
	mask := []byte{0x03, 0x0f, 0x3f, 0xff}
	if addr.Is6() {
		mask = []byte{0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff}
	}
	ip := addr.AsSlice()
	if len(ip) == 0 {
		return
	}
	b := make([]byte, len(mask))
	for i := range b {
		b[i] = ip[i] & mask[i]
	}
	b[0] |= id[19] & 7 << 5
	crc := crc32.Checksum(b, castagnoli)
	id[0], id[1], id[2] = byte(crc>>24), byte(crc>>16), byte(crc>>8)&0xf8|id[2]&7
}

// mac is a keyed hash of parts, none of which varies in length but the last.
func (n *Node) mac(label string, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, n.cfg.Key[:])
	m.Write([]byte(label))
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}
