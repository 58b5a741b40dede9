package path

import (
	crand "crypto/rand"
	"math/rand/v2"
)

// maxWeight bounds what one relay's weight can be, bytes per second, so that
// the sum of any list fits 64 bits.
const maxWeight = 1 << 40

// NewRand returns the random source that a sidecar chooses with: ChaCha8,
// seeded by the system. It is not safe for concurrent use.
func NewRand() *rand.Rand {
	var seed [32]byte
	crand.Read(seed[:])
	return rand.New(rand.NewChaCha8(seed))
}

// Pick draws one usable relay that ok accepts, each with a chance in
// proportion to its weight. It returns nil when there is none. ok may be nil.
// The result points into relays.
func Pick(rng *rand.Rand, relays []Relay, ok func(*Relay) bool) *Relay {
	fits := func(r *Relay) bool { return r.usable() && (ok == nil || ok(r)) }
	var sum uint64
	for i := range relays {
		if fits(&relays[i]) {
			sum += min(relays[i].Weight, maxWeight)
		}
	}
	if sum == 0 {
		return nil
	}
	at := rng.Uint64N(sum)
	for i := range relays {
		r := &relays[i]
		if !fits(r) {
			continue
		}
		w := min(r.Weight, maxWeight)
		if at < w {
			return r
		}
		at -= w
	}
	return nil
}

// count is how many of relays are usable and accepted by ok, which may be nil.
func count(relays []Relay, ok func(*Relay) bool) int {
	n := 0
	for i := range relays {
		if relays[i].usable() && (ok == nil || ok(&relays[i])) {
			n++
		}
	}
	return n
}
