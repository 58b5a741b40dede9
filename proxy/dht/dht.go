// Package dht is the only DHT node that a torrent client ever meets (BEP 5, 32,
// 42): whatever address the client sends a DHT packet to, this node answers in
// its place. It says what the blind trackers say, and remembers nobody.
// Not here: how peers are found (package swarm), the packets' way to the client
// (package proxy).
package dht

import (
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// The limits.
const (
	MaxPacket = 2048 // bytes of a packet that is looked at
	MaxNodes  = 32   // nodes that this one pretends to be
	given     = 8    // nodes in an answer (BEP 5: K)
	MaxValues = 50   // peers in an answer
	MaxSwarms = 4096 // info-hashes remembered
	MaxNew    = 20   // swarms an hour that the client may come to know here
	maxWaiter = 32   // queries that wait for one swarm's peers
	maxOnce   = 256  // info-hashes remembered that were asked for once
	maxIDs    = 4    // the client's node ids remembered
	maxTxn    = 64   // bytes of a transaction id

	keep  = 24 * time.Hour   // an info-hash nobody asks for is forgotten
	fresh = 30 * time.Second // peers are given again without asking
	empty = 5 * time.Second  // so is the answer that there are none, for one search of a client
	lost  = 10 * time.Second // an Ask without an Answer is asked again
)

// Why a packet had no answer or a short one. Package proxy counts them.
var (
	ErrMalformed = errors.New("dht: not a DHT packet")
	ErrTooMany   = errors.New("dht: more new info-hashes than 20 an hour")
	ErrToken     = errors.New("dht: announce with a wrong token")
)

// Rule says what the client may ask about an info-hash.
type Rule uint8

// The rules.
const (
	New    Rule = iota // counts against MaxNew when first asked for
	Joined             // the client is in this swarm already
)

// Config is a Node's. Only Key is needed.
type Config struct {
	// Key is secret and makes node ids and tokens.
	Key [32]byte

	// Nodes are where the client is told that nodes are, all of them this one.
	// IPv4, MaxNodes at most. libtorrent wants each in a /24 of its own;
	// Transmission asks for no torrent before it knows nine. None means
	// DefaultNodes.
	Nodes []netip.AddrPort

	// External is what the client is told of its own address, a stand-in. The
	// zero value tells nothing.
	External netip.AddrPort

	// Rule returns what holds for an info-hash. It must neither block nor call
	// the Node or its Server. Nil means New for all.
	Rule func(swarm.Hash) Rule
}

// DefaultNodes are addresses for Config.Nodes that package peers never gives to
// a peer, since they end in 255.
var DefaultNodes = func() (a []netip.AddrPort) {
	for i := range byte(MaxNodes) {
		a = append(a, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, 208 + i, 255}), 6881))
	}
	return a
}()

// Packet is a datagram to the client. From is whom it comes from in the
// client's eyes.
type Packet struct {
	From, To netip.AddrPort
	Data     []byte
}

// Announced is what a client told of itself for one info-hash.
type Announced struct {
	Hash swarm.Hash
	Port uint16 // where it listens; 0: nowhere
	Seed bool   // it has everything (BEP 33)
}

// LogValue keeps torrents out of every log.
func (Announced) LogValue() slog.Value { return slog.StringValue("(announce)") }

// Effects is what one packet leads to.
type Effects struct {
	Replies   []Packet
	Ask       []swarm.Hash // whose peers are to be looked up and given to Answer within seconds
	Announced []Announced
	Refused   error // why the packet was not served in full; one of the errors above
}

// IsPacket says if b looks like a DHT packet. No µTP packet does.
func IsPacket(b []byte) bool {
	return len(b) > 2 && b[0] == 'd' && b[len(b)-1] == 'e'
}
