// Package swarm is a client's membership in the swarm of one torrent: who it
// is there, whom it knows there, streams to them and from them.
// Not here: what a torrent client says or hears (packages socks, announce,
// inbound), cells and hops (package circuit).
package swarm

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"time"
)

// Hash is the 20 bytes that a client announces: a v1 info-hash, or the first
// 20 bytes of a v2 one (BEP 52).
type Hash [20]byte

// LogValue keeps the name of a torrent out of every log.
func (Hash) LogValue() slog.Value { return slog.StringValue("(info-hash)") }

// String is redacted like LogValue.
func (Hash) String() string { return "(info-hash)" }

// Key is who a peer is inside one swarm: its static X25519 key E.
type Key [32]byte

// LogValue keeps peers out of every log.
func (Key) LogValue() slog.Value { return slog.StringValue("(peer)") }

// String is redacted like LogValue.
func (Key) String() string { return "(peer)" }

// Client is one client of this sidecar: its SOCKS user name, else a name of
// its association. It never leaves the process.
type Client string

// Event is what an announce says has happened (BEP 3).
type Event uint8

// The events.
const (
	None Event = iota
	Started
	Completed
	Stopped
)

// Unknown is what Left holds when the client did not say how much it lacks.
const Unknown uint64 = math.MaxUint64

// Announce is what a client tells of itself.
type Announce struct {
	Event   Event
	Left    uint64 // bytes the client has yet to get; 0 means that it seeds; or Unknown
	NumWant int    // peers wanted; below zero means the default
}

// Answer is what a client is told.
type Answer struct {
	Peers             []Key
	Seeders, Leechers int // hints, the greatest count of any tracker
	Interval          time.Duration

	// Alone: trackers have answered at least twice since the client started,
	// the last time now, and nobody else is known.
	Alone bool
}

// The errors that the edges branch on.
var (
	ErrUnknownPeer = errors.New("no record of this peer")      // reply 5
	ErrUnreachable = errors.New("the peer can't be reached")   // reply 4
	ErrNotReady    = errors.New("no way to the trackers yet")  // a failure reason that heals by itself
	ErrNoTracker   = errors.New("no tracker could be reached") // likewise
	ErrLeft        = errors.New("the swarm was left")          // join again
	ErrLimit       = errors.New("a limit of the sidecar")      // inside others: what is counted as full
	ErrConnected   = errors.New("the peer is connected")       // by its own stream: nothing is refused
)

// Conn is a stream to a peer.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// Network joins swarms.
type Network interface {
	// Join returns c's membership in h, the same one until it is left.
	Join(c Client, h Hash) (Swarm, error)

	// Members returns the swarms that c is in.
	Members(c Client) []Swarm
}

// Swarm is one membership.
type Swarm interface {
	Hash() Hash

	// Self is this member's own key. Of two streams between the same two
	// members the one that the smaller key opened lives.
	Self() Key

	// Announce publishes this member and asks for others. It returns when all
	// trackers answered or ctx ends; a non-nil error means that none answered.
	// Peers known so far are returned in either case.
	Announce(ctx context.Context, a Announce) (Answer, error)

	// Later returns peers that were learned of too late for the answer to an
	// Announce, as soon as there are some. Who asks again hears of them anyway,
	// so it returns them for a short time only.
	Later(ctx context.Context) ([]Key, error)

	// Dial opens a stream to peer. The errors are ErrUnknownPeer and ErrUnreachable.
	Dial(ctx context.Context, peer Key) (Conn, error)

	// Accept returns the next stream that a peer opened. The peer has proven its key.
	Accept(ctx context.Context) (Key, Conn, error)

	// Leave withdraws this member's record and closes its circuits and streams.
	// It returns at once: from then on Join returns another membership. The
	// channel is closed when all is done.
	Leave() <-chan struct{}
}
