package path

import (
	"net/netip"
	"slices"
	"time"
)

// Rules are what a network says about paths. The zero value is a public
// network's, the strict set.
type Rules struct {
	// Test marks a test network: a circuit may have no own relays, and a relay
	// of any age may be a guard.
	Test bool

	// SameNet lets relays of one network share a path. It is set by the
	// network file, never guessed from an address.
	SameNet bool

	// Private marks a network that lives in private ranges, where a /16 tells
	// nothing: a host counts as one network. Where the relays lie in as many
	// /24 (IPv4) or /64 (IPv6) as a circuit needs, such a range does.
	Private bool

	// MinGuardAge is how long the directory must have known a guard, unless
	// the network is young (fit). Zero means DefaultGuardAge.
	MinGuardAge time.Duration

	ranges bool // Private: a /24 or /64 counts as one network
}

// DefaultGuardAge is how long a relay is in the directory before it can become
// a guard: long enough that a burst of new relays gets no users at once.
const DefaultGuardAge = 7 * 24 * time.Hour

// MinRelays returns how many relays, each in a network of its own, circuits
// with own relays of their own need, wherever they end: those, and one to meet
// at. A circuit with a middle needs two relays besides the two guards, since it
// may end at any of the four.
func MinRelays(own int) int {
	if own < 2 {
		return own + 1
	}
	return max(own+1, Primary+2)
}

// fit returns the rules for circuits with own relays of their own in the
// network that relays make up.
//
// In a young network no relay is old enough to be a guard. There, one does that
// has been known for half as long as the oldest: who comes later than that with
// many relays gets no users at once there either.
func (r Rules) fit(now time.Time, relays []Relay, own int) Rules {
	if r.MinGuardAge == 0 {
		r.MinGuardAge = DefaultGuardAge
	}
	var oldest time.Duration
	for i := range relays {
		if relays[i].usable() && !relays[i].FirstSeen.IsZero() {
			oldest = max(oldest, now.Sub(relays[i].FirstSeen))
		}
	}
	r.MinGuardAge = min(r.MinGuardAge, oldest/2)
	if r.Private {
		r.ranges = true
		r.ranges = r.networks(relays) >= MinRelays(own)
	}
	return r
}

// mayGuard reports whether r is known for long enough to be a guard. r has been
// fitted.
func (r Rules) mayGuard(now time.Time, one *Relay) bool {
	return r.Test || one.Entry || !one.FirstSeen.IsZero() && now.Sub(one.FirstSeen) >= r.MinGuardAge
}

// Conflict reports whether a and b must not be on one path: the same relay,
// the same network, or one declared family.
func (r Rules) Conflict(a, b *Relay) bool {
	if a.ID == b.ID {
		return true
	}
	if !r.SameNet && a.Addr.IsValid() && b.Addr.IsValid() && r.Network(a.Addr.Addr()) == r.Network(b.Addr.Addr()) {
		return true
	}
	return related(a, b)
}

// related reports whether each of a and b declares the other its family.
func related(a, b *Relay) bool {
	return slices.Contains(a.Family, b.ID) && slices.Contains(b.Family, a.ID)
}

// Network returns the network that a valid a lies in. In a public network that
// is what one owner rents cheaply: a /16 of IPv4, a /32 of IPv6.
func (r Rules) Network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := [2]int{16, 32}
	switch {
	case r.Private && r.ranges:
		bits = [2]int{24, 64}
	case r.Private:
		bits = [2]int{32, 128}
	}
	p, _ := a.Prefix(bits[a.BitLen()/128])
	return p
}

// networkName names what Network returns.
func (r Rules) networkName(n int) string {
	switch {
	case r.Private && r.ranges:
		return plural(n, "network (/24 of IPv4, /64 of IPv6)", "networks (/24 of IPv4, /64 of IPv6)")
	case r.Private:
		return plural(n, "host", "hosts")
	}
	return plural(n, "network (/16 of IPv4, /32 of IPv6)", "networks (/16 of IPv4, /32 of IPv6)")
}

// networks returns how many networks the usable ones of relays lie in.
func (r Rules) networks(relays []Relay) int {
	seen := make(map[netip.Prefix]bool)
	for i := range relays {
		if relays[i].usable() {
			seen[r.Network(relays[i].Addr.Addr())] = true
		}
	}
	return len(seen)
}
