// Package capture records who talks to whom on a network interface, and what
// crosses it in clear, for tests that must be able to say "nobody else".
// Not here: what that means for a sidecar or a relay (the tests say so).
package capture

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// The protocols that have ports.
const (
	TCP = 6
	UDP = 17
)

// Flow is one direction between two sockets. Ports are zero where the
// protocol has none.
type Flow struct {
	Protocol uint8 // of IP
	From, To netip.AddrPort
}

// String is for test failures.
func (f Flow) String() string {
	name := map[uint8]string{1: "icmp", 2: "igmp", TCP: "tcp", UDP: "udp", 58: "icmpv6"}[f.Protocol]
	return fmt.Sprintf("%s %v>%v", cmp.Or(name, fmt.Sprint(f.Protocol)), f.From, f.To)
}

// Trace is what was recorded.
type Trace struct {
	// Payload holds what each flow carried, its packets one after another;
	// what TCP sent twice is there once. A flow of packets without payload is
	// there too.
	Payload map[Flow][]byte

	next map[Flow]uint32 // the sequence number that follows, of TCP

	// Other counts the packets that are not IP, by EtherType.
	Other map[uint16]int

	// Cut is how many bytes of payload are missing because the trace was full.
	Cut int64
}

// Flows returns those flows that match says true to, in a steady order.
func (t *Trace) Flows(match func(Flow) bool) []Flow {
	var some []Flow
	for f := range t.Payload {
		if match(f) {
			some = append(some, f)
		}
	}
	slices.SortFunc(some, func(a, b Flow) int { return cmp.Compare(a.String(), b.String()) })
	return some
}

// Contacts returns the addresses that exchanged packets with a.
func (t *Trace) Contacts(a netip.Addr) map[netip.Addr]bool {
	all := make(map[netip.Addr]bool)
	for f := range t.Payload {
		if f.From.Addr() == a {
			all[f.To.Addr()] = true
		}
		if f.To.Addr() == a {
			all[f.From.Addr()] = true
		}
	}
	return all
}

// window is how many bytes in a row make it certain that they were copied:
// that a megabyte of noise holds one window of another megabyte by chance has
// a probability of 2^-24.
const window = 8

// Finder finds pieces of a secret in other bytes.
type Finder map[uint64]struct{}

// NewFinder makes a Finder of every eight bytes in a row of every secret. Those
// with few different bytes are left out: zeros are found everywhere.
func NewFinder(secrets ...[]byte) Finder {
	f := make(Finder)
	for _, s := range secrets {
		for i := 0; i+window <= len(s); i++ {
			if telling(s[i : i+window]) {
				f[binary.BigEndian.Uint64(s[i:])] = struct{}{}
			}
		}
	}
	return f
}

// telling says if at least half of the bytes of b differ from one another.
func telling(b []byte) bool {
	different := 0
	for i, x := range b {
		if bytes.IndexByte(b[:i], x) < 0 {
			different++
		}
	}
	return 2*different >= len(b)
}

// Find returns the place of the first piece of a secret in b, or -1.
func (f Finder) Find(b []byte) int {
	if len(b) < window {
		return -1
	}
	w := binary.BigEndian.Uint64(b)
	for i := window; ; i++ {
		if _, found := f[w]; found {
			return i - window
		}
		if i == len(b) {
			return -1
		}
		w = w<<8 | uint64(b[i])
	}
}

// add parses one packet as it comes from a packet socket without its link
// header, and adds it to t, keeping at most keep bytes of its payload.
func (t *Trace) add(etherType uint16, packet []byte, keep int) (kept int) {
	f, payload, seq, ok := parse(etherType, packet)
	if !ok {
		t.Other[etherType]++
		return 0
	}
	if f.Protocol == TCP {
		payload = t.unseen(f, seq, payload)
	}
	kept = min(len(payload), keep)
	t.Cut += int64(len(payload) - kept)
	t.Payload[f] = append(t.Payload[f], payload[:kept]...)
	return kept
}

// unseen returns what is new of a segment.
func (t *Trace) unseen(f Flow, seq uint32, payload []byte) []byte {
	if next, begun := t.next[f]; begun && len(payload) > 0 {
		// Farther back than any window reaches, it is another connection.
		if again := int32(next - seq); again > 0 && again < 64<<20 {
			payload = payload[min(int(again), len(payload)):]
			seq = next
		}
	}
	if len(payload) > 0 {
		t.next[f] = seq + uint32(len(payload))
	}
	return payload
}

// parse finds addresses, ports and payload of an IPv4 or IPv6 packet, and the
// sequence number of TCP.
func parse(etherType uint16, b []byte) (f Flow, payload []byte, seq uint32, ok bool) {
	var from, to netip.Addr
	first := true // of a packet's fragments
	switch {
	case etherType == 0x0800 && len(b) >= 20 && b[0]>>4 == 4:
		header := int(b[0]&15) * 4
		total := int(binary.BigEndian.Uint16(b[2:]))
		if total == 0 {
			total = len(b) // larger than the field can say
		}
		if header < 20 || total < header || total > len(b) {
			return Flow{}, nil, 0, false
		}
		from, to = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		f.Protocol = b[9]
		first = binary.BigEndian.Uint16(b[6:])&0x1fff == 0
		payload = b[header:total]
	case etherType == 0x86dd && len(b) >= 40 && b[0]>>4 == 6:
		from, to = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		f.Protocol = b[6]
		payload = b[40:]
	default:
		return Flow{}, nil, 0, false
	}
	var ports [2]uint16
	if header := headerSize(f.Protocol, payload); first && header > 0 {
		ports = [2]uint16{binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:])}
		seq = binary.BigEndian.Uint32(payload[4:])
		payload = payload[header:]
	}
	f.From, f.To = netip.AddrPortFrom(from, ports[0]), netip.AddrPortFrom(to, ports[1])
	return f, payload, seq, true
}

// headerSize returns the length of the TCP or UDP header of b, or 0.
func headerSize(protocol uint8, b []byte) int {
	switch {
	case protocol == TCP && len(b) >= 20 && int(b[12]>>4)*4 <= len(b):
		return int(b[12]>>4) * 4
	case protocol == UDP && len(b) >= 8:
		return 8
	}
	return 0
}

// Contains returns the flows whose payload holds needle.
func (t *Trace) Contains(needle []byte) []Flow {
	return t.Flows(func(f Flow) bool { return bytes.Contains(t.Payload[f], needle) })
}
