// Package announce is what the member of a swarm and a tracker say to each
// other: the member's keys, its sealed record, the swarm's blinded name, the
// request and the answer, and the stamp that slows down who announces too
// much. It is also the home of the key that a member registers under at a
// meeting relay.
// Not here: sockets and circuits (packages tracker, relay and circuit), where a
// tracker keeps records (package swarm), who may become one of the relays that
// a record names (package directory).
//
// Everything is big endian. SHA-256 wherever a hash is meant; HKDF is RFC 5869
// with it; Ed25519 signatures are over a label, then the bytes named.
//
// # Keys
//
//	member   HKDF-Expand(HKDF-Extract(salt "shoal/1 member", weekly secret), "swarm" || info-hash)
//	S        Ed25519 seed  HKDF-Expand(member, "sign")
//	E        X25519 key    HKDF-Expand(member, "stream")
//	T        Ed25519 seed  HKDF-Expand(member, "tracker" || tracker || day)
//	R        Ed25519 seed  HKDF-Expand(member, "relay" || relay || day)
//
// A member of the swarm sees S and E; a tracker only T of that day; a relay
// only R of that day. The weekly secret is replaced by its hash every Monday.
//
//	swarm    HKDF-Extract(salt "shoal/1 swarm", info-hash)
//	name     HMAC(HKDF-Expand(swarm, "name"), tracker || day)
//	box key  HKDF-Expand(swarm, "box" || day)
//	e2e      HKDF-Expand(swarm, "e2e")
//	offset   HKDF-Expand(swarm, "day"): when in the UTC day this swarm's day changes
//
// # A record
//
// What a tracker stores and hands out, OuterSize bytes:
//
//	  0  32  T
//	 32   8  expiry, seconds since 1970
//	 40   1  flags: 1 seeder
//	 41 512  box: nonce 24, sealed record, tag 16 (XChaCha20-Poly1305, bytes 0 to 41 as additional data)
//	553   8  stamp
//	561  64  signature by T over "shoal/1 announce" || name || bytes 0 to 561
//
// What the box holds, recordSize bytes:
//
//	  0   1  version
//	  1   1  flags: 1 seeder
//	  2   1  meeting relays, 1 to 3
//	  3   1  zero
//	  4   4  day
//	  8   8  sequence
//	 16   8  expiry, as outside
//	 24  32  S
//	 56  32  E
//	 88  32  T, as outside
//	120  32  tracker
//	152 192  three times: relay 32, R 32; those not used are zero
//	344  64  signature by S over "shoal/1 record" || info-hash || bytes 0 to 344
//	408  64  zero
//
// The box is 512 bytes and not more because a tracker holds a million of them
// in one GiB and an answer carries fifty.
//
// # Request and answer
//
// The body of REQUEST (kind cell.RequestAnnounce):
//
//	 0   1  what follows: 0 nothing, 1 a record to store, 2 a withdrawal
//	 1   1  records wanted, 0 to 50
//	 2  32  name
//	34      a record as above, or: T 32, signature by T over "shoal/1 withdraw" || name || T
//
// The body of its ANSWER, put together from its parts:
//
//	 0   1  status
//	 1   1  stamp: bits wanted, 0 to 24
//	 2   4  interval, milliseconds
//	 6   4  seeders
//	10   4  leechers
//	14   1  number of records, 0 to 50
//	15      the records
//
// # Registration
//
// The body of REGISTER:
//
//	 0  32  R
//	32   4  day
//	36  64  signature by R over "shoal/1 register" || relay || confirm || day
//
// confirm is the circuit's, known to its owner and last hop alone. The token
// that a visitor opens with is Hash("shoal/1 token" || R || relay || day).
package announce

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Version is the first byte inside a record's box.
//
//	1  first
const Version = 1

const (
	// MaxMeetings is the most meeting relays that one record names.
	MaxMeetings = 3

	// BoxSize is a sealed record with its nonce and tag, bytes.
	BoxSize = nonceSize + recordSize + tagSize

	// OuterSize is a record as a tracker stores it, bytes.
	OuterSize = outerHeaderSize + BoxSize + 8 + ed25519.SignatureSize

	// AnswerHeader is what stands in front of an answer's records, bytes.
	AnswerHeader = 1 + 1 + 4 + 4 + 4 + 1

	// MaxRecords is the most records in one answer, and so the most worth asking for.
	MaxRecords = 50

	// MaxLifetime is how far ahead of the reader's clock a record may expire.
	MaxLifetime = 3 * time.Hour

	// MaxSkew is by how much two clocks may differ before one takes the
	// other's records for stale or from the future.
	MaxSkew = 10 * time.Minute

	// MaxInterval is the longest pause between announces that an answer may ask for.
	MaxInterval = 24 * time.Hour
)

const (
	nonceSize       = 24
	tagSize         = 16
	recordSize      = 472
	outerHeaderSize = 32 + 8 + 1
	meetingSize     = 32 + 32
	signedSize      = 1 + 1 + 1 + 1 + 4 + 8 + 8 + 4*32 + MaxMeetings*meetingSize
	withdrawalSize  = 32 + ed25519.SignatureSize
	requestHeader   = 1 + 1 + 32
	answerHeader    = 1 + 1 + 4 + 4 + 4 + 1
	registerSize    = 32 + 4 + ed25519.SignatureSize

	// MaxRequest is the longest Request, bytes: with the header of a cell
	// message and the kind byte it fits the early box of CREATE.
	MaxRequest = requestHeader + OuterSize

	// MaxAnswer is the longest Answer, bytes.
	MaxAnswer = AnswerHeader + MaxRecords*OuterSize
)

const flagSeeder = 1

// The labels in front of what is signed: no signature of one kind is ever one of another.
const (
	labelAnnounce = "shoal/1 announce"
	labelRecord   = "shoal/1 record"
	labelWithdraw = "shoal/1 withdraw"
	labelRegister = "shoal/1 register"
	labelToken    = "shoal/1 token"
	labelStamp    = "shoal/1 stamp"
)

// Outer is a record as a tracker sees it: nothing in it is readable but when it
// ends, whether its maker seeds, and a key that means something to this tracker
// on this day only.
type Outer struct {
	T      [32]byte // the member's key for this tracker and day
	Expiry int64    // seconds since 1970
	Seeder bool
	Box    [BoxSize]byte
	Stamp  uint64
	Sig    [ed25519.SignatureSize]byte
}

// Append appends o's OuterSize bytes to b.
func (o *Outer) Append(b []byte) []byte {
	b = o.appendHeader(b)
	b = append(b, o.Box[:]...)
	b = binary.BigEndian.AppendUint64(b, o.Stamp)
	return append(b, o.Sig[:]...)
}

func (o *Outer) appendHeader(b []byte) []byte {
	b = append(b, o.T[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(o.Expiry))
	return append(b, flags(o.Seeder))
}

// ParseOuter reads what Append wrote. It checks no signature: see Verify.
func ParseOuter(b []byte) (o Outer, err error) {
	if len(b) != OuterSize {
		return Outer{}, fmt.Errorf("announce: record of %d bytes, want %d", len(b), OuterSize)
	}
	r := reader{b: b}
	copy(o.T[:], r.next(32))
	expiry := r.uint64()
	if o.Seeder, err = parseFlags(r.byte()); err != nil {
		return Outer{}, err
	}
	copy(o.Box[:], r.next(BoxSize))
	o.Stamp = r.uint64()
	copy(o.Sig[:], r.next(ed25519.SignatureSize))
	if o.Expiry, err = parseTime(expiry); err != nil {
		return Outer{}, err
	}
	return o, nil
}

// Verify reports whether o was signed by its T for the swarm that name stands
// for and ends neither before now nor beyond MaxLifetime. A tracker asks this
// before it stores, a reader before it opens.
func (o *Outer) Verify(name [32]byte, now time.Time) error {
	if err := checkExpiry(o.Expiry, now); err != nil {
		return err
	}
	if !ed25519.Verify(o.T[:], o.signed(name), o.Sig[:]) {
		return errors.New("announce: record not signed by its own key")
	}
	return nil
}

// Expired reports whether o ends at or before now.
func (o *Outer) Expired(now time.Time) bool { return o.Expiry <= now.Unix() }

func (o *Outer) signed(name [32]byte) []byte {
	b := make([]byte, 0, len(labelAnnounce)+32+OuterSize)
	b = append(b, labelAnnounce...)
	b = append(b, name[:]...)
	b = o.Append(b)
	return b[:len(b)-ed25519.SignatureSize]
}

func checkExpiry(expiry int64, now time.Time) error {
	switch left := time.Unix(expiry, 0).Sub(now); {
	case left <= 0:
		return fmt.Errorf("announce: record ended %v ago", (-left).Round(time.Second))
	case left > MaxLifetime+MaxSkew:
		return fmt.Errorf("announce: record ends in %v, at most %v", left.Round(time.Second), MaxLifetime)
	}
	return nil
}

func flags(seeder bool) byte {
	if seeder {
		return flagSeeder
	}
	return 0
}

func parseFlags(b byte) (seeder bool, err error) {
	if b&^flagSeeder != 0 {
		return false, fmt.Errorf("announce: unknown flags %#x", b)
	}
	return b&flagSeeder != 0, nil
}

// maxTime keeps times from the network far from where time arithmetic overflows: the year 9999.
const maxTime = 253402300799

func parseTime(s uint64) (int64, error) {
	if s > maxTime {
		return 0, fmt.Errorf("announce: time %d is beyond the year 9999", s)
	}
	return int64(s), nil
}

// reader takes fields off b, whose length the caller has checked.
type reader struct{ b []byte }

func (r *reader) next(n int) []byte {
	f := r.b[:n:n]
	r.b = r.b[n:]
	return f
}

func (r *reader) byte() byte        { return r.next(1)[0] }
func (r *reader) uint32() uint32    { return binary.BigEndian.Uint32(r.next(4)) }
func (r *reader) uint64() uint64    { return binary.BigEndian.Uint64(r.next(8)) }
func (r *reader) key() (k [32]byte) { copy(k[:], r.next(32)); return k }
