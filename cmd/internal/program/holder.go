package program

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/shoal-p2p/shoal/proxy/proc"
)

// holderUnknown is what holder returns if it found nobody.
const holderUnknown = " by another program"

// holder returns which process listens where it keeps others from addr, as far
// as the system shows that to this user.
func holder(addr string) string {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return holderUnknown
	}
	processes, err := proc.List()
	if err != nil {
		return holderUnknown
	}
	for _, p := range processes {
		if !p.SameNetwork() {
			continue
		}
		sockets, err := p.Sockets()
		if err != nil {
			continue
		}
		for _, s := range sockets {
			if s.Listening && overlap(s.Local, a) {
				return fmt.Sprintf(" by %q, process %d", filepath.Base(p.Args[0]), p.PID)
			}
		}
	}
	return holderUnknown
}

// overlap reports whether two listeners can't have these addresses both.
func overlap(a, b netip.AddrPort) bool {
	x, y := a.Addr().Unmap(), b.Addr().Unmap()
	return a.Port() == b.Port() && (x == y || x.IsUnspecified() || y.IsUnspecified())
}
