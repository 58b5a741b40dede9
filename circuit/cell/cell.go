// Package cell is the wire between two neighbours and the messages inside a
// circuit's innermost layer: sizes, numbers, and how bytes are laid out.
// Not here: sockets, keys, clocks, goroutines.
//
// On a link, frames follow one another. A frame is a header and a body whose
// length is fixed by its command. Big endian:
//
//	0  4  circuit id, chosen by the link's dialler
//	4  1  command
//	5  1  zero
//	6  2  length of the body
//	8  …  body
//
// The body of DATA is a cell: Size bytes, sealed once per hop (package onion).
// Innermost lies a payload of Payload bytes, which holds one message:
//
//	0  4  stream number, chosen by the circuit's owner (odd) or its last hop (even)
//	4  1  message command
//	5  1  zero
//	6  2  length of the message's body
//	8  …  body; what follows it is not read
package cell

import (
	"encoding/binary"
	"fmt"
)

// Version is the first byte each side sends on a link after the TLS handshake,
// and the version byte in CREATE.
//
//	1  first
const Version = 1

const (
	// MaxHops (M) is the most layers on one circuit: four own relays and the last hop.
	MaxHops = 5

	// TagSize is what one AEAD layer adds to a cell, bytes.
	TagSize = 16

	// Size (W) is the body of every DATA frame, bytes. decisions.md says why
	// this size; BenchmarkCellSize in package onion chose it.
	Size = Payload + MaxHops*TagSize

	// Payload (P) is what is left inside all layers, bytes; the same on
	// circuits of every length, so that a meeting relay moves payloads
	// between circuits one to one.
	Payload = 4096

	// HeaderSize is the header of a frame, and of a message, bytes.
	HeaderSize = 4 + 1 + 1 + 2

	// FrameSize is a whole DATA frame, bytes.
	FrameSize = HeaderSize + Size

	// MaxMessage is the longest body of one message, bytes.
	MaxMessage = Payload - HeaderSize
)

// The sizes of CREATE and CREATED, bytes. CREATE is one byte that names the
// onion key it is sealed to, one LayerSize per hop, and the last hop's box.
const (
	LayerSize    = 1120 + 88
	EarlySize    = 1536
	CreateSize   = 1 + MaxHops*LayerSize + EarlySize
	AnswerSize   = 32 + 1 + TagSize
	CreatedSize  = MaxHops * AnswerSize
	creditSize   = 8
	destroySize  = 1
	maxFrameBody = CreateSize
)

// MaxFrame is the longest frame of any command, bytes.
const MaxFrame = HeaderSize + maxFrameBody

// ID names a circuit on one link. The link's dialler opens them all, with
// ascending ids: none is used twice on a link.
type ID uint32

// Command says what a frame is.
type Command uint8

// The commands of a link.
const (
	Create  Command = 1 // open a circuit: an onion, package onion
	Created Command = 2 // its answer
	Data    Command = 3 // one cell
	Credit  Command = 4 // cells allowed so far, cumulative, both as uint64
	Destroy Command = 5 // the circuit is over on this link: a Reason
	Padding Command = 6 // nothing; never leaves its link

	// Keepalive is nothing either, on circuit 0: its sender is there.
	Keepalive Command = 7
)

// bodySize returns the one length that command c's body has, or false when c is unknown.
func bodySize(c Command) (int, bool) {
	switch c {
	case Create:
		return CreateSize, true
	case Created:
		return CreatedSize, true
	case Data, Padding:
		return Size, true
	case Credit:
		return creditSize, true
	case Destroy:
		return destroySize, true
	case Keepalive:
		return 0, true
	}
	return 0, false
}

// Frame is one DATA frame in memory: header, then cell. Whoever is handed a
// *Frame owns it, and either hands it on or gives it back with Free.
type Frame [FrameSize]byte

// Body returns the cell within f.
func (f *Frame) Body() *[Size]byte { return (*[Size]byte)(f[HeaderSize:]) }

// Header is a frame's header.
type Header struct {
	Circuit ID
	Command Command
}

// Put writes h, with the body length its command has, into b[:HeaderSize].
func (h Header) Put(b []byte) {
	n, ok := bodySize(h.Command)
	if !ok {
		panic(fmt.Sprintf("cell: no such command %d", h.Command))
	}
	put(b, uint32(h.Circuit), uint8(h.Command), n)
}

// ParseHeader reads a frame's header from b, at least HeaderSize bytes, and
// returns it with the length of the body that follows.
func ParseHeader(b []byte) (h Header, body int, err error) {
	id, command, n, err := parse(b)
	if err != nil {
		return Header{}, 0, err
	}
	want, ok := bodySize(Command(command))
	if !ok {
		return Header{}, 0, fmt.Errorf("cell: unknown command %d", command)
	}
	if n != want {
		return Header{}, 0, fmt.Errorf("cell: command %d has length %d, want %d", command, n, want)
	}
	c := Command(command)
	if id == 0 && c != Padding && c != Keepalive || id != 0 && c == Keepalive {
		return Header{}, 0, fmt.Errorf("cell: command %d on circuit %d", command, id)
	}
	return Header{ID(id), c}, n, nil
}

// AppendCredit appends the CREDIT frame that allows total cells on circuit id, counted from its start.
func AppendCredit(b []byte, id ID, total uint64) []byte {
	b = appendHeader(b, Header{id, Credit})
	return binary.BigEndian.AppendUint64(b, total)
}

// ParseCredit reads the body of CREDIT.
func ParseCredit(body []byte) (total uint64, err error) {
	if len(body) != creditSize {
		return 0, fmt.Errorf("cell: CREDIT of %d bytes, want %d", len(body), creditSize)
	}
	return binary.BigEndian.Uint64(body), nil
}

// AppendDestroy appends the DESTROY frame of circuit id.
func AppendDestroy(b []byte, id ID, r Reason) []byte {
	b = appendHeader(b, Header{id, Destroy})
	return append(b, byte(r))
}

// AppendKeepalive appends a KEEPALIVE frame.
func AppendKeepalive(b []byte) []byte { return appendHeader(b, Header{0, Keepalive}) }

// AppendFrame appends a CREATE or CREATED frame.
func AppendFrame(b []byte, h Header, body []byte) []byte {
	if n, ok := bodySize(h.Command); !ok || n != len(body) {
		panic(fmt.Sprintf("cell: command %d with a body of %d bytes", h.Command, len(body)))
	}
	return append(appendHeader(b, h), body...)
}

func appendHeader(b []byte, h Header) []byte {
	b = append(b, make([]byte, HeaderSize)...)
	h.Put(b[len(b)-HeaderSize:])
	return b
}

func put(b []byte, id uint32, command uint8, n int) {
	binary.BigEndian.PutUint32(b, id)
	b[4], b[5] = command, 0
	binary.BigEndian.PutUint16(b[6:], uint16(n))
}

func parse(b []byte) (id uint32, command uint8, n int, err error) {
	if len(b) < HeaderSize {
		return 0, 0, 0, fmt.Errorf("cell: header of %d bytes, want %d", len(b), HeaderSize)
	}
	if b[5] != 0 {
		return 0, 0, 0, fmt.Errorf("cell: byte 5 of the header is %d, want 0", b[5])
	}
	return binary.BigEndian.Uint32(b), b[4], int(binary.BigEndian.Uint16(b[6:])), nil
}
