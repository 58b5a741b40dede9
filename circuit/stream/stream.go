// Package stream makes one circuit stream look like a TCP connection, sealed
// end to end between two sidecars.
// Not here: which circuit carries it and what it costs there (package
// circuit), what flows in it, who may open one.
//
// # Handshake
//
// Noise_IK_25519_AESGCM_BLAKE2b; announce.Prologue is what both sides bind it to. An ML-KEM-768
// exchange rides in the payloads:
//
//	message 1:  e 32, sealed s 48, sealed payload: ML-KEM key 1184, counter 8, tag 16
//	message 2:  e 32, sealed payload: ML-KEM ciphertext 1088, tag 16
//
// The counter is the opener's clock in nanoseconds; Counters refuses one that
// was seen. With k the key that Noise gives for a direction and shared the
// ML-KEM secret, the key of that direction is
//
//	HKDF-SHA256(salt: Noise's channel binding, ikm: k || shared, info: labelInitiator or labelResponder)
//
// Message 1 can be replayed by whoever carries it. So the responder lets
// nothing reach its client before the opener's first record, which a replay
// can't make: Conn.Confirmed.
//
// # Records
//
// A record is sealed with AES-256-GCM; the nonce is 4 zero bytes and a uint64
// that counts the records of its direction. After rekeyAfter records the key
// becomes HKDF-Expand(key, "rekey") and the count starts again. Records have
// two sizes, so that whoever carries them learns neither how long a message
// of the client is nor which of WINDOW, FIN and RESET goes by. Big endian:
//
//	DataSize:          0  1  type: DATA or GOSSIP
//	                   1  2  length of the data, 1 to MaxData; of GOSSIP 1 to MaxGossip
//	                   3  …  data, then zeros
//	                   … 16  tag
//
//	ControlSize:       0  1  type: WINDOW, FIN or RESET
//	                   1  8  offset. WINDOW: bytes of data allowed so far; FIN: bytes sent in all; RESET: zero
//	                   9  7  zeros
//	                  16 16  tag
//
// Type 5 is kept for RESUME. GOSSIP is what the sidecars tell each other beside
// the data; it counts in no window and no offset.
//
// # Windows
//
// Each side may send 64 KiB at first, then up to what WINDOW allows. A window
// is a promise of memory: bytes within it are taken at once whatever the reader
// does, bytes beyond it reset the stream. So whoever hands records to a Conn
// never waits for the Conn's reader. Package window says how windows
// grow and shrink.
package stream

import (
	"crypto/aes"
	"errors"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

const (
	// Message1Size and Message2Size are the lengths of the two handshake messages, bytes.
	Message1Size = 32 + (32 + cell.TagSize) + (1184 + 8 + cell.TagSize)
	Message2Size = 32 + (1088 + cell.TagSize)

	// DataSize is the length of every record that carries data or gossip, sealed, bytes:
	// the largest multiple of an AES block that one message of a cell holds.
	// AES-GCM is fastest on whole blocks.
	DataSize = cell.MaxMessage / aes.BlockSize * aes.BlockSize

	// ControlSize is the length of every other record, sealed, bytes. These
	// need no credit of the stream.
	ControlSize = 16 + cell.TagSize

	// MaxRecord is the length of the longest record, bytes.
	MaxRecord = DataSize

	// MaxData is the most data in one record, bytes. Whoever writes in
	// multiples of it fills every cell.
	MaxData = DataSize - cell.TagSize - dataHeader

	dataHeader = 1 + 2
)

var (
	// ErrReset is what Read and Write report when the stream broke, on this
	// side or the far one. Read reports it once all that had arrived was read.
	ErrReset = errors.New("stream: reset")

	// ErrCancelled is what a Sender's Data returns when cancel was closed first.
	ErrCancelled = errors.New("stream: cancelled")

	// ErrBudget is what New returns when the budget has no room for one more
	// stream; whoever asked for it is refused with cell.Busy.
	ErrBudget = errors.New("stream: budget for windows is used up")
)

// Sender is the circuit under a stream, as the stream sees it. What it is
// given arrives at the far side in order, or the stream fails there.
//
// A seal function appends the sealed record to the slice it is given and
// returns it, without allocating when the slice has room for MaxRecord bytes.
// It is called at most once, before the call returns, in the order of sending:
// a record's nonce is its place in that order. It may take the stream's locks,
// never calls back into the Sender, and never blocks for long. When it appends
// nothing the stream is over, and nothing is sent.
type Sender interface {
	// Data sends one record of DataSize bytes. It waits for room on the
	// circuit, then calls seal; or, when cancel is closed first, returns
	// ErrCancelled without calling it. Any other error means that the circuit
	// died. Data may be running while Control and Close are called. The record
	// may wait for others to go along with, until Flush.
	Data(seal func(dst []byte) []byte, cancel <-chan struct{}) error

	// Flush sends what Data took.
	Flush()

	// Control sends one record of ControlSize bytes, without waiting for
	// credit of the stream, behind all records sealed before. An error means
	// that the circuit died.
	Control(seal func(dst []byte) []byte) error

	// Close says that the stream is over. It takes its place behind all
	// records sealed before: none may be dropped for it. It is called once,
	// but not when Conn.Fail came first.
	Close(r cell.Reason)

	// Go runs f in a goroutine that belongs to the Sender, which waits for it
	// before it is over itself. f ends once the circuit has ended.
	Go(f func())
}
