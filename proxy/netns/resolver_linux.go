package netns

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The namespace's resolver answers wherever the command looks for one: the host
// may put another resolv.conf in place of ours, and some clients have a setting
// for it. What goes out by the interface is answered there (Network.udp and
// .tcp); sockets inside answer at every loopback address, and at every IPv6
// address on port 53, where a rule leads to them.

// resolverTable is the routing table that has every IPv6 address on loopback.
const resolverTable = 53

// resolverSockets returns sockets for Network.resolve, UDP and TCP. Going
// without some of them is fine: they are for unusual resolv.confs.
func resolverSockets() (fds []int) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			if fd, err := resolverSocket(family, kind); err == nil {
				fds = append(fds, fd)
			}
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fds
	}
	_, all, _ := net.ParseCIDR("::/0")
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Dport = unix.AF_INET6, resolverTable, netlink.NewRulePortRange(dnsPort, dnsPort)
	if netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Type: unix.RTN_LOCAL, Table: resolverTable}) == nil {
		_ = netlink.RuleAdd(rule)
	}
	return fds
}

func resolverSocket(family, kind int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	var at unix.Sockaddr = &unix.SockaddrInet4{Port: dnsPort}
	level, info := unix.IPPROTO_IP, unix.IP_PKTINFO
	if family == unix.AF_INET6 {
		at, level, info = &unix.SockaddrInet6{Port: dnsPort}, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
		err = errors.Join(
			unix.SetsockoptInt(fd, level, unix.IPV6_V6ONLY, 1),
			unix.SetsockoptInt(fd, level, unix.IPV6_FREEBIND, 1)) // to answer as whom the command asked
	}
	if kind == unix.SOCK_DGRAM {
		err = errors.Join(err, unix.SetsockoptInt(fd, level, info, 1))
	}
	if err = errors.Join(err, unix.Bind(fd, at)); err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// resolve answers at a socket that lies inside the namespace. It closes fd.
func (n *Network) resolve(fd int) {
	f := os.NewFile(uintptr(fd), "resolver")
	defer f.Close()
	if ln, err := net.FileListener(f); err == nil {
		n.serve(ln, func() { n.resolveTCP(ln.(*net.TCPListener)) })
	} else if conn, err := net.FilePacketConn(f); err == nil {
		n.serve(conn, func() { n.resolveUDP(conn.(*net.UDPConn)) })
	}
}

// serve runs f until what it serves is closed, by the end of the namespace at
// the latest.
func (n *Network) serve(c interface{ Close() error }, f func()) {
	if !n.begin() {
		c.Close()
		return
	}
	go func() {
		defer n.tasks.Done()
		defer c.Close()
		defer context.AfterFunc(n.ctx, func() { c.Close() })()
		f()
	}()
}

func (n *Network) resolveUDP(conn *net.UDPConn) {
	b, oob := make([]byte, 4096), make([]byte, 128)
	for {
		size, oobSize, _, from, err := conn.ReadMsgUDPAddrPort(b, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about some earlier answer
		}
		if a := answerDNS(b[:size], n.handler.Name); a != nil {
			// What says at which address the query came says from which the answer goes.
			_, _, _ = conn.WriteMsgUDPAddrPort(a, oob[:oobSize], from)
		}
	}
}

func (n *Network) resolveTCP(ln *net.TCPListener) {
	for {
		conn, err := ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: the next one may find some
			time.Sleep(100 * time.Millisecond)
			continue
		}
		n.serve(conn, func() { n.serveDNS(conn) })
	}
}
