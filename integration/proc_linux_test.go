package integration

import (
	"net/netip"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/proc"
)

// listening returns the addresses where a process accepts TCP connections.
func listening(t *testing.T, pid int) []netip.AddrPort {
	t.Helper()
	return locals(t, pid, func(s proc.Socket) bool { return s.Listening })
}

// udp returns the local addresses of a process's UDP sockets.
func udp(t *testing.T, pid int) []netip.AddrPort {
	t.Helper()
	return locals(t, pid, func(s proc.Socket) bool { return s.UDP })
}

// locals returns the local addresses of those sockets of a process that match.
func locals(t *testing.T, pid int, match func(proc.Socket) bool) (all []netip.AddrPort) {
	t.Helper()
	sockets, err := proc.Process{PID: pid}.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sockets {
		if match(s) {
			all = append(all, s.Local)
		}
	}
	return all
}

func addr(t *testing.T, at string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddrPort(at)
	if err != nil {
		t.Fatal(err)
	}
	return a.Addr()
}
