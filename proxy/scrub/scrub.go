// Package scrub decides what a peer's bytes may reveal. It sits between a
// torrent client and the stream to the far side, in both directions, reads
// BitTorrent's framing and lets through what is not about a person, a machine
// or a program. docs/scrubbing.md shows the same to users.
// Not here: streams, stand-ins, who dials whom (packages swarm, peers, inbound).
//
// What the other side gets to see, the same in both directions:
//
//	handshake (BEP 3)
//	  info-hash         itself; any other than the stream's ends the stream
//	  peer id           the one in Config: a constant prefix and a part derived
//	                    from the peer's swarm key (PeerID)
//	  reserved bits     extended (BEP 10) and fast (BEP 6), where set; all
//	                    others zero. v2 upgrade (BEP 52) too: a stream stays in
//	                    the swarm it was opened for
//	messages
//	  keep-alive, 0-8, 13-16, 21-23, unknown ids
//	                    themselves, bodies not read
//	  5 bitfield        itself, where it begins the messages; a later one, which
//	                    aria2 alone sends and rTorrent takes for an error, as
//	                    one have for each piece that none has told of yet
//	  9 PORT            nothing: it is the client's real UDP port
//	  17 allowed fast   nothing: the pieces in it are computed from the address
//	                    that the client sees, which is a stand-in
//	  20 extended       as follows
//	extended handshake (BEP 10), written anew with these keys and no others
//	  m                 ut_metadata when the client has it, always as 1
//	  metadata_size     itself
//	  reqq              500, unless the client says less: 250, or a power of two
//	  upload_only       0 or 1
//	  v p yourip ipv4 ipv6 complete_ago e share_mode and all others: nothing
//	extended messages
//	  ut_metadata       msg_type, piece, total_size and the data (BEP 9)
//	  ut_pex            nothing: sidecars gossip instead of clients
//	  ut_holepunch      nothing: it names addresses (BEP 55)
//	  lt_donthave, upload_only, share_mode, lt_tex, unknown: nothing; few
//	                    programs send them, so they tell which one it is
//
// The number in an extended message is its receiver's, so that both
// directions share a table: what each side has asked to receive ut_metadata
// as. A number that nobody was shown is dropped and not passed, since some
// clients take their own numbers for granted.
//
// What stays visible is how a client behaves: which pieces it asks for, how
// many at once, when it chokes, whether it speaks fast.
package scrub

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// The limits on what is read, bytes.
const (
	// MaxMessage is the longest message: a bitfield of 128 million pieces.
	// More is taken for bytes that are no BitTorrent.
	MaxMessage = 16 << 20

	maxExtended = 64 << 10 // an extended handshake beyond this is dropped
	maxMetadata = 32 << 10 // likewise ut_metadata, whose data is 16 KiB
	maxBitfield = 32 << 10 // likewise a late bitfield: 262,144 pieces
)

// maxHandshakes is how many extended handshakes one side may send on one
// stream. Clients send one; those beyond are dropped, for each may be longer
// when written than it was when read.
const maxHandshakes = 64

// What a stream is refused for.
var (
	// ErrNotBitTorrent: the bytes are not those of a torrent client. Counted
	// by who calls, as are the others.
	ErrNotBitTorrent = errors.New("scrub: not BitTorrent")

	// ErrWrongSwarm: a handshake, plain or encrypted, for another torrent
	// than the stream's.
	ErrWrongSwarm = errors.New("scrub: a handshake for another swarm")

	// ErrSilent: no whole handshake came in time.
	ErrSilent = errors.New("scrub: no handshake in time")
)

// ID is a peer id as BEP 3 and BEP 20 have it.
type ID [20]byte

// LogValue keeps peers out of every log.
func (ID) LogValue() slog.Value { return slog.StringValue("(peer)") }

// String is redacted like LogValue.
func (ID) String() string { return "(peer)" }

// idPrefix is what every client behind a sidecar shows as its program.
const idPrefix = "-SH0000-"

// PeerID returns the peer id under which the member with that swarm key is
// shown, to whoever it is shown: clients still tell peers apart by it, and it
// says no more than the key, which the far side knows anyway.
func PeerID(key swarm.Key) ID {
	sum := sha256.Sum256(append([]byte("shoal/1 peer id"), key[:]...))
	var id ID
	copy(id[:], idPrefix)
	base64.RawURLEncoding.Encode(id[len(idPrefix):], sum[:9])
	return id
}

// Config says whose stream it is.
type Config struct {
	// Hash is the stream's swarm. A hybrid torrent has two (BEP 52), and each
	// stream is of one of them.
	Hash swarm.Hash

	// Self is shown to the far side in place of the client's own peer id,
	// Peer to the client in place of the far side's.
	Self, Peer ID

	// HelloTimeout bounds how long either side may take to send its
	// handshake. Zero means DefaultHelloTimeout.
	HelloTimeout time.Duration
}

// DefaultHelloTimeout leaves a far side the time to find its own client:
// torrent clients themselves give up after 10 to 60 s.
const DefaultHelloTimeout = 60 * time.Second

func (c Config) helloTimeout() time.Duration {
	if c.HelloTimeout == 0 {
		return DefaultHelloTimeout
	}
	return c.HelloTimeout
}
