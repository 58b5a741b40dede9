package process

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
)

// Ports are picked below the range that systems give to outgoing connections,
// so that none of those takes one between our picking it and its use.
const (
	firstPort = 20000
	lastPort  = 32000
)

var nextPort atomic.Uint32

func init() { nextPort.Store(rand.Uint32N(lastPort - firstPort)) }

// FreePort returns a port of addr that is free for TCP and UDP, and does not
// return it again soon.
func FreePort(addr netip.Addr) (netip.AddrPort, error) {
	var err error
	for range lastPort - firstPort {
		at := netip.AddrPortFrom(addr, uint16(firstPort+nextPort.Add(1)%(lastPort-firstPort)))
		if err = free(at); err == nil {
			return at, nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("no free port at %v: %w", addr, err)
}

func free(at netip.AddrPort) error {
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	defer ln.Close()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	return conn.Close()
}
