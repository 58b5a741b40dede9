package announce

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"log/slog"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Member is who a client is in one swarm: the keys that everything it says
// there is signed and encrypted with. It is not changed after it was made and
// may be used by many goroutines.
type Member struct {
	infohash  [20]byte
	key       [32]byte
	sign      ed25519.PrivateKey // S
	stream    [32]byte           // E, private
	streamPub [32]byte
	week      uint32 // of the secret
}

// LogValue keeps keys out of every log.
func (m *Member) LogValue() slog.Value { return slog.StringValue("(member)") }

// String is redacted like LogValue.
func (m *Member) String() string { return "(member)" }

func newMember(secret [32]byte, infohash [20]byte) *Member {
	m := &Member{infohash: infohash}
	copy(m.key[:], expand(extract(secret[:], "shoal/1 member"), "swarm"+string(infohash[:]), 32))
	m.sign = ed25519.NewKeyFromSeed(expand(m.key[:], "sign", ed25519.SeedSize))
	copy(m.stream[:], expand(m.key[:], "stream", 32))
	e, err := ecdh.X25519().NewPrivateKey(m.stream[:])
	if err != nil {
		panic(err) // only for a wrong length
	}
	copy(m.streamPub[:], e.PublicKey().Bytes())
	return m
}

// InfoHash returns the swarm that m is a member of.
func (m *Member) InfoHash() [20]byte { return m.infohash }

// Week returns the week whose keys these are, see Secret.Week.
func (m *Member) Week() uint32 { return m.week }

// S returns the public key that signs the inside of m's records.
func (m *Member) S() (s [32]byte) {
	copy(s[:], m.sign.Public().(ed25519.PublicKey))
	return s
}

// E returns the public X25519 key that m's streams are encrypted to: who m is
// for the rest of the swarm.
func (m *Member) E() [32]byte { return m.streamPub }

// StreamKey returns the private half of E, a raw X25519 scalar.
func (m *Member) StreamKey() [32]byte { return m.stream }

// TrackerKey returns T: m's key for one tracker and day.
func (m *Member) TrackerKey(tracker [32]byte, day Day) ed25519.PrivateKey {
	return m.derive("tracker", tracker, day)
}

// RelayKey returns R: m's key for one meeting relay and day.
func (m *Member) RelayKey(relay onion.ID, day Day) ed25519.PrivateKey {
	return m.derive("relay", relay, day)
}

// Meeting returns what m's record says of the meeting relay at which it
// registered with RelayKey(relay, day).
func (m *Member) Meeting(relay onion.ID, day Day) Meeting {
	return Meeting{Relay: relay, R: public(m.RelayKey(relay, day))}
}

func (m *Member) derive(use string, whom [32]byte, day Day) ed25519.PrivateKey {
	seed := expand(m.key[:], use+string(whom[:])+string(day.bytes()), ed25519.SeedSize)
	return ed25519.NewKeyFromSeed(seed)
}

func public(k ed25519.PrivateKey) (p [32]byte) {
	copy(p[:], k[32:])
	return p
}
