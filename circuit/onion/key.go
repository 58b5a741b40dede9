package onion

import (
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
)

// ID is a relay's identity: its Ed25519 public key. The zero ID names nobody.
type ID [ed25519.PublicKeySize]byte

// shortSize is how many characters of an ID logs show.
const shortSize = 8

// String returns id in the form that ParseID reads, 43 characters.
func (id ID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// Short returns the first characters of String: enough to find a relay in a
// log, and what logs use.
func (id ID) Short() string { return id.String()[:shortSize] }

// LogValue is Short.
func (id ID) LogValue() slog.Value { return slog.StringValue(id.Short()) }

// ParseID reads what String wrote, and nothing else.
func ParseID(s string) (ID, error) {
	var id ID
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(id) || base64.RawURLEncoding.EncodeToString(b) != s {
		return ID{}, fmt.Errorf("%.50q is not an identity: want %d characters of A-Z, a-z, 0-9, - and _", s, base64.RawURLEncoding.EncodedLen(len(id)))
	}
	copy(id[:], b)
	return id, nil
}

const (
	// PublicKeySize is an onion key as descriptors carry it, bytes.
	PublicKeySize = 1216

	// PrivateKeySize is an onion key as a relay stores it, bytes: the seed.
	PrivateKeySize = 32
)

func kem() hpke.KEM   { return hpke.MLKEM768X25519() }
func kdf() hpke.KDF   { return hpke.HKDFSHA256() }
func aead() hpke.AEAD { return hpke.AES256GCM() }

// PublicKey is a relay's onion key, MLKEM768-X25519, with the number that
// names it in CREATE and changes when the relay rotates its key. It is
// comparable; the zero PublicKey is no key.
type PublicKey struct {
	// The bytes rather than the parsed form, which is five times as large: a
	// directory holds thousands, a circuit needs a handful.
	raw    string
	number byte
}

// ParsePublicKey reads the PublicKeySize bytes of the onion key called number.
// It keeps no reference to b.
func ParsePublicKey(b []byte, number byte) (PublicKey, error) {
	if len(b) != PublicKeySize {
		return PublicKey{}, fmt.Errorf("onion: public key of %d bytes, want %d", len(b), PublicKeySize)
	}
	if !reduced(b[:coefficients*12/8]) {
		return PublicKey{}, errors.New("onion: public key with a coefficient that is not reduced")
	}
	return PublicKey{string(b), number}, nil
}

// ML-KEM-768's part of a public key is three polynomials and a seed.
const (
	coefficients = 3 * 256
	modulus      = 3329
)

// reduced reports whether all numbers of 12 bits in b, low bits first, are below
// ML-KEM's modulus. Besides its length that is all that can be wrong with a
// public key (FIPS 203, 7.2; any 32 bytes are an X25519 key), and what crypto/hpke
// checks before it expands the seed, which costs thirty times as much and is of
// use only to those who seal to the key.
func reduced(b []byte) bool {
	for i := 0; i < len(b); i += 3 {
		pair := uint32(b[i]) | uint32(b[i+1])<<8 | uint32(b[i+2])<<16
		if pair&0xfff >= modulus || pair>>12 >= modulus {
			return false
		}
	}
	return true
}

// Bytes returns a copy of the key without its number, PublicKeySize bytes.
func (k PublicKey) Bytes() []byte { return []byte(k.raw) }

// Number names the key among its relay's.
func (k PublicKey) Number() byte { return k.number }

// IsZero reports whether k is no key.
func (k PublicKey) IsZero() bool { return k.raw == "" }

// PrivateKey opens what is sealed to its PublicKey. It may be used by several
// goroutines at once. Forget it, and its file, when it is rotated out: until
// then it opens the CREATEs that were sent to it.
type PrivateKey struct {
	key    hpke.PrivateKey
	seed   [PrivateKeySize]byte
	public PublicKey
}

// GenerateKey makes an onion key called number.
func GenerateKey(number byte) (*PrivateKey, error) {
	k, err := kem().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("onion: generate key: %w", err)
	}
	b, err := k.Bytes()
	if err != nil {
		return nil, fmt.Errorf("onion: generate key: %w", err)
	}
	defer clear(b)
	return ParsePrivateKey(b, number)
}

// ParsePrivateKey reads what Bytes returned, PrivateKeySize bytes. It keeps no
// reference to b.
func ParsePrivateKey(b []byte, number byte) (*PrivateKey, error) {
	if len(b) != PrivateKeySize {
		return nil, fmt.Errorf("onion: private key of %d bytes, want %d", len(b), PrivateKeySize)
	}
	k, err := kem().NewPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("onion: private key: %w", err)
	}
	return &PrivateKey{k, [PrivateKeySize]byte(b), PublicKey{string(k.PublicKey().Bytes()), number}}, nil
}

// Public returns the key that CREATEs are sealed to.
func (k *PrivateKey) Public() PublicKey { return k.public }

// Bytes returns a copy of the secret, without the key's number.
func (k *PrivateKey) Bytes() []byte { b := k.seed; return b[:] }

// String says only which key this is, so that no log shows the secret.
func (k *PrivateKey) String() string { return fmt.Sprintf("onion key %d", k.public.number) }

// GoString is String.
func (k *PrivateKey) GoString() string { return k.String() }

// LogValue is String.
func (k *PrivateKey) LogValue() slog.Value { return slog.StringValue(k.String()) }
