package socks

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// The header of a UDP packet between client and relay (RFC 1928, 7):
//
//	0  2  zero
//	2  1  fragment: 0, no others are taken
//	3  1  kind of address: 1 IPv4, 3 name, 4 IPv6
//	4  …  address; a name has its length in front
//	…  2  port
const (
	kindIPv4 = 1
	kindName = 3
	kindIPv6 = 4

	headerIPv4 = 4 + 4 + 2 // size of a header with an IPv4 address
)

var (
	errHeader   = errors.New("socks: no UDP header")
	errFragment = errors.New("socks: fragments are not taken")
)

// udpHeader is where a packet goes to or comes from.
type udpHeader struct {
	addr netip.Addr // zero when name is set
	name string
	port uint16
}

// parseHeader returns a packet's header and what follows it, in place.
func parseHeader(b []byte) (h udpHeader, body []byte, err error) {
	if len(b) < 4 || b[0] != 0 || b[1] != 0 {
		return h, nil, errHeader
	}
	if b[2] != 0 {
		return h, nil, errFragment
	}
	kind, rest := b[3], b[4:]
	size := 0
	switch kind {
	case kindIPv4:
		size = 4
	case kindIPv6:
		size = 16
	case kindName:
		if len(rest) < 1 || rest[0] == 0 {
			return h, nil, errHeader
		}
		size, rest = int(rest[0]), rest[1:]
	default:
		return h, nil, errHeader
	}
	if len(rest) < size+2 {
		return h, nil, errHeader
	}
	if kind == kindName {
		h.name = string(rest[:size])
	} else {
		h.addr, _ = netip.AddrFromSlice(rest[:size])
	}
	h.port = binary.BigEndian.Uint16(rest[size:])
	return h, rest[size+2:], nil
}

// append appends the header of a packet that comes from h.
func (h udpHeader) append(b []byte) []byte {
	b = append(b, 0, 0, 0)
	switch {
	case h.name != "":
		b = append(b, kindName, byte(len(h.name)))
		b = append(b, h.name...)
	case h.addr.Is4():
		b = append(b, kindIPv4)
		b = append(b, h.addr.AsSlice()...)
	default:
		b = append(b, kindIPv6)
		b = append(b, h.addr.AsSlice()...)
	}
	return binary.BigEndian.AppendUint16(b, h.port)
}

// addrPort returns the address, without an IPv4 one's IPv6 clothes.
func (h udpHeader) addrPort() netip.AddrPort { return netip.AddrPortFrom(h.addr.Unmap(), h.port) }
