package announce

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Meeting is a relay at which a member can be met, and the key that it
// registered under there.
type Meeting struct {
	Relay onion.ID
	R     [32]byte
}

// Record is what a member tells its swarm of itself.
type Record struct {
	S        [32]byte // signs the record
	E        [32]byte // X25519: who the member is, and what streams to it are encrypted to
	Meetings []Meeting
	Sequence uint64 // a reader keeps the greatest per S
	Expiry   int64  // seconds since 1970
	Seeder   bool

	// Where and when it was published. The day is also the meetings' (Token).
	T       [32]byte
	Tracker [32]byte
	Day     Day
}

// LogValue keeps members out of every log.
func (r Record) LogValue() slog.Value { return slog.StringValue("(record)") }

// String is redacted like LogValue.
func (r Record) String() string { return "(record)" }

// errBox is all that is said when a box doesn't open or what it holds isn't
// the member's own word: which check failed is of use only to who forges.
var errBox = errors.New("announce: record can't be opened")

// Seal makes the record that m publishes at one tracker under one day. Of r it
// reads Meetings, Sequence, Expiry and Seeder; what else is in a record follows
// from m, tracker and day. A stamp is from Mint, or 0 where none is asked for.
func Seal(m *Member, tracker [32]byte, day Day, r Record, stamp uint64) (Outer, error) {
	if n := len(r.Meetings); n < 1 || n > MaxMeetings {
		return Outer{}, fmt.Errorf("announce: %d meeting relays, want 1 to %d", n, MaxMeetings)
	}
	if r.Expiry <= 0 || r.Expiry > maxTime {
		return Outer{}, fmt.Errorf("announce: expiry %d", r.Expiry)
	}
	t := m.TrackerKey(tracker, day)
	r.S, r.E, r.T, r.Tracker, r.Day = m.S(), m.E(), public(t), tracker, day
	o := Outer{T: r.T, Expiry: r.Expiry, Seeder: r.Seeder, Stamp: stamp}

	plain := r.appendSigned(make([]byte, 0, recordSize))
	plain = append(plain, ed25519.Sign(m.sign, recordMessage(m.infohash, plain))...)
	plain = plain[:recordSize] // the rest is zero: fresh from make
	o.seal(boxKey(m.infohash, day), plain)

	name := Name(m.infohash, tracker, day)
	copy(o.Sig[:], ed25519.Sign(t, o.signed(name)))
	return o, nil
}

func (o *Outer) seal(key, plain []byte) {
	rand.Read(o.Box[:nonceSize])
	o.sealWith(key, plain)
}

// sealWith seals plain under the nonce that stands in the box already.
func (o *Outer) sealWith(key, plain []byte) {
	o.aead(key).Seal(o.Box[nonceSize:nonceSize], o.Box[:nonceSize], plain, o.appendHeader(nil))
}

// OpenRecord opens what a tracker handed out for the swarm of infohash under
// one day, and checks everything that a member signed. Only a record that it
// returns may be acted on.
func OpenRecord(infohash [20]byte, tracker [32]byte, day Day, o *Outer, now time.Time) (Record, error) {
	if err := o.Verify(Name(infohash, tracker, day), now); err != nil {
		return Record{}, err
	}
	plain, err := o.aead(boxKey(infohash, day)).Open(nil, o.Box[:nonceSize], o.Box[nonceSize:], o.appendHeader(nil))
	if err != nil {
		return Record{}, errBox
	}
	r, sig, err := parseRecord(plain)
	if err != nil {
		return Record{}, err
	}
	if r.T != o.T || r.Expiry != o.Expiry || r.Seeder != o.Seeder || r.Tracker != tracker || r.Day != day {
		return Record{}, errBox
	}
	if !ed25519.Verify(r.S[:], recordMessage(infohash, plain[:signedSize]), sig) {
		return Record{}, errBox
	}
	if lowOrder(r.E) {
		return Record{}, errBox
	}
	return r, nil
}

func (o *Outer) aead(key []byte) aead {
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(err) // only for a wrong length
	}
	return a
}

type aead interface {
	Seal(dst, nonce, plaintext, additionalData []byte) []byte
	Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error)
}

func (r *Record) appendSigned(b []byte) []byte {
	b = append(b, Version, flags(r.Seeder), byte(len(r.Meetings)), 0)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Day))
	b = binary.BigEndian.AppendUint64(b, r.Sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Expiry))
	b = append(b, r.S[:]...)
	b = append(b, r.E[:]...)
	b = append(b, r.T[:]...)
	b = append(b, r.Tracker[:]...)
	for _, m := range r.Meetings {
		b = append(b, m.Relay[:]...)
		b = append(b, m.R[:]...)
	}
	return append(b, make([]byte, (MaxMeetings-len(r.Meetings))*meetingSize)...)
}

// parseRecord reads what Seal put into a box. It checks the form only; sig
// points into b.
func parseRecord(b []byte) (r Record, sig []byte, err error) {
	if len(b) != recordSize {
		return Record{}, nil, errBox
	}
	in := reader{b: b}
	if in.byte() != Version {
		return Record{}, nil, errors.New("announce: record of another version")
	}
	if r.Seeder, err = parseFlags(in.byte()); err != nil {
		return Record{}, nil, err
	}
	n, spare := in.byte(), in.byte()
	if n < 1 || n > MaxMeetings || spare != 0 {
		return Record{}, nil, errBox
	}
	r.Day = Day(in.uint32())
	r.Sequence = in.uint64()
	if r.Expiry, err = parseTime(in.uint64()); err != nil {
		return Record{}, nil, err
	}
	r.S, r.E, r.T, r.Tracker = in.key(), in.key(), in.key(), in.key()
	r.Meetings = make([]Meeting, n)
	for i := range r.Meetings {
		r.Meetings[i] = Meeting{Relay: in.key(), R: in.key()}
	}
	unused := in.next((MaxMeetings - int(n)) * meetingSize)
	sig = in.next(ed25519.SignatureSize)
	if !zero(unused) || !zero(in.b) {
		return Record{}, nil, errBox
	}
	for i, m := range r.Meetings {
		for _, before := range r.Meetings[:i] {
			if m.Relay == before.Relay {
				return Record{}, nil, errors.New("announce: record names one meeting relay twice")
			}
		}
	}
	return r, sig, nil
}

// recordMessage is what S signs. The info-hash is in it though not in the
// record: else a member of two swarms could carry one's records into the other.
func recordMessage(infohash [20]byte, signed []byte) []byte {
	b := append([]byte(labelRecord), infohash[:]...)
	return append(b, signed...)
}

// anyScalar is a private key for lowOrder alone: with every one the outcome is the same.
var anyScalar, _ = ecdh.X25519().NewPrivateKey([]byte("no secret at all, but 32 bytes .")[:32])

// lowOrder reports whether every secret agreed with e is zero, and so known.
func lowOrder(e [32]byte) bool {
	p, err := ecdh.X25519().NewPublicKey(e[:])
	if err != nil {
		return true
	}
	_, err = anyScalar.ECDH(p)
	return err != nil
}

func zero(b []byte) bool {
	var or byte
	for _, x := range b {
		or |= x
	}
	return or == 0
}
