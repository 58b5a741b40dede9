package socks

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"

	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// maxAssocs is how many UDP associations there are at once.
const maxAssocs = 64

// named returns the client of a SOCKS user name.
func named(user string) swarm.Client { return swarm.Client("user " + user) }

// unnamed returns the i-th client of those that give no user name. A client
// keeps its number over a restart as long as it is the only one of them.
func unnamed(i int) swarm.Client { return swarm.Client(fmt.Sprintf("client %d", i+1)) }

// origin returns whose connection conn is: the user's; or without a user name
// that of the process that holds an association; or of the only one that does.
func (s *Server) origin(user string, conn net.Conn) Origin {
	s.mu.Lock()
	live := slices.Clone(s.assocs)
	s.mu.Unlock()
	if user != "" {
		return Origin{Client: named(user), Assoc: newest(live, named(user))}
	}
	live = slices.DeleteFunc(live, func(a *Association) bool { return a.user != "" })
	if len(live) == 0 {
		return Origin{Client: unnamed(0)}
	}
	clients := make(map[swarm.Client]bool)
	for _, a := range live {
		clients[a.client] = true
	}
	a, sure := live[0], len(clients) == 1
	for _, other := range live {
		if !sure && other.owner.holds(conn) {
			a, sure = other, true
		}
	}
	return Origin{Client: a.client, Assoc: newest(live, a.client), Unsure: !sure}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.assocs) >= maxAssocs {
		return false
	}
	a.client = named(a.user)
	if a.user == "" {
		a.client = s.number(a)
	}
	a.guess(s.last[a.client])
	for used := true; used; {
		s.beacon++
		a.beacon = netip.AddrPortFrom(peers.Beacon(s.beacon), peers.Port)
		used = slices.ContainsFunc(s.assocs, func(o *Association) bool { return o.beacon == a.beacon })
	}
	s.assocs = append(s.assocs, a)
	return true
}

// Addresses returns where the packets of all clients come from that ever had an
// association.
func (s *Server) Addresses() map[swarm.Client]netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.last)
}

// maxAddresses is how many clients' addresses are remembered.
const maxAddresses = 1024

// learned remembers where c's packets come from.
func (s *Server) learned(c swarm.Client, a netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.last[c]; known || len(s.last) < maxAddresses {
		s.last[c] = a
	}
}

func (s *Server) number(a *Association) swarm.Client {
	used := make(map[swarm.Client]bool)
	for _, o := range s.assocs {
		if o.user == "" {
			if a.owner.same(o.owner) {
				return o.client
			}
			used[o.client] = true
		}
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
