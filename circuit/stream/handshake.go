package stream

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/flynn/noise"
)

const (
	labelInitiator = "shoal/1 stream from initiator"
	labelResponder = "shoal/1 stream from responder"
)

// errHandshake is all that a refused handshake message says, whatever was wrong with it.
var errHandshake = errors.New("stream: handshake refused")

var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherAESGCM, noise.HashBLAKE2b)

// PrivateKey is the secret half of E: the X25519 key that a peer is known by
// inside one swarm.
type PrivateKey [32]byte

// GenerateKey makes a fresh key.
func GenerateKey() (PrivateKey, error) {
	var k PrivateKey
	_, err := rand.Read(k[:])
	return k, err
}

// Public returns E.
func (k PrivateKey) Public() [32]byte {
	p, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		panic(err) // 32 bytes are always a key
	}
	return [32]byte(p.PublicKey().Bytes())
}

// LogValue keeps the key out of every log.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue("(private key)") }

// String is redacted like LogValue.
func (PrivateKey) String() string { return "(private key)" }

// GoString is redacted like LogValue.
func (PrivateKey) GoString() string { return "(private key)" }

// Keys are what a finished handshake gives: New takes them, once.
type Keys struct {
	seal, open [32]byte
	initiator  bool
}

// Initiator is the opener between message 1 and message 2.
type Initiator struct {
	state *noise.HandshakeState
	kem   *mlkem.DecapsulationKey768
}

// Initiate begins a stream to the peer whose E is remote. The counter must
// grow with each stream to that peer: the clock in nanoseconds.
func Initiate(static PrivateKey, remote [32]byte, prologue []byte, counter uint64) (*Initiator, []byte, error) {
	ephemeral, err := GenerateKey()
	if err != nil {
		return nil, nil, err
	}
	kem, err := mlkem.GenerateKey768()
	if err != nil {
		return nil, nil, err
	}
	return initiate(static, remote, prologue, counter, ephemeral, kem)
}

func initiate(static PrivateKey, remote [32]byte, prologue []byte, counter uint64, ephemeral PrivateKey, kem *mlkem.DecapsulationKey768) (*Initiator, []byte, error) {
	state, err := newState(true, static, remote[:], prologue, ephemeral)
	if err != nil {
		return nil, nil, err
	}
	payload := binary.BigEndian.AppendUint64(kem.EncapsulationKey().Bytes(), counter)
	msg1, _, _, err := state.WriteMessage(make([]byte, 0, Message1Size), payload)
	if err != nil {
		return nil, nil, fmt.Errorf("stream: %w", err)
	}
	return &Initiator{state, kem}, msg1, nil
}

// Finish reads the answer. It can be tried once.
func (i *Initiator) Finish(msg2 []byte) (*Keys, error) {
	if len(msg2) != Message2Size {
		return nil, fmt.Errorf("stream: second handshake message of %d bytes, want %d", len(msg2), Message2Size)
	}
	ciphertext, forward, back, err := i.state.ReadMessage(nil, msg2)
	if err != nil || len(ciphertext) != mlkem.CiphertextSize768 {
		return nil, errHandshake
	}
	shared, err := i.kem.Decapsulate(ciphertext)
	if err != nil {
		return nil, errHandshake
	}
	return newKeys(i.state, true, forward, back, shared)
}

// Respond reads message 1 and answers it. It returns who opens, proven by the
// key of its handshake, and its counter: the caller asks Counters before it
// sends msg2, and lets nothing reach the client before Conn.Confirmed.
func Respond(static PrivateKey, prologue, msg1 []byte) (k *Keys, msg2 []byte, remote [32]byte, counter uint64, err error) {
	ephemeral, err := GenerateKey()
	if err != nil {
		return nil, nil, remote, 0, err
	}
	encapsulate := func(key *mlkem.EncapsulationKey768) (shared, ciphertext []byte, err error) {
		shared, ciphertext = key.Encapsulate()
		return shared, ciphertext, nil
	}
	return respond(static, prologue, msg1, ephemeral, encapsulate)
}

func respond(static PrivateKey, prologue, msg1 []byte, ephemeral PrivateKey, encapsulate func(*mlkem.EncapsulationKey768) (shared, ciphertext []byte, err error)) (k *Keys, msg2 []byte, remote [32]byte, counter uint64, err error) {
	refuse := func(err error) (*Keys, []byte, [32]byte, uint64, error) {
		return nil, nil, [32]byte{}, 0, err
	}
	if len(msg1) != Message1Size {
		return refuse(fmt.Errorf("stream: first handshake message of %d bytes, want %d", len(msg1), Message1Size))
	}
	state, err := newState(false, static, nil, prologue, ephemeral)
	if err != nil {
		return refuse(err)
	}
	payload, _, _, err := state.ReadMessage(nil, msg1)
	if err != nil || len(payload) != mlkem.EncapsulationKeySize768+8 {
		return refuse(errHandshake)
	}
	key, err := mlkem.NewEncapsulationKey768(payload[:mlkem.EncapsulationKeySize768])
	if err != nil {
		return refuse(errHandshake)
	}
	shared, ciphertext, err := encapsulate(key)
	if err != nil {
		return refuse(err)
	}
	msg2, forward, back, err := state.WriteMessage(make([]byte, 0, Message2Size), ciphertext)
	if err != nil {
		return refuse(errHandshake) // the opener's ephemeral key is no key
	}
	if k, err = newKeys(state, false, forward, back, shared); err != nil {
		return refuse(err)
	}
	counter = binary.BigEndian.Uint64(payload[mlkem.EncapsulationKeySize768:])
	return k, msg2, [32]byte(state.PeerStatic()), counter, nil
}

func newState(initiator bool, static PrivateKey, remote, prologue []byte, ephemeral PrivateKey) (*noise.HandshakeState, error) {
	public := static.Public()
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite:   suite,
		Random:        bytes.NewReader(ephemeral[:]), // read once, for e
		Pattern:       noise.HandshakeIK,
		Initiator:     initiator,
		Prologue:      prologue,
		StaticKeypair: noise.DHKey{Private: static[:], Public: public[:]},
		PeerStatic:    remote,
	})
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	return state, nil
}

func newKeys(state *noise.HandshakeState, initiator bool, forward, back *noise.CipherState, shared []byte) (*Keys, error) {
	f, err := mix(state, forward, shared, labelInitiator)
	if err != nil {
		return nil, err
	}
	b, err := mix(state, back, shared, labelResponder)
	if err != nil {
		return nil, err
	}
	if initiator {
		return &Keys{seal: f, open: b, initiator: true}, nil
	}
	return &Keys{seal: b, open: f}, nil
}

// mix makes a direction's key from what X25519 gave and what ML-KEM gave, so
// that breaking one of them alone gives nothing.
func mix(state *noise.HandshakeState, direction *noise.CipherState, shared []byte, label string) ([32]byte, error) {
	k := direction.UnsafeKey()
	key, err := hkdf.Key(sha256.New, append(k[:], shared...), state.ChannelBinding(), label, 32)
	clear(k[:])
	if err != nil {
		return [32]byte{}, fmt.Errorf("stream: %w", err)
	}
	return [32]byte(key), nil
}
