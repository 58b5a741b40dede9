package proc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The limits on what is read; a busy machine has a few hundred kilobytes of
// sockets.
const (
	maxTable = 16 << 20
	maxArgs  = 128 << 10
)

// List returns the processes that this one can see, itself left out.
func List() ([]Process, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := read(pid, "cmdline", maxArgs)
		if args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00"); err == nil && args[0] != "" {
			all = append(all, Process{PID: pid, Args: args})
		}
	}
	return all, nil
}

// Mine says if the process is this user's, or this user is root.
func (p Process) Mine() bool {
	uid := os.Geteuid()
	info, err := os.Stat(name(p.PID, ""))
	if err != nil {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return uid == 0 || ok && int(s.Uid) == uid
}

// Env returns a variable of the process's environment at its start, "" also
// when that can't be read.
func (p Process) Env(name string) string {
	b, err := read(p.PID, "environ", maxArgs)
	if err != nil {
		return ""
	}
	for _, v := range strings.Split(string(b), "\x00") {
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
		cwd, err := os.Readlink(name(p.PID, "cwd"))
		if err != nil {
			return file
		}
		file = filepath.Join(cwd, file)
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return file
	}
	theirs, err := os.Readlink(name(p.PID, "ns/mnt"))
	if err != nil || ours == theirs {
		return file
	}
	// The same file where it is at the same place in both: the name is nicer.
	seen := filepath.Join(name(p.PID, "root"), file)
	a, errA := os.Stat(seen)
	b, errB := os.Stat(file)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return file
	}
	return seen
}

// SameNetwork says if the process is in this one's network namespace. It is
// taken to be where that can't be seen.
func (p Process) SameNetwork() bool {
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return true
	}
	theirs, err := os.Readlink(name(p.PID, "ns/net"))
	return err != nil || ours == theirs
}

// Sockets returns the TCP and UDP sockets that the process holds. Those of
// other users' processes only root can see.
func (p Process) Sockets() ([]Socket, error) {
	dir := name(p.PID, "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	held := make(map[uint64]bool)
	for _, fd := range fds {
		l, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		var inode uint64
		if _, err := fmt.Sscanf(l, "socket:[%d]", &inode); err == nil {
			held[inode] = true
		}
	}
	var all []Socket
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := read(p.PID, "net/"+table, maxTable)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6 here
		}
		if err != nil {
			return nil, err
		}
		sockets, err := ParseSockets(b, strings.HasPrefix(table, "udp"))
		if err != nil {
			return nil, err
		}
		for _, s := range sockets {
			if held[s.inode] {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// Network returns a table of the network namespace that the process is in, as
// "igmp" or "dev"; empty when there is none.
func (p Process) Network(table string) []byte {
	b, err := read(p.PID, "net/"+table, maxTable)
	if err != nil {
		return nil
	}
	return b
}

// Self returns this process, for the tables of its network.
func Self() Process { return Process{PID: os.Getpid()} }

func name(pid int, what string) string { return fmt.Sprintf("/proc/%d/%s", pid, what) }

// read returns a file of the process's, max bytes of it.
func read(pid int, what string, max int64) ([]byte, error) {
	f, err := os.Open(name(pid, what))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max))
	if errors.Is(err, syscall.ESRCH) {
		return nil, fs.ErrNotExist // it ended meanwhile
	}
	return b, err
}
