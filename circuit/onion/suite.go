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

// rekeyAfter is how many seals one key makes. 2^24 of them stay far below what
// one GCM key may seal, and bound what a stolen key tells about the past.
const rekeyAfter = 1 << 24

// Direction is one direction under one key: it only seals or only opens, in
// order, from one goroutine at a time. The nonce is 4 zero bytes and a uint64
// that counts; after rekeyAfter the key becomes HKDF-Expand(key, "rekey") and
// the count starts again. A copy of a Direction that seals must not be used.
type Direction struct {
	suite Suite
	aead  cipher.AEAD // nil: cleared, or failed; nothing opens any more
	key   [keySize]byte
	count uint64
	nonce [12]byte // here rather than on the stack, whence the AEAD's interface would move it to the heap
}

// NewDirection returns the direction of a key of 32 bytes, which it copies.
func NewDirection(s Suite, key []byte) Direction {
	d := Direction{suite: s, key: [keySize]byte(key)}
	d.aead = s.new(&d.key)
	return d
}

// Seal seals all but the last cell.TagSize bytes of b into b. On a cleared
// Direction it erases b, so that nothing goes out without its seal.
func (d *Direction) Seal(b []byte) {
	if d.aead == nil {
		clear(b)
		return
	}
	d.aead.Seal(b[:0], d.next(), b[:len(b)-cell.TagSize], nil)
	d.step()
}

// Open opens b into dst[:len(b)-cell.TagSize]; dst is b, or they do not overlap.
// After an error dst is worthless, and every later call fails as well.
func (d *Direction) Open(dst, b []byte) error {
	if d.aead == nil {
		return errOpen
	}
	if _, err := d.aead.Open(dst[:0], d.next(), b, nil); err != nil {
		d.Clear()
		return errOpen
	}
	d.step()
	return nil
}

func (d *Direction) next() []byte {
	binary.BigEndian.PutUint64(d.nonce[4:], d.count)
	return d.nonce[:]
}

func (d *Direction) step() {
	if d.count++; d.count < rekeyAfter {
		return
	}
	k := nextKey(&d.key)
	*d = NewDirection(d.suite, k[:])
}

// nextKey returns the key that follows key.
func nextKey(key *[keySize]byte) [keySize]byte {
	k, err := hkdf.Expand(sha256.New, key[:], rekeyInfo, keySize)
	if err != nil {
		panic(err) // the length is ours
	}
	return [keySize]byte(k)
}

// Clear erases the key. The expanded key inside the standard library's cipher
// can't be erased, only dropped.
func (d *Direction) Clear() { *d = Direction{suite: d.suite} }
