package socks

import (
	"net"
	"net/netip"

	"github.com/shoal-p2p/shoal/proxy/proc"
)

// ownerOf returns the process that holds the other end of conn, a connection
// from this computer: two clients that give no user name are told apart by it.
// It is unknown on systems other than Linux.
func ownerOf(conn net.Conn) proc.ID {
	local, remote, ok := otherEnd(conn)
	if !ok {
		return proc.ID{}
	}
	p, _ := proc.Holder(local, remote)
	return p.ID()
}

// holds reports whether a process holds the other end of conn.
func holds(o proc.ID, conn net.Conn) bool {
	local, remote, ok := otherEnd(conn)
	return ok && o.Known() && proc.Process{PID: o.PID}.Holds(local, remote)
}

// same reports whether both are known and one process.
func same(o, p proc.ID) bool { return o.Known() && o == p }

// otherEnd returns the addresses of conn as its other end has them.
func otherEnd(conn net.Conn) (local, remote netip.AddrPort, ok bool) {
	local, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return local, remote, false
	}
	remote, err = netip.ParseAddrPort(conn.LocalAddr().String())
	return local, remote, err == nil
}
