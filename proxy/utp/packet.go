package utp

import "encoding/binary"

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
	headerSize = 20
	maxPacket  = 8192 // what the µTP package reads

	typeData  = 0
	typeFin   = 1
	typeState = 2
	typeReset = 3
	typeSyn   = 4
	types     = 5
)

// Is says if b is a packet that the µTP package may be given. It knows no
// error in a packet but a panic, so what it can't mean is kept from it.
func Is(b []byte) bool {
	if len(b) < headerSize || len(b) > maxPacket || b[0]&0xf != 1 || b[0]>>4 >= types {
		return false
	}
	ext, rest := b[1], b[headerSize:]
	for ext != 0 {
		if len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return false
		}
		ext, rest = rest[0], rest[2+int(rest[1]):]
	}
	return true
}

func kind(b []byte) byte         { return b[0] >> 4 }
func connection(b []byte) uint16 { return binary.BigEndian.Uint16(b[2:]) }
func window(b []byte) uint32     { return binary.BigEndian.Uint32(b[12:]) }
func sequence(b []byte) uint16   { return binary.BigEndian.Uint16(b[16:]) }

// turns says if who sent a SYN turns to TCP when it is refused, as libtorrent
// does, which alone names no window in it. Others don't: Transmission (3.00)
// gives the peer up for a quarter of an hour.
func turns(syn []byte) bool { return syn[1] == 0 && window(syn) == 0 }

// resetFor returns the packet that refuses a SYN. The client hears it under
// the SYN's own connection id; libtorrent then tries TCP within a millisecond,
// which it does after four seconds when it hears nothing.
func resetFor(syn []byte) []byte {
	b := make([]byte, headerSize)
	b[0] = typeReset<<4 | 1
	binary.BigEndian.PutUint16(b[2:], connection(syn))
	binary.BigEndian.PutUint16(b[18:], sequence(syn))
	return b
}
