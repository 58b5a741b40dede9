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
//     one declared family (file rules.go).
//   - What a peer names (the last hop) never makes us draw a guard or a middle.
package path

import (
	"net/netip"
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
