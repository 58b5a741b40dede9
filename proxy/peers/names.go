package peers

import (
	"net/netip"
	"sync"
)

// NameRange is where the addresses of names are.
var NameRange = netip.MustParsePrefix("10.65.0.0/16")

// MaxNames is how many names one client has addresses for.
const MaxNames = 4096

// Names gives names addresses that stand for them and for nothing else: no name
// is resolved, and a client that asks for an address dials it next. The zero
// value is ready; it is safe for concurrent use.
type Names struct {
	mu    sync.Mutex
	addrs map[string]netip.Addr
	names map[netip.Addr]string // the other way round
}

// Addr returns the address of name, always the same. It is invalid when there
// are MaxNames others.
func (n *Names) Addr(name string) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.addrs[name]; ok {
		return a
	}
	if len(n.addrs) >= MaxNames {
		return netip.Addr{}
	}
	if n.addrs == nil {
		n.addrs, n.names = make(map[string]netip.Addr), make(map[netip.Addr]string)
	}
	i := len(n.addrs) + 257
	b := NameRange.Addr().As4()
	b[2], b[3] = byte(i>>8), byte(i)
	a := netip.AddrFrom4(b)
	n.addrs[name], n.names[a] = a, name
	return a
}

// Name returns what a stands for.
func (n *Names) Name(a netip.Addr) (name string, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, ok = n.names[a.Unmap()]
	return name, ok
}
