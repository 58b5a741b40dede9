//go:build !linux

package proc

import (
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// List returns the processes that this one can see, their names as the only
// argument: other systems tell no more without much ado.
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

// Mine is taken to be so: it can't be seen here.
func (p Process) Mine() bool { return true }

// Env can't be seen here.
func (p Process) Env(string) string { return "" }

// Path returns file.
func (p Process) Path(file string) string { return file }

// SameNetwork is always so here.
func (p Process) SameNetwork() bool { return true }

// Sockets can't be seen here.
func (p Process) Sockets() ([]Socket, error) { return nil, ErrUnsupported }

// Network can't be seen here.
func (p Process) Network(string) []byte { return nil }

// Self returns this process.
func Self() Process { return Process{} }
