package socks

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// maxAssocs is how many UDP associations there are at once.
const maxAssocs = 64

// named returns the client of a SOCKS user name.
func named(user string) swarm.Client { return swarm.Client("user " + user) }

// unnamed returns the i-th client of those that give no user name. A client
// keeps its number when the sidecar is started again, as long as its process is
// known or it is the only one of them.
func unnamed(i int) swarm.Client { return swarm.Client(fmt.Sprintf("client %d", i+1)) }

// IsUnnamed reports whether c is a client that gave no user name.
func IsUnnamed(c swarm.Client) bool { return strings.HasPrefix(string(c), "client ") }

// origin returns whose connection conn is: the user's; or without a user name
// that of the process that holds an association; or of the only one that does.
func (s *Server) origin(user string, conn net.Conn) Origin {
	s.mu.Lock()
	live := slices.Clone(s.assocs)
	earlier := slices.Collect(maps.Values(s.known))
	s.mu.Unlock()
	if user != "" {
		return Origin{Client: named(user), Assoc: newest(live, named(user))}
	}
	live = slices.DeleteFunc(live, func(a *Association) bool { return a.user != "" })
	if len(live) == 0 {
		return returning(earlier, conn)
	}
	clients := make(map[swarm.Client]bool)
	for _, a := range live {
		clients[a.client] = true
	}
	a, sure := live[0], len(clients) == 1
	for _, other := range live {
		if !sure && holds(other.owner, conn) {
			a, sure = other, true
		}
	}
	return Origin{Client: a.client, Assoc: newest(live, a.client), Unsure: !sure}
}

// returning returns whose connection conn is when no client without a user name
// has an association: that of a client of an earlier run, if its process holds
// it, or if there was only one.
func returning(earlier []Known, conn net.Conn) Origin {
	earlier = slices.DeleteFunc(earlier, func(k Known) bool { return !IsUnnamed(k.Client) })
	for _, k := range earlier {
		if len(earlier) == 1 || holds(k.Owner, conn) {
			return Origin{Client: k.Client}
		}
	}
	return Origin{Client: unnamed(0), Unsure: len(earlier) > 0}
}

// newest returns c's newest association.
func newest(live []*Association, c swarm.Client) *Association {
	for _, a := range slices.Backward(live) {
		if a.client == c {
			return a
		}
	}
	return nil
}

// Association returns the newest association of c, nil if it has none.
func (s *Server) Association(c swarm.Client) *Association {
	s.mu.Lock()
	defer s.mu.Unlock()
	return newest(s.assocs, c)
}

// connected tells c's associations that it dialled a stand-in by TCP.
func (s *Server) connected(c swarm.Client, standIn netip.Addr) {
	s.mu.Lock()
	live := slices.Clone(s.assocs)
	s.mu.Unlock()
	for _, a := range live {
		if a.client == c {
			a.utp.Connected(standIn.Unmap())
		}
	}
}

// add takes a into the list and gives it a client and a beacon. Without a user
// name the client is that of an association of the same process, else the
// first number that is free.
func (s *Server) add(a *Association) bool {
	absent := s.absent()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.assocs) >= maxAssocs {
		return false
	}
	a.client = named(a.user)
	if a.user == "" {
		a.client = s.number(a, absent)
	}
	a.guess(s.known[a.client].UDP)
	for used := true; used; {
		s.beacon++
		a.beacon = netip.AddrPortFrom(peers.Beacon(s.beacon), peers.Port)
		used = slices.ContainsFunc(s.assocs, func(o *Association) bool { return o.beacon == a.beacon })
	}
	s.assocs = append(s.assocs, a)
	close(s.added)
	s.added = make(chan struct{})
	return true
}

// Await returns when c has an association, or ctx ends.
func (s *Server) Await(ctx context.Context, c swarm.Client) {
	for ctx.Err() == nil {
		s.mu.Lock()
		there, added := newest(s.assocs, c) != nil, s.added
		s.mu.Unlock()
		if there {
			return
		}
		select {
		case <-added:
		case <-ctx.Done():
		}
	}
}

// maxKnown is how many clients' addresses are remembered.
const maxKnown = 1024

// learned remembers where a client's packets come from.
func (s *Server) learned(k Known) {
	s.mu.Lock()
	_, known := s.known[k.Client]
	if known || len(s.known) < maxKnown {
		s.known[k.Client] = k
	}
	s.mu.Unlock()
	s.config.Learned(k)
}

// absent returns the clients without a user name that have no association now,
// and whose processes run: they will be back.
func (s *Server) absent() []Known {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.known))
	live := slices.Clone(s.assocs)
	s.mu.Unlock()
	return slices.DeleteFunc(all, func(k Known) bool {
		return !IsUnnamed(k.Client) || newest(live, k.Client) != nil || !k.Owner.Runs()
	})
}

// number returns the client of an association without a user name. Caller holds mu.
func (s *Server) number(a *Association, absent []Known) swarm.Client {
	used := make(map[swarm.Client]bool)
	for _, o := range s.assocs {
		if o.user == "" {
			if same(a.owner, o.owner) {
				return o.client
			}
			used[o.client] = true
		}
	}
	for _, k := range absent {
		if same(a.owner, k.Owner) {
			return k.Client
		}
		used[k.Client] = true
	}
	i := 0
	for used[unnamed(i)] {
		i++
	}
	return unnamed(i)
}

func (s *Server) remove(a *Association) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.assocs = slices.DeleteFunc(s.assocs, func(o *Association) bool { return o == a })
}

// Associations returns how many there are.
func (s *Server) Associations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.assocs)
}

// randomBeacon is where the beacons of this run begin: clients remember those of the last.
func randomBeacon() int { return rand.IntN(peers.Beacons) }
