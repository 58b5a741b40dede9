package hop

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Listen listens for links on addr, and returns where: the address is
// unspecified when that is every address of this machine.
func Listen(addr string) (net.Listener, netip.AddrPort, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("listen: %w", err)
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	return ln, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), nil
}

// ParseAdvertise reads what an operator says of where others reach a relay or
// tracker: IP, IP:PORT, or PORT alone. What is left out is zero.
func ParseAdvertise(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 0), checkAdvertised(a)
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a, checkAdvertised(a.Addr())
	}
	port, err := strconv.ParseUint(strings.TrimPrefix(s, ":"), 10, 16)
	if err != nil || port == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is not IP, IP:PORT or PORT; names are not looked up", s)
	}
	return netip.AddrPortFrom(netip.Addr{}, uint16(port)), nil
}

func checkAdvertised(a netip.Addr) error {
	if a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
		return fmt.Errorf("%v is not an address that others can dial", a)
	}
	return nil
}
