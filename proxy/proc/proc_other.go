//go:build !linux

package proc

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// List returns the processes that this one can see. Their names are the only
// argument: other systems do not readily show more.
func List() ([]Process, error) {
	if runtime.GOOS == "windows" {
		// "name.exe","123","Console","1","12,345 K"
		out, err := exec.Command("tasklist", "/FO", "CSV", "/NH").Output()
		if err != nil {
			return nil, err
		}
		var all []Process
		for line := range strings.Lines(string(out)) {
			f := strings.Split(strings.Trim(strings.TrimSpace(line), `"`), `","`)
			if len(f) < 2 {
				continue
			}
			if pid, err := strconv.Atoi(f[1]); err == nil {
				all = append(all, Process{PID: pid, Args: []string{strings.TrimSuffix(f[0], ".exe")}})
			}
		}
		return all, nil
	}
	out, err := exec.Command("ps", "-A", "-o", "pid=,comm=").Output()
	if err != nil {
		return nil, err
	}
	var all []Process
	for line := range strings.Lines(string(out)) {
		number, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pid, err := strconv.Atoi(number); err == nil && name != "" {
			all = append(all, Process{PID: pid, Args: []string{strings.TrimSpace(name)}})
		}
	}
	return all, nil
}

// Children can't be seen here.
func Children(int) ([]int, error) { return nil, ErrUnsupported }

// Holder can't be seen here.
func Holder(local, remote netip.AddrPort) (p Process, ok bool) { return p, false }

// Listener can't be seen here.
func Listener(at netip.AddrPort) (p Process, ok bool) { return p, false }

// Holds can't be seen here.
func (p Process) Holds(local, remote netip.AddrPort) bool { return false }

// ID can't be seen here.
func (p Process) ID() ID { return ID{} }

// Mine can't be seen here, and is taken to be true.
func (p Process) Mine() bool { return true }

// Env can't be seen here.
func (p Process) Env(string) string { return "" }

// Path returns file.
func (p Process) Path(file string) string { return file }

// SameNetwork is always true here.
func (p Process) SameNetwork() bool { return true }

// SharesNetwork is always true here.
func (p Process) SharesNetwork(Process) bool { return true }

// Local can't be seen here.
func (p Process) Local() []netip.Addr { return nil }

// Sockets can't be seen here.
func (p Process) Sockets() ([]Socket, error) { return nil, ErrUnsupported }

// Interfaces can't be seen here.
func (p Process) Interfaces() []string { return nil }

// Groups can't be seen here.
func (p Process) Groups() []netip.Addr { return nil }

// IPv6 can't be seen here.
func (p Process) IPv6() bool { return false }

// Self returns this process.
func Self() Process { return Process{PID: os.Getpid(), Args: os.Args} }
