package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// Hash is a v1 info-hash. Its torrent need not exist: nothing here is checked.
type Hash [20]byte

// RandomHash returns a swarm that nobody else is in.
func RandomHash() (h Hash) {
	for i := range h {
		h[i] = byte(rand.Uint32())
	}
	return h
}

const (
	protocol  = "\x13BitTorrent protocol"
	helloSize = len(protocol) + 8 + 20 + 20

	msgRequest = 6
	msgPiece   = 7

	headSize  = 4 + 1
	blockSize = 16 << 10
	pieceSize = headSize + 4 + 4 + blockSize
)

// hello returns a handshake (BEP 3) without any extension.
func hello(h Hash) []byte {
	b := make([]byte, 0, helloSize)
	b = append(b, protocol...)
	b = append(b, make([]byte, 8)...)
	b = append(b, h[:]...)
	b = append(b, "-SB0001-"...)
	for len(b) < helloSize {
		b = append(b, 'a'+byte(rand.IntN(26)))
	}
	return b
}

// readHello reads the other side's handshake and returns its swarm.
func readHello(r io.Reader) (h Hash, err error) {
	var b [helloSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return h, fmt.Errorf("peer: handshake: %w", err)
	}
	if string(b[:len(protocol)]) != protocol {
		return h, errors.New("peer: no BitTorrent handshake")
	}
	copy(h[:], b[len(protocol)+8:])
	return h, nil
}

// order is what a sink asks of a source: BEP 3's request, with fields of its
// own meaning. Piece is the mebibytes to send at most and begin the
// milliseconds to do so at most; with zero mebibytes the answer is one piece
// with a block of length bytes.
type order struct{ mebibytes, milliseconds, length uint32 }

const orderSize = headSize + 3*4

func (o order) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, orderSize-4)
	b = append(b, msgRequest)
	b = binary.BigEndian.AppendUint32(b, o.mebibytes)
	b = binary.BigEndian.AppendUint32(b, o.milliseconds)
	return binary.BigEndian.AppendUint32(b, o.length)
}

// maxMessage bounds what a sidecar puts between orders, bytes.
const maxMessage = 64 << 10

// readOrder returns the next order; what else comes is skipped.
func readOrder(r io.Reader) (o order, err error) {
	var head [4]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return o, err
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > maxMessage {
			return o, fmt.Errorf("peer: message of %d bytes, at most %d", n, maxMessage)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return o, err
		}
		if n != orderSize-4 || b[0] != msgRequest {
			continue
		}
		o = order{binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint32(b[5:]), binary.BigEndian.Uint32(b[9:])}
		if o.length > blockSize {
			return o, fmt.Errorf("peer: block of %d bytes, at most %d", o.length, blockSize)
		}
		return o, nil
	}
}

// piece returns a piece message with a block of n bytes of noise.
func piece(n int) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+4+4+n))
	b = append(b, msgPiece)
	b = append(b, make([]byte, 8)...)
	for range n {
		b = append(b, byte(rand.Uint32()))
	}
	return b
}

// maxBulk is how long a source sends at most, whatever it is asked for.
const maxBulk = 10 * time.Minute
