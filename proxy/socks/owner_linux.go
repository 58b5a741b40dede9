package socks

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// owner is the process at the other end of a connection from this computer:
// two clients that give no user name are told apart by it. Zero when unknown.
type owner struct{ pid int }

// ownerOf looks for the process that holds the other end of conn. It sees the
// processes of its own user, and root those of all.
func ownerOf(conn net.Conn) owner {
	inode := inodeOf(conn)
	if inode == "" {
		return owner{}
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return owner{}
	}
	for _, p := range procs {
		if pid, err := strconv.Atoi(p.Name()); err == nil && pid != os.Getpid() && holds(pid, inode) {
			return owner{pid}
		}
	}
	return owner{}
}

// holds says if the process holds the other end of conn.
func (o owner) holds(conn net.Conn) bool {
	if o.pid == 0 {
		return false
	}
	inode := inodeOf(conn)
	return inode != "" && holds(o.pid, inode)
}

// same says if both are known and one process.
func (o owner) same(p owner) bool { return o.pid != 0 && o.pid == p.pid }

func holds(pid int, inode string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if l, err := os.Readlink(dir + "/" + fd.Name()); err == nil && l == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// inodeOf returns the inode of the socket at the other end of conn.
func inodeOf(conn net.Conn) string {
	local, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	remote, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return ""
	}
	file := "/proc/net/tcp"
	if local.Addr().Is6() && !local.Addr().Is4In6() {
		file = "/proc/net/tcp6"
	}
	return findInode(file, hexAddr(local), hexAddr(remote))
}

// findInode looks for a socket in a table of the kernel's. The columns: number,
// local address, remote address, state, queues, timer, retransmits, user, timeout, inode.
func findInode(file, local, remote string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		col := strings.Fields(sc.Text())
		if len(col) > 9 && col[1] == local && col[2] == remote {
			return col[9]
		}
	}
	return ""
}

// hexAddr writes an address as the kernel's tables do: words of four bytes,
// each in the machine's order, little endian where Shoal runs.
func hexAddr(a netip.AddrPort) string {
	b := a.Addr().Unmap().AsSlice()
	var s strings.Builder
	for i := 0; i+4 <= len(b); i += 4 {
		fmt.Fprintf(&s, "%02X%02X%02X%02X", b[i+3], b[i+2], b[i+1], b[i])
	}
	fmt.Fprintf(&s, ":%04X", a.Port())
	return s.String()
}
