package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// rootCaps is what a command that runs as root keeps: being root over files
// and users. Nothing in it reaches a namespace, an interface or a mount.
var rootCaps = []int{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID,
	unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID,
}

// become turns this process into the command: args are its path and its
// arguments. It doesn't return.
func become(args []string) {
	err := confine()
	if err == nil {
		err = syscall.Exec(args[0], args[1:], os.Environ())
	}
	code := ExitNotRunable
	if errors.Is(err, fs.ErrNotExist) {
		code = ExitNotFound
	}
	fmt.Fprintf(os.Stderr, "shoal: can't run %s: %v\n", args[0], err)
	os.Exit(code)
}

// confine takes from this thread what could undo the namespaces: it can't
// change an interface or a mount, holds no socket of the host's, and dies with
// the supervisor.
func confine() error {
	parent := os.Getppid()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("death signal: %w", err)
	}
	if os.Getppid() != parent {
		os.Exit(ExitNotStarted)
	}
	if err := closeSockets(); err != nil {
		return err
	}
	return dropCaps()
}

func dropCaps() error {
	keep := rootCaps
	if os.Geteuid() != 0 {
		keep = nil
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && err != unix.EINVAL {
		return fmt.Errorf("capabilities: %w", err)
	}
	for c := 0; ; c++ {
		if held, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err != nil {
			break // past the last one this kernel has
		} else if held == 0 || slices.Contains(keep, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("capability %d: %w", c, err)
		}
	}
	var data [2]unix.CapUserData
	for _, c := range keep {
		data[c/32].Permitted |= 1 << (c % 32)
	}
	for i := range data {
		data[i].Effective = data[i].Permitted
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}

// closeSockets closes every socket that this program was started with and
// would pass on: it belongs to the host's network. Standard input, output and
// error stay what the user made them.
func closeSockets() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("inherited sockets: %w", err)
	}
	for _, e := range fds {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
