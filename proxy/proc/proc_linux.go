package proc

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/prometheus/procfs"
)

// maxTable bounds a table of the network, bytes; a busy machine's have a few
// thousand.
const maxTable = 1 << 20

// listens is the state of a TCP socket that accepts connections: TCP_LISTEN.
const listens = 10

// List returns the processes that this one can see, itself left out.
func List() ([]Process, error) {
	found, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, p := range found {
		if p.PID == os.Getpid() {
			continue
		}
		if args, err := p.CmdLine(); err == nil && len(args) > 0 && args[0] != "" {
			all = append(all, Process{PID: p.PID, Args: args})
		}
	}
	return all, nil
}

// Children returns the child processes of process parent that still run.
func Children(parent int) ([]int, error) {
	found, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	var all []int
	for _, p := range found {
		if stat, err := p.Stat(); err == nil && stat.PPID == parent && stat.State != "Z" {
			all = append(all, p.PID)
		}
	}
	return all, nil
}

// Holder returns the process that holds the TCP socket which is connected from
// local to remote, in this process's network. It sees the processes of its own
// user, and as root those of all; ok is false when none of them holds it.
func Holder(local, remote netip.AddrPort) (p Process, ok bool) {
	socket, ok := connected(local, remote)
	if !ok {
		return p, false
	}
	found, err := procfs.AllProcs()
	if err != nil {
		return p, false
	}
	for _, q := range found {
		if p := (Process{PID: q.PID}); p.PID != os.Getpid() && p.holds(socket) {
			return p, true
		}
	}
	return p, false
}

// Listener returns the process that listens where nothing else can listen on
// at, in this process's network, as far as this user may see it.
func Listener(at netip.AddrPort) (p Process, ok bool) {
	var sockets []string
	for s, inode := range Self().tables() {
		if s.Listening && overlap(s.Local, at) {
			sockets = append(sockets, fmt.Sprintf("socket:[%d]", inode))
		}
	}
	if len(sockets) == 0 {
		return p, false
	}
	all, err := List()
	if err != nil {
		return p, false
	}
	for _, p := range all {
		if slices.ContainsFunc(sockets, p.holds) {
			return p, true
		}
	}
	return p, false
}

// Holds reports whether the process holds the TCP socket which is connected
// from local to remote, in this process's network.
func (p Process) Holds(local, remote netip.AddrPort) bool {
	socket, ok := connected(local, remote)
	return ok && p.holds(socket)
}

// connected returns the name, as an open file, of a TCP socket. A program that
// uses IPv6 sockets for IPv4 is in the table of IPv6.
//
// This is asked for each connection of a client without a user name, so it
// stops at the socket: procfs parses the whole table, at four times the cost.
func connected(local, remote netip.AddrPort) (socket string, ok bool) {
	inode := ""
	if local.Addr().Unmap().Is4() && remote.Addr().Unmap().Is4() {
		inode = find(Self().path("net", "tcp"), hex4(local), hex4(remote))
	}
	if inode == "" {
		inode = find(Self().path("net", "tcp6"), hex16(local), hex16(remote))
	}
	return "socket:[" + inode + "]", inode != ""
}

// find returns the inode of a socket in a table of the kernel's. The columns:
// number, local address, remote address, state, queues, timer, retransmits,
// user, timeout, inode.
func find(table, local, remote string) (inode string) {
	f, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if col := strings.Fields(lines.Text()); len(col) > 9 && col[1] == local && col[2] == remote {
			return col[9]
		}
	}
	return ""
}

// hex4 and hex16 write an address as the tables of IPv4 and of IPv6 do.
func hex4(a netip.AddrPort) string {
	b := a.Addr().Unmap().As4()
	return words(b[:], a.Port())
}

func hex16(a netip.AddrPort) string {
	b := a.Addr().As16()
	return words(b[:], a.Port())
}

// words writes words of four bytes in the machine's order, and a port.
func words(b []byte, port uint16) string {
	var s strings.Builder
	for ; len(b) > 0; b = b[4:] {
		fmt.Fprintf(&s, "%08X", binary.NativeEndian.Uint32(b))
	}
	fmt.Fprintf(&s, ":%04X", port)
	return s.String()
}

// holds reports whether one of the process's open files is the socket.
func (p Process) holds(socket string) bool {
	dir := p.path("fd")
	files, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, f := range files {
		if to, err := os.Readlink(filepath.Join(dir, f.Name())); err == nil && to == socket {
			return true
		}
	}
	return false
}

// ID returns the name of the process for good, the zero ID when it is gone.
func (p Process) ID() ID {
	of, err := procfs.NewProc(p.PID)
	if err != nil {
		return ID{}
	}
	stat, err := of.Stat()
	if err != nil || stat.State == "Z" || stat.State == "X" {
		return ID{}
	}
	return ID{p.PID, stat.Starttime}
}

// Mine reports whether the process is this user's, or this user is root.
func (p Process) Mine() bool {
	uid := os.Geteuid()
	info, err := os.Stat(p.path())
	if err != nil {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return uid == 0 || ok && int(s.Uid) == uid
}

// Env returns a variable of the process's environment at its start, "" also
// when that can't be read.
func (p Process) Env(name string) string {
	of, err := procfs.NewProc(p.PID)
	if err != nil {
		return ""
	}
	all, err := of.Environ()
	if err != nil {
		return ""
	}
	for _, v := range all {
		if key, value, _ := strings.Cut(v, "="); key == name {
			return value
		}
	}
	return ""
}

// Path returns where this process finds a file that p knows by an absolute
// name, or by one relative to p's working folder.
func (p Process) Path(file string) string {
	if !filepath.IsAbs(file) {
		cwd, err := os.Readlink(p.path("cwd"))
		if err != nil {
			return file
		}
		file = filepath.Join(cwd, file)
	}
	if p.shares("mnt", Self()) {
		return file
	}
	// The same file where it is at the same place in both: the name is nicer.
	seen := filepath.Join(p.path("root"), file)
	a, errA := os.Stat(seen)
	b, errB := os.Stat(file)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return file
	}
	return seen
}

// SameNetwork reports whether the process is in this one's network namespace,
// and true where that can't be seen.
func (p Process) SameNetwork() bool { return p.shares("net", Self()) }

// SharesNetwork reports whether two processes are in the same network namespace, and
// true where that can't be seen.
func (p Process) SharesNetwork(q Process) bool { return p.shares("net", q) }

// shares reports whether two processes are in the same namespace of a kind, and
// true where that can't be seen.
func (p Process) shares(kind string, q Process) bool {
	one, err := os.Readlink(p.path("ns", kind))
	if err != nil {
		return true
	}
	other, err := os.Readlink(q.path("ns", kind))
	return err != nil || one == other
}

// Sockets returns the TCP and UDP sockets that the process holds. Those of
// other users' processes only root can see.
func (p Process) Sockets() ([]Socket, error) {
	of, err := procfs.NewProc(p.PID)
	if err != nil {
		return nil, err
	}
	files, err := of.FileDescriptorTargets()
	if err != nil {
		return nil, err
	}
	held := make(map[string]bool)
	for _, f := range files {
		held[f] = true
	}
	var all []Socket
	for s, inode := range p.tables() {
		if held[fmt.Sprintf("socket:[%d]", inode)] {
			all = append(all, s)
		}
	}
	return all, nil
}

// Listeners returns where TCP connections are accepted in the process's network.
func (p Process) Listeners() (all []netip.AddrPort) {
	for s := range p.tables() {
		if s.Listening {
			all = append(all, s.Local)
		}
	}
	return all
}

// tables yields the TCP and UDP sockets of the process's network with their
// inodes.
func (p Process) tables() iter.Seq2[Socket, uint64] {
	return func(yield func(Socket, uint64) bool) {
		of, err := procfs.NewFS(p.path())
		if err != nil {
			return
		}
		tcp4, _ := of.NetTCP() // a table that isn't there is empty: no IPv6
		tcp6, _ := of.NetTCP6()
		udp4, _ := of.NetUDP()
		udp6, _ := of.NetUDP6()
		for i, l := range slices.Concat(procfs.NetIPSocket(tcp4), procfs.NetIPSocket(tcp6), procfs.NetIPSocket(udp4), procfs.NetIPSocket(udp6)) {
			udp := i >= len(tcp4)+len(tcp6)
			s := Socket{UDP: udp, Listening: !udp && l.St == listens, Local: addrPort(l.LocalAddr, l.LocalPort), Remote: addrPort(l.RemAddr, l.RemPort)}
			if s.Remote.Port() == 0 && s.Remote.Addr().IsUnspecified() {
				s.Remote = netip.AddrPort{}
			}
			if !yield(s, l.Inode) {
				return
			}
		}
	}
}

func addrPort(ip net.IP, port uint64) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), uint16(port))
}

// Interfaces returns the names of the network interfaces that the process has.
func (p Process) Interfaces() []string {
	of, err := procfs.NewProc(p.PID)
	if err != nil {
		return nil
	}
	all, err := of.NetDev()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(all))
}

// Groups returns the multicast groups that somebody joined in the process's
// network.
func (p Process) Groups() []netip.Addr { return ParseGroups(p.table("igmp"), p.table("igmp6")) }

// IPv6 reports whether the process's network has an IPv6 address that everyone
// can reach.
func (p Process) IPv6() bool { return ParseIPv6(p.table("if_inet6")) }

// Local returns the IPv4 addresses of the process's own network interfaces.
func (p Process) Local() []netip.Addr { return ParseLocal(p.table("fib_trie")) }

// table returns a table of the process's network; empty when there is none.
func (p Process) table(name string) []byte {
	f, err := os.Open(p.path("net", name))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTable))
	if err != nil {
		return nil // the process ended meanwhile
	}
	return b
}

// Self returns this process.
func Self() Process { return Process{PID: os.Getpid(), Args: os.Args} }

// path returns the name of a file of the process's.
func (p Process) path(of ...string) string {
	return filepath.Join(append([]string{procfs.DefaultMountPoint, fmt.Sprint(p.PID)}, of...)...)
}
