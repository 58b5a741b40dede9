package hop

import (
	"net"
	"net/netip"
	"sync"
)

const (
	maxShaking     = 2048 // links whose handshake is under way
	maxShakingFrom = 64   // of one address
)

// doors counts who comes in, so that half-open links of one address leave room
// for others.
type doors struct {
	max int // links, as Config says

	mu      sync.Mutex
	links   int                  // guarded by mu
	shaking int                  // guarded by mu
	from    map[netip.Prefix]int // guarded by mu: those that shake hands
}

// visit is one link that came in.
type visit struct {
	d     *doors
	from  netip.Prefix
	stood bool // guarded by d.mu
}

// enter lets a link in that comes from addr, or not.
func (d *doors) enter(addr net.Addr) (*visit, bool) {
	v := &visit{d: d, from: network(addr)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links >= d.max || d.shaking >= maxShaking || d.from[v.from] >= maxShakingFrom {
		return nil, false
	}
	if d.from == nil {
		d.from = make(map[netip.Prefix]int)
	}
	d.links++
	d.shaking++
	d.from[v.from]++
	return v, true
}

// stand says that the handshake is over.
func (v *visit) stand() {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	v.standing()
}

func (v *visit) standing() {
	if v.stood {
		return
	}
	v.stood = true
	v.d.shaking--
	if v.d.from[v.from]--; v.d.from[v.from] == 0 {
		delete(v.d.from, v.from)
	}
}

// leave says that the link is over.
func (v *visit) leave() {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	v.standing()
	v.d.links--
}

// network returns what counts as one address: in IPv6 a /64, since whoever has
// one address there has so many.
func network(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}
