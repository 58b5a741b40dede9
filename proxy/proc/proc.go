// Package proc lists the processes of this computer and the sockets they hold.
// Linux shows both under /proc; other systems show the names of programs alone.
// Not here: what a process is to a torrent client (packages setup, doctor,
// socks).
package proc

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// ErrUnsupported is the answer of systems other than Linux.
var ErrUnsupported = errors.New("proc: only Linux shows the sockets of a process")

// Process is a running one.
type Process struct {
	PID  int
	Args []string // the command line; never empty in the answer of List
}

// ID names one process for good: a PID is used again. The zero value is unknown.
type ID struct {
	PID     int    `json:"pid"`
	Started uint64 `json:"started"` // in clock ticks after the boot
}

// Known reports whether i names a process.
func (i ID) Known() bool { return i.PID != 0 }

// Runs reports whether the process still runs, as far as this one can see.
func (i ID) Runs() bool { return i.Known() && Process{PID: i.PID}.ID() == i }

// Socket is a TCP or UDP socket over IPv4 or IPv6.
type Socket struct {
	UDP           bool
	Listening     bool           // a TCP socket that accepts connections
	Local, Remote netip.AddrPort // an IPv4 address is never in its IPv6 form; Remote is zero when there is none
}

// overlap reports whether two sockets can't both listen, one at each address.
func overlap(a, b netip.AddrPort) bool {
	x, y := a.Addr().Unmap(), b.Addr().Unmap()
	return a.Port() == b.Port() && (x == y || x.IsUnspecified() || y.IsUnspecified())
}

// ParseGroups returns the multicast groups that somebody joined, from the tables
// /proc/net/igmp and igmp6. It leaves out what it can't parse.
func ParseGroups(igmp, igmp6 []byte) []netip.Addr {
	var all []netip.Addr
	add := func(a netip.Addr) {
		if a.IsMulticast() && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	for line := range strings.Lines(string(igmp)) {
		// A group's line is indented, an interface's is not.
		f := strings.Fields(line)
		if !strings.HasPrefix(line, "\t") || len(f) == 0 {
			continue
		}
		// A word in the machine's byte order.
		if b, err := hex.DecodeString(f[0]); err == nil && len(b) == 4 {
			add(netip.AddrFrom4([4]byte(binary.NativeEndian.AppendUint32(nil, binary.BigEndian.Uint32(b)))))
		}
	}
	for line := range strings.Lines(string(igmp6)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		if b, err := hex.DecodeString(f[2]); err == nil && len(b) == 16 {
			add(netip.AddrFrom16([16]byte(b)))
		}
	}
	return all
}

// internet is where IPv6 addresses are that everyone can reach.
var internet = netip.MustParsePrefix("2000::/3")

// ParseIPv6 reports whether an interface has an IPv6 address that everyone can
// reach, from the table /proc/net/if_inet6.
func ParseIPv6(table []byte) bool {
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		b, err := hex.DecodeString(f[0])
		if err == nil && len(b) == 16 && internet.Contains(netip.AddrFrom16([16]byte(b))) {
			return true
		}
	}
	return false
}

// ParseLocal returns the IPv4 addresses of the network's own interfaces, from
// the table /proc/net/fib_trie.
func ParseLocal(table []byte) (all []netip.Addr) {
	var leaf netip.Addr
	for line := range strings.Lines(string(table)) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "|-- "); ok {
			leaf, _ = netip.ParseAddr(text)
		}
		if line == "/32 host LOCAL" && leaf.IsValid() && !slices.Contains(all, leaf) {
			all = append(all, leaf)
		}
	}
	return all
}
