package program

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/shoal-p2p/shoal/proxy/proc"
)

// holder returns which process listens where it keeps others from addr, as far
// as the system shows that to this user.
func holder(addr string) string {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		if p, ok := proc.Listener(a); ok {
			return fmt.Sprintf(" by %q, process %d", filepath.Base(p.Args[0]), p.PID)
		}
	}
	return " by another program"
}
