// Package doctor says what is wrong with a torrent client and the sidecar: by
// what the client could give its user away, why nothing works, and the setting
// that mends it.
// Not here: how a client's settings are read and changed (package setup).
//
// judge.go and judge_sidecar.go decide, on facts alone; look.go collects them.
package doctor

import (
	"net/netip"

	"github.com/shoal-p2p/shoal/proxy/proc"
	"github.com/shoal-p2p/shoal/proxy/setup"
)

// Facts are what is known of one client.
type Facts struct {
	Client  setup.Client
	Profile setup.Profile
	Known   bool   // the settings could be read; else Profile means nothing
	Running bool   //
	Live    bool   // the client itself said its settings; else its file did
	Run     string // the command that starts it under shoal run

	Sandbox bool     // it runs inside shoal run, whose only way out is the sidecar
	Own     []string // the names and addresses of its network there

	Sight   Sight         // whether Sockets are all that it has
	Sockets []proc.Socket //
	Groups  []netip.Addr  // multicast groups that somebody joined in its network
	IPv6    bool          // its network has an address of the IPv6 internet's

	SOCKS netip.AddrPort // where the sidecar is

	ProxyAnswer setup.Answer // what the client gets from the proxy that it is set to
	OtherProxy  bool         // that proxy is another sidecar on this computer
}

// Sight is how much could be seen of a client's sockets.
type Sight uint8

// The sights.
const (
	Seen    Sight = iota
	Nothing       // it does not run, or this system does not show them
	Denied        // it is another user's
)

// Sidecar is what is known of it.
type Sidecar struct {
	SOCKS  netip.AddrPort
	Answer setup.Answer     // of its SOCKS address
	Holder string           // the program that listens there, "" when unknown
	Others []netip.AddrPort // where sidecars on this computer listen, this one left out
	Page   bool             // its status page answers
	Ready  bool             // as the page says
	Why    string           // as the page says
	Advice string           // as the page says

	// Refused counts what it refused since its start, as the page says.
	Refused map[string]uint64
}

// Level is how bad a finding is.
type Level uint8

// The levels.
const (
	Note    Level = iota // to know; everything works
	Unknown              // it can't be said
	Fault                // something doesn't work; nothing gets out
	Leak                 // somebody outside learns something
)

// String returns the level's word in a report.
func (l Level) String() string { return [...]string{"note", "unknown", "fault", "leak"}[l] }

// Finding is one thing to report.
type Finding struct {
	Level Level
	What  string // one word for it, the same for every client
	Says  string // what happens, and how it was seen
	Close string // what ends it; "" for nothing
}

// Clean reports whether there is nothing to do.
func Clean(all []Finding) bool {
	for _, f := range all {
		if f.Level > Note {
			return false
		}
	}
	return true
}
