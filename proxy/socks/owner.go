package socks

import (
	"net"
	"net/netip"

	"github.com/shoal-p2p/shoal/proxy/proc"
)

// owner is the process at the other end of a connection from this computer: two
// clients that give no user name are told apart by it. It is zero when unknown,
// as it always is on systems other than Linux.
type owner struct{ pid int }

// ownerOf looks for the process that holds the other end of conn.
func ownerOf(conn net.Conn) owner {
	local, remote, ok := otherEnd(conn)
	if !ok {
		return owner{}
	}
	p, _ := proc.Holder(local, remote)
	return owner{p.PID}
}

// holds reports whether the process holds the other end of conn.
func (o owner) holds(conn net.Conn) bool {
	local, remote, ok := otherEnd(conn)
	return ok && o.pid != 0 && proc.Process{PID: o.pid}.Holds(local, remote)
}

// same reports whether both are known and one process.
func (o owner) same(p owner) bool { return o.pid != 0 && o.pid == p.pid }

// otherEnd returns the addresses of conn as its other end has them.
func otherEnd(conn net.Conn) (local, remote netip.AddrPort, ok bool) {
	local, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return local, remote, false
	}
	remote, err = netip.ParseAddrPort(conn.LocalAddr().String())
	return local, remote, err == nil
}
