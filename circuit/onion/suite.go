package onion

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// Suite is the AEAD of a relay's cell layers. It stands in the relay's
// descriptor, one per relay: a client that could choose would stand out by it.
type Suite uint8

// The suites.
const (
	AES256GCM Suite = 0 // where the processor has AES
	ChaCha20  Suite = 1 // ChaCha20-Poly1305, elsewhere
)

// Valid reports whether s is a suite that this version knows.
func (s Suite) Valid() bool { return s <= ChaCha20 }

func (s Suite) String() string {
	switch s {
	case AES256GCM:
		return "aes-256-gcm"
	case ChaCha20:
		return "chacha20-poly1305"
	}
	return fmt.Sprintf("suite %d", uint8(s))
}

func (s Suite) new(key *[keySize]byte) cipher.AEAD {
	if s == ChaCha20 {
		a, err := chacha20poly1305.New(key[:])
		if err != nil {
			panic(err) // the key's length is ours
		}
		return a
	}
	return newGCM(key[:])
}

// rekeyAfter is how many cells one key seals. 2^24 of them stay far below what
// one GCM key may seal, and bound what a stolen key tells about the past.
const rekeyAfter = 1 << 24

// half is one direction of one hop's layer: it only seals or only opens.
type half struct {
	suite Suite
	aead  cipher.AEAD // nil: cleared, or failed; nothing opens any more
	key   [keySize]byte
	count uint64
	nonce [12]byte // here rather than on the stack, whence the AEAD's interface would move it to the heap
}

func newHalf(s Suite, key []byte) half {
	h := half{suite: s, key: [keySize]byte(key)}
	h.aead = s.new(&h.key)
	return h
}

// seal seals all but the last cell.TagSize bytes of b into b. On a cleared
// half it erases b, so that nothing goes out without its layer.
func (h *half) seal(b []byte) {
	if h.aead == nil {
		clear(b)
		return
	}
	h.aead.Seal(b[:0], h.next(), b[:len(b)-cell.TagSize], nil)
	h.step()
}

// open opens b into b[:len(b)-cell.TagSize].
func (h *half) open(b []byte) error {
	if h.aead == nil {
		return errOpen
	}
	if _, err := h.aead.Open(b[:0], h.next(), b, nil); err != nil {
		h.clear()
		return errOpen
	}
	h.step()
	return nil
}

func (h *half) next() []byte {
	binary.BigEndian.PutUint64(h.nonce[4:], h.count)
	return h.nonce[:]
}

func (h *half) step() {
	if h.count++; h.count < rekeyAfter {
		return
	}
	k, err := hkdf.Expand(sha256.New, h.key[:], rekeyInfo, keySize)
	if err != nil {
		panic(err) // the length is ours
	}
	*h = newHalf(h.suite, k)
	clear(k)
}

func (h *half) clear() { *h = half{suite: h.suite} }
