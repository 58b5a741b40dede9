// Package proc says which processes run here and what sockets they hold, as
// Linux shows it under /proc.
// Not here: what that means for a torrent client (packages setup, doctor).
package proc

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ErrUnsupported is the answer of systems other than Linux.
var ErrUnsupported = errors.New("proc: only Linux shows the sockets of a process")

// Process is one that runs.
type Process struct {
	PID  int
	Args []string // the command line; never empty
}

// Socket is a TCP or UDP socket over IPv4 or IPv6.
type Socket struct {
	UDP           bool
	Listening     bool           // a TCP socket that takes connections
	Local, Remote netip.AddrPort // IPv4 in its own clothes; Remote is zero when there is none

	inode uint64
}

// The columns of the kernel's tables of sockets: number, local address, remote
// address, state, queues, timer, retransmits, user, timeout, inode.
const (
	columnLocal  = 1
	columnRemote = 2
	columnState  = 3
	columnInode  = 9

	stateListen = "0A"
)

// ParseSockets reads a table of sockets: /proc/net/tcp, tcp6, udp or udp6.
func ParseSockets(table []byte, udp bool) ([]Socket, error) {
	var all []Socket
	lines := bufio.NewScanner(bytes.NewReader(table))
	lines.Scan() // the columns' names
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) <= columnInode {
			return nil, fmt.Errorf("proc: a socket of %d columns", len(f))
		}
		local, err := parseAddrPort(f[columnLocal])
		if err != nil {
			return nil, err
		}
		remote, err := parseAddrPort(f[columnRemote])
		if err != nil {
			return nil, err
		}
		inode, err := strconv.ParseUint(f[columnInode], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("proc: inode: %w", err)
		}
		if remote.Port() == 0 && remote.Addr().IsUnspecified() {
			remote = netip.AddrPort{}
		}
		all = append(all, Socket{UDP: udp, Listening: !udp && f[columnState] == stateListen, Local: local, Remote: remote, inode: inode})
	}
	return all, lines.Err()
}

// parseAddrPort reads an address in the kernel's form, as 0100007F:0438.
func parseAddrPort(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("proc: port: %w", err)
	}
	a, err := parseAddr(host)
	return netip.AddrPortFrom(a, uint16(p)), err
}

// parseAddr reads one or four words of this machine's byte order, in hex.
func parseAddr(s string) (netip.Addr, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.Addr{}, fmt.Errorf("proc: %d digits are no address", len(s))
	}
	for w := b; len(w) > 0; w = w[4:] {
		binary.NativeEndian.PutUint32(w, binary.BigEndian.Uint32(w))
	}
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap(), nil
}

// ParseGroups reads the multicast groups that anybody joined, from the tables
// /proc/net/igmp and igmp6. What it can't read it leaves out.
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
		if a, err := parseAddr(f[0]); err == nil {
			add(a)
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

// ParseInterfaces reads the names of the network interfaces from /proc/net/dev.
func ParseInterfaces(dev []byte) []string {
	var all []string
	for line := range strings.Lines(string(dev)) {
		if name, _, found := strings.Cut(line, ":"); found {
			all = append(all, strings.TrimSpace(name))
		}
	}
	return all
}

// internet is where the addresses are that all the world can reach.
var internet = netip.MustParsePrefix("2000::/3")

// ParseIPv6 says from /proc/net/if_inet6 whether an interface has an IPv6
// address of the internet's.
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
