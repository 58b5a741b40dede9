package directory

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// MaxWithin is the most ranges that a private network lives in.
const MaxWithin = 4

// private are the ranges that a private network may live in: those of LANs
// (RFC 1918), of a provider or of Tailscale (RFC 6598), and unique local
// addresses (RFC 4193).
var private = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")

// local are ranges that netip knows no name for: shared by a provider's
// customers (RFC 6598), "this network" (RFC 1122), benchmarks, which is also
// where a sidecar's stand-ins live (RFC 2544), protocol assignments and
// documentation (RFC 6890, 5737, 3849), reserved (RFC 1112), and the roads from
// IPv6 back into IPv4 (RFC 6052, 8215, 3056, 4380).
var local = prefixes("100.64.0.0/10", "0.0.0.0/8", "198.18.0.0/15", "192.0.0.0/24", "192.0.2.0/24", "198.51.100.0/24",
	"203.0.113.0/24", "240.0.0.0/4", "2001:db8::/32", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10", "::/96")

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func public(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	_, ok := rangeOf(local, a)
	return !ok
}

// rangeOf returns the first of ranges that a is in.
func rangeOf(ranges []netip.Prefix, a netip.Addr) (netip.Prefix, bool) {
	for _, p := range ranges {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// CheckAddr reports whether a relay or tracker of n may be at a. In a public
// network everyone must be able to reach it, and nobody may be made to dial
// inside their own network; a private network stays within its ranges; a test
// network takes any address.
func (n *Network) CheckAddr(a netip.Addr) error {
	if n.Test {
		return nil
	}
	if len(n.Within) > 0 {
		if _, ok := rangeOf(n.Within, a); !ok {
			return fmt.Errorf("address %v lies outside of this network's ranges, %s", a, n.Ranges())
		}
		return nil
	}
	if public(a) {
		return nil
	}
	if _, ok := rangeOf(private, a); ok {
		return fmt.Errorf("address %v is private and this network is public", a)
	}
	return fmt.Errorf("address %v can't be reached from outside and this network is public", a)
}

// check is CheckAddr for an address in a network file or link: it says what the
// file of a private network has.
func (n *Network) check(a netip.Addr) error {
	err := n.CheckAddr(a)
	if p, ok := rangeOf(private, a); err != nil && ok && len(n.Within) == 0 {
		err = fmt.Errorf(`%w: that of a LAN or VPN says "within": ["%v"], or a part of it`, err, p)
	}
	return err
}

// Ranges returns the ranges of a private network as text, or "".
func (n *Network) Ranges() string {
	var all []string
	for _, p := range n.Within {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

// CheckWithin reports whether a network may live in ranges: each lies in one
// of the private ranges, and no two overlap.
func CheckWithin(ranges []netip.Prefix) error {
	if len(ranges) > MaxWithin {
		return fmt.Errorf("%d ranges, at most %d", len(ranges), MaxWithin)
	}
	for i, p := range ranges {
		if p != p.Masked() || !p.IsValid() {
			return fmt.Errorf("range %v has bits behind its length: it is %v", p, p.Masked())
		}
		if whole, ok := rangeOf(private, p.Addr()); !ok || p.Bits() < whole.Bits() {
			return fmt.Errorf("range %v is not private: a network can live in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, fc00::/7 or parts of these", p)
		}
		for _, q := range ranges[:i] {
			if p.Overlaps(q) {
				return fmt.Errorf("ranges %v and %v overlap", q, p)
			}
		}
	}
	return nil
}

// ParseWithin reads the ranges of a private network in the form in which
// netip.Prefix writes them.
func ParseWithin(ss []string) (ranges []netip.Prefix, err error) {
	if len(ss) > MaxWithin {
		return nil, fmt.Errorf("%d ranges, at most %d", len(ss), MaxWithin)
	}
	for _, s := range ss {
		if len(s) > len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128") {
			return nil, fmt.Errorf("range of %d characters", len(s))
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("range %q is not of the form 10.0.0.0/8", s)
		}
		ranges = append(ranges, p)
	}
	return ranges, CheckWithin(ranges)
}

// ErrAddress is what Descriptor.CheckAddrs returns: a tracker tells the relay.
var ErrAddress = errors.New("address that a relay of this network can't have")

// CheckAddrs reports whether a relay or tracker of n may be where d says.
func (d *Descriptor) CheckAddrs(n *Network) error {
	for _, a := range d.Addrs {
		if err := n.CheckAddr(a.Addr()); err != nil {
			return fmt.Errorf("directory: descriptor of %s: %w: %w", d.ID.Short(), ErrAddress, err)
		}
	}
	return nil
}

// parseAddr reads IP:PORT in the one form in which it is written.
func parseAddr(s string) (netip.AddrPort, error) {
	if len(s) > len("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535") {
		return netip.AddrPort{}, fmt.Errorf("address of %d characters", len(s))
	}
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("address %q is not IP:PORT; names are not looked up", s)
	case a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Addr().Zone() != "" || a.Addr().Is4In6() || a.String() != s:
		return netip.AddrPort{}, fmt.Errorf("address %q can't be dialled", s)
	}
	return a, nil
}
