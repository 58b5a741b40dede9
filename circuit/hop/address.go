package hop

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Place is what a relay or tracker knows of where others reach it.
type Place struct {
	Listen    netip.AddrPort // where it listens; an unspecified address means all
	Advertise netip.AddrPort // what the operator says; what is left out is found out
	Own       []netip.Addr   // this machine's addresses, as OwnAddrs returns them
	Seen      []netip.Addr   // where trackers see it dial from, one each
	Trackers  int            // how many trackers there are
	Allowed   func(netip.Addr) error
}

// Found is where others reach a relay or tracker.
type Found struct {
	Addr netip.AddrPort // always one that can be written
	How  string         // where it is from, in words
	Err  error          // why others can't reach it there; nil when nothing speaks against it
}

// Find decides. What the operator says counts before where the relay listens,
// then comes what more than half of all trackers see, so that those who can't
// hide a relay can't move it either, then this machine's own addresses.
func (p Place) Find() Found {
	port := p.Advertise.Port()
	if port == 0 {
		port = p.Listen.Port()
	}
	at := func(a netip.Addr, how string) Found {
		a = a.Unmap()
		return Found{Addr: netip.AddrPortFrom(a, port), How: how, Err: p.Allowed(a)}
	}
	if p.Advertise.Addr().IsValid() {
		return at(p.Advertise.Addr(), "set by --advertise")
	}
	var all []Found
	if !p.Listen.Addr().IsUnspecified() {
		all = append(all, at(p.Listen.Addr(), "where it listens"))
	}
	if a, n := p.majority(); n > 0 && p.takes(a) {
		all = append(all, at(a, fmt.Sprintf("seen by %d of %d trackers", n, p.Trackers)))
	}
	for i, a := range p.Own {
		how := "this machine's address"
		if i > 0 {
			how = "an address of this machine"
		}
		if p.takes(a) {
			all = append(all, at(a, how))
		}
	}
	if i := slices.IndexFunc(all, func(f Found) bool { return f.Err == nil }); i >= 0 {
		return all[i]
	}
	if len(all) > 0 {
		return all[0]
	}
	return Found{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port), How: "loopback",
		Err: fmt.Errorf("this machine has no address that others could reach: is it connected to a network?")}
}

// takes reports whether links to a would arrive at the listener.
func (p Place) takes(a netip.Addr) bool {
	l := p.Listen.Addr()
	return l.Is6() && l.IsUnspecified() || l.Is4() == a.Unmap().Is4()
}

// majority returns the address that more than half of all trackers see, and how
// many do; 0 when there is none.
func (p Place) majority() (netip.Addr, int) {
	count := make(map[netip.Addr]int)
	for _, a := range p.Seen {
		if a = a.Unmap(); a.IsValid() {
			if count[a]++; 2*count[a] > p.Trackers {
				return a, p.count(a)
			}
		}
	}
	return netip.Addr{}, 0
}

func (p Place) count(a netip.Addr) (n int) {
	for _, s := range p.Seen {
		if s.Unmap() == a {
			n++
		}
	}
	return n
}

// ID returns the identity of k's owner.
func (k *Keys) ID() onion.ID { return onion.ID(k.Identity.Public().(ed25519.PublicKey)) }

// Name returns how network files call a relay or tracker: ID@IP:PORT.
func Name(id onion.ID, at netip.AddrPort) string { return fmt.Sprintf("%v@%v", id, at) }

// At returns p for a relay or tracker that would listen on addr, IP:PORT or
// :PORT, without listening there.
func (p Place) At(addr string) (Place, error) {
	if strings.HasPrefix(addr, ":") {
		addr = "[::]" + addr
	}
	var err error
	if p.Listen, err = netip.ParseAddrPort(addr); err != nil {
		return p, fmt.Errorf("listen: %q is not IP:PORT", addr)
	}
	if p.Listen.Addr() == netip.IPv4Unspecified() { // as the system takes it, too
		p.Listen = netip.AddrPortFrom(netip.IPv6Unspecified(), p.Listen.Port())
	}
	if p.Listen.Port() == 0 && p.Advertise.Port() == 0 {
		return p, fmt.Errorf("listen: %q leaves the port to the system, which chooses another each time", addr)
	}
	return p, nil
}

// maxOwn bounds how many of this machine's addresses are looked at.
const maxOwn = 64

// OwnAddrs returns this machine's addresses: first those from which it would
// dial each of to, then the others. Nothing is sent. With a source, that is the
// only one.
func OwnAddrs(source netip.Addr, to ...netip.AddrPort) (own []netip.Addr) {
	if source.IsValid() {
		return []netip.Addr{source.Unmap()}
	}
	add := func(a netip.Addr) {
		a = a.Unmap()
		if len(own) < maxOwn && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && !slices.Contains(own, a) {
			own = append(own, a.WithZone(""))
		}
	}
	for _, t := range to {
		conn, err := net.Dial("udp", t.String()) // which asks the system for a route, and nobody else
		if err != nil {
			continue
		}
		if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			add(a.AddrPort().Addr())
		}
		conn.Close()
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return own
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				add(ip)
			}
		}
	}
	return own
}
