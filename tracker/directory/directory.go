// Package directory is the list of relays: what a relay says of itself, what
// each tracker says of all relays, how several trackers' views become one list,
// and the network file and tracker link in which a user says whom to believe.
// Not here: reachability tests and measuring (package tracker), who dials whom
// (packages link and circuit), which relays a circuit takes (package path).
//
// Everything is big endian, hashes are SHA-256, and Ed25519 signatures are over
// a label, then the bytes named.
//
// # Keys of a tracker
//
// The key in a tracker link is the tracker's Ed25519 identity. It names the
// tracker for good: swarms are blinded with it (package announce), its links
// show it, and it certifies for 30 days at a time the key that signs views. What
// else is needed to reach the tracker as the last hop of a circuit, its address
// and its onion key, stands in a descriptor of its own at the head of each of
// its views, so that whoever has a view can build a circuit to it. That
// descriptor may also be signed by the certified key, which is then the
// identity that the tracker's links show: so an operator can keep the pinned
// key offline, and nothing but the first contact by that key is lost.
//
// # Descriptor
//
// What a relay says of itself, at most MaxDescriptor bytes:
//
//	 0   1  version, 1
//	 1  32  id, Ed25519
//	33   8  published, seconds since 1970
//	41   8  rate offered, bytes per second
//	49   1  suite of its cell layers
//	50   1  number of addresses, 1 to 4; for each: 4 or 6, the address, port 2
//	 …   1  number of onion keys, 1 or 2; for each: number 1, key 1216. Current, then next
//	 …   1  number of relays of the same owner, 0 to 16; for each: id 32, ascending
//	 …   1  length of the contact, 0 to 128; the contact, printable UTF-8
//	 …   1  length of the program's version, 0 to 32; the version, printable ASCII
//	 …  64  signature by id over "shoal/1 descriptor" || all before
//
// # View
//
// What a tracker says of all relays, at most MaxView bytes:
//
//	  0   1  version, 1
//	  1  32  tracker
//	 33  32  signing key
//	 65   8  the signing key counts from, seconds since 1970
//	 73   8  until
//	 81  64  signature by the tracker over "shoal/1 view key" || bytes 1 to 81
//	145   8  number
//	153  32  hash of the view before, bytes 0 up to its signature; zero when unknown
//	185   8  time, seconds since 1970
//	193   8  valid until: paths are chosen from it
//	201   8  usable until: what runs keeps running
//	209   2  length of the tracker's own descriptor; the descriptor
//	  …   4  number of relays, at most MaxRelays; for each, ids ascending:
//	            weight 8, first seen 8, flags 1 (1 reachable), length 2, descriptor
//	  …  64  signature by the signing key over "shoal/1 view" || hash of all before
//
// # Requests
//
// The body of REQUEST (kind cell.RequestViews): number of trackers 1, for each:
// tracker 32, number of the newest view the asker has 8. Its ANSWER: for each
// newer view its length 4 and the view. The body of cell.RequestPublish is a
// descriptor; its ANSWER is a Published.
package directory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	// ViewEvery is how often a tracker signs a view.
	ViewEvery = time.Hour

	// ValidFor is how long a path may be chosen from a view.
	ValidFor = 3 * time.Hour

	// UsableFor is how long a view keeps what runs running, and how long a
	// relay that is listed no more is still accepted as a next hop.
	UsableFor = 24 * time.Hour

	// CertifiedFor is how long a tracker's signing key counts.
	CertifiedFor = 30 * 24 * time.Hour

	// DescriptorFor is how long a tracker lists a relay that says nothing new.
	DescriptorFor = 24 * time.Hour

	// MaxClockError is how far in the future a view or descriptor may lie: by
	// so much a clock may be behind and still be put right (Keeper.ClockError).
	MaxClockError = 24 * time.Hour
)

const (
	// MaxRelays is the most relays in one view.
	MaxRelays = 20_000

	// MaxView is the longest view, bytes.
	MaxView = 64 << 20

	// MaxTrackers is the most trackers of one network.
	MaxTrackers = 16

	// MaxEntries is the most entry relays that a network names.
	MaxEntries = 64
)

// The labels in front of what is signed: no signature of one kind is ever one of another.
const (
	labelDescriptor = "shoal/1 descriptor"
	labelViewKey    = "shoal/1 view key"
	labelView       = "shoal/1 view"
)

// ErrStale is what verifying returns for a view whose time is over. If every
// tracker's is, then most likely it is the own clock that is wrong.
var ErrStale = errors.New("view is too old")

var errFuture = errors.New("view is in the future")

// errShort is in a reader's error when what it reads ended too early.
var errShort = errors.New("ends early")

// maxTime keeps times from the network far from where time arithmetic overflows: the year 9999.
const maxTime = 253402300799

// reader takes fields off b. After the first field that isn't there it has an
// error and returns zeros only.
type reader struct {
	b   []byte
	err error
}

func (r *reader) next(n int) []byte {
	if r.err == nil && len(r.b) < n {
		r.fail("directory: %w: %d bytes are missing", errShort, n-len(r.b))
	}
	if r.err != nil {
		return nil
	}
	f := r.b[:n:n]
	r.b = r.b[n:]
	return f
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *reader) byte() byte {
	if f := r.next(1); f != nil {
		return f[0]
	}
	return 0
}

func (r *reader) uint16() int {
	if f := r.next(2); f != nil {
		return int(binary.BigEndian.Uint16(f))
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if f := r.next(4); f != nil {
		return binary.BigEndian.Uint32(f)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if f := r.next(8); f != nil {
		return binary.BigEndian.Uint64(f)
	}
	return 0
}

func (r *reader) time() int64 {
	s := r.uint64()
	if s > maxTime {
		r.fail("directory: time %d is beyond the year 9999", s)
		return 0
	}
	return int64(s)
}

func (r *reader) key() (k [32]byte) {
	copy(k[:], r.next(32))
	return k
}

// count reads how many of something follow.
func (r *reader) count(what string, least, most int) int {
	n := int(r.byte())
	if n < least || n > most {
		r.fail("directory: %d %s, want %d to %d", n, what, least, most)
		return 0
	}
	return n
}

func (r *reader) end() {
	if len(r.b) != 0 {
		r.fail("directory: %d bytes too many", len(r.b))
	}
}

func appendTime(b []byte, s int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(s)) }
