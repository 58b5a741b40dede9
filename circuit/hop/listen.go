package hop

import (
	"fmt"
	"net"
	"net/netip"
)

// Listen listens for links on addr and returns where others reach it: at
// advertise if that is set, with the listener's port where it names none.
func Listen(addr string, advertise netip.AddrPort) (net.Listener, netip.AddrPort, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("listen: %w", err)
	}
	here := ln.Addr().(*net.TCPAddr).AddrPort()
	here = netip.AddrPortFrom(here.Addr().Unmap(), here.Port())
	if !advertise.IsValid() {
		advertise = here
	}
	advertise = netip.AddrPortFrom(advertise.Addr().Unmap(), advertise.Port())
	if advertise.Port() == 0 {
		advertise = netip.AddrPortFrom(advertise.Addr(), here.Port())
	}
	if advertise.Addr().IsUnspecified() {
		ln.Close()
		return nil, netip.AddrPort{}, fmt.Errorf("listen: %s is every address of this machine: say with --advertise which of them others reach", addr)
	}
	return ln, advertise, nil
}
