// Package path says which relays a circuit takes: it draws guards and keeps
// them for months, pins middles per swarm, and keeps relays of one owner or
// one network off the same path.
// Not here: dialling, building, and where the list of relays comes from. The
// clock is a parameter, the random source a field; only store.go touches a disk.
//
// The rules, and what each is against:
//
//   - A sidecar enters the network through Primary guards and no others. Who
//     watches or owns a relay sees a sidecar's address only as its guard, so
//     the guards are few and change slowly.
//   - Behind the guard stands a middle out of PinsPerKey pinned ones. A peer
//     can name the last hop of our circuits and make us build them; whoever he
//     has at the last hop sees the relay before it. With fresh middles he would
//     have a relay beside our guard after some hundred circuits, with pinned
//     ones the hundredth circuit tells what the first did.
//   - No two relays of one path, its last hop included, lie in one network or
//     one declared family.
//   - What a peer names (the last hop) never makes us draw a guard or a middle.
package path

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Relay is one line of the directory: what a sidecar needs to choose a relay
// and to wrap a layer for it.
type Relay struct {
	ID     onion.ID
	Addr   netip.AddrPort  // where its links are dialled
	Key    onion.PublicKey // its current onion key
	Suite  onion.Suite     // how its cell layers are sealed
	Weight uint64          // share of the traffic it should get, bytes per second; 0 means not usable
	Family []onion.ID      // relays it says are its owner's too; counts only when they say so as well

	FirstSeen time.Time // when the directory first listed it

	// Entry marks a relay that the network file names. It is vouched for
	// there, so it needs no age to be a guard.
	Entry bool
}

// Rules are what a network file may change about paths. The zero value is the
// strict set.
type Rules struct {
	// Test marks a test network: a circuit may have no own relays, and relays
	// younger than MinGuardAge become guards when there are no older ones.
	Test bool

	// SameNet lets relays of one /16 or /32 share a path. It is set by the
	// network file, never guessed from an address.
	SameNet bool

	// MinGuardAge is how long the directory must have known a guard. Zero
	// means DefaultGuardAge.
	MinGuardAge time.Duration
}

// DefaultGuardAge is how long a relay is in the directory before it can become
// a guard: long enough that a burst of new relays gets no users at once.
const DefaultGuardAge = 7 * 24 * time.Hour

func (r Rules) minGuardAge() time.Duration {
	if r.MinGuardAge == 0 {
		return DefaultGuardAge
	}
	return r.MinGuardAge
}

// Conflict reports whether a and b must not be on one path: the same relay,
// the same network, or one declared family.
func (r Rules) Conflict(a, b *Relay) bool {
	if a.ID == b.ID {
		return true
	}
	if !r.SameNet && sameNet(a.Addr.Addr(), b.Addr.Addr()) {
		return true
	}
	return slices.Contains(a.Family, b.ID) && slices.Contains(b.Family, a.ID)
}

// sameNet is what one owner rents cheaply: a /16 of IPv4, a /32 of IPv6.
func sameNet(a, b netip.Addr) bool {
	a, b = a.Unmap(), b.Unmap()
	if !a.IsValid() || !b.IsValid() || a.Is4() != b.Is4() {
		return false
	}
	bits := 32
	if a.Is4() {
		bits = 16
	}
	net, err := a.WithZone("").Prefix(bits)
	return err == nil && net.Contains(b.WithZone(""))
}

// usable reports whether r can be dialled and is meant to be.
func (r *Relay) usable() bool {
	return r.Weight > 0 && r.Addr.IsValid() && r.Addr.Port() != 0
}

// find returns the usable relay id of relays, or nil.
func find(relays []Relay, id onion.ID) *Relay {
	for i := range relays {
		if relays[i].ID == id && relays[i].usable() {
			return &relays[i]
		}
	}
	return nil
}
