package onion

import (
	"crypto/cipher"

	"golang.org/x/crypto/chacha20"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// mask is the layer of a hop that is not the last on cells towards the client:
// a key stream over the whole cell, as the cells come. It has no tag, for the
// client takes off all layers at once and the last hop's tag covers what is
// under this one: a cell that was changed, dropped, repeated or put elsewhere
// dies there. docs/decisions.md says what a tag of each hop's would add.
//
// The stream is AES-256-CTR from a counter of zero, or ChaCha20 with a nonce of
// zero; after rekeyAfter cells the key becomes the next one, as a Direction's
// does. One goroutine at a time may use a mask.
type mask struct {
	suite  Suite
	stream cipher.Stream // nil: cleared
	key    [keySize]byte
	count  uint64 // cells
}

func newMask(s Suite, key [keySize]byte) mask {
	m := mask{suite: s, key: key}
	if s == ChaCha20 {
		c, err := chacha20.NewUnauthenticatedCipher(key[:], make([]byte, chacha20.NonceSize))
		if err != nil {
			panic(err) // the lengths are ours
		}
		m.stream = c
	} else {
		m.stream = keystream(&m.key)
	}
	return m
}

// apply puts the layer on b, or takes it off, into dst; dst is b, or they do not
// overlap. A cleared mask erases dst, so that nothing goes out without it.
func (m *mask) apply(dst, b *[cell.Size]byte) {
	if m.stream == nil {
		clear(dst[:])
		return
	}
	m.stream.XORKeyStream(dst[:], b[:])
	if m.count++; m.count == rekeyAfter {
		*m = newMask(m.suite, nextKey(&m.key))
	}
}

func (m *mask) clear() { *m = mask{suite: m.suite} }
