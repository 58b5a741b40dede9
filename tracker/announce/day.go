package announce

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Day numbers the days of one swarm: whole days since 1970, less what is left
// until the swarm's own offset.
type Day uint32

const (
	daySeconds = 24 * 60 * 60

	// Overlap is how long both days are announced and asked for, half of it
	// before the change and half after.
	Overlap = time.Hour

	// The change of every swarm's day keeps this far from midnight UTC, so that
	// a day in use is always the relay's today or yesterday (VerifyRegister),
	// also for clocks that are half an hour apart.
	offsetMargin = 60 * 60
)

// Days returns the days under which the swarm of infohash is announced and
// asked for at now, the newer first: one, or two around its change.
func Days(infohash [20]byte, now time.Time) []Day {
	half := Overlap / 2
	offset := time.Duration(dayOffset(infohash)) * time.Second
	newest := dayOf(now.Add(half - offset))
	oldest := dayOf(now.Add(-half - offset))
	if newest == oldest {
		return []Day{newest}
	}
	return []Day{newest, oldest}
}

// dayOffset returns when in the UTC day the day of infohash's swarm changes, in
// seconds. Each swarm has its own: a change at one moment for all would show a
// tracker which names of two days belong together by their number.
func dayOffset(infohash [20]byte) uint32 {
	b := expand(swarmKey(infohash), "day", 4)
	return offsetMargin + binary.BigEndian.Uint32(b)%(daySeconds-2*offsetMargin)
}

func dayOf(t time.Time) Day {
	if s := t.Unix(); s > 0 {
		return Day(s / daySeconds)
	}
	return 0
}

// Name returns what the swarm of infohash is called at one tracker on one day.
// Whoever does not know the info-hash can neither reverse nor compare it.
func Name(infohash [20]byte, tracker [32]byte, day Day) (name [32]byte) {
	m := hmac.New(sha256.New, expand(swarmKey(infohash), "name", 32))
	m.Write(tracker[:])
	m.Write(day.bytes())
	m.Sum(name[:0])
	return name
}

// Prologue returns what both ends of a stream in the swarm of infohash bind
// their handshake to: the swarm, the relay they meet at and the registration.
func Prologue(infohash [20]byte, relay [32]byte, token [32]byte) []byte {
	b := []byte("shoal/1 stream")
	b = append(b, expand(swarmKey(infohash), "e2e", 32)...)
	b = append(b, relay[:]...)
	return append(b, token[:]...)
}

func boxKey(infohash [20]byte, day Day) []byte {
	return expand(swarmKey(infohash), "box"+string(day.bytes()), 32)
}

func (d Day) bytes() []byte { return binary.BigEndian.AppendUint32(nil, uint32(d)) }

func swarmKey(infohash [20]byte) []byte { return extract(infohash[:], "shoal/1 swarm") }

func extract(secret []byte, salt string) []byte {
	k, err := hkdf.Extract(sha256.New, secret, []byte(salt))
	if err != nil {
		panic(err) // only for hashes that FIPS mode forbids
	}
	return k
}

func expand(key []byte, info string, n int) []byte {
	k, err := hkdf.Expand(sha256.New, key, info, n)
	if err != nil {
		panic(err) // only for more than 255 hashes
	}
	return k
}
