// Package meter reads from Linux's /proc what processes have used.
// Not here: which processes, and what their figures are compared with.
package meter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of the times in /proc/PID/stat: USER_HZ, 100 on every Linux.
const tick = time.Second / 100

// CPU returns the processor time that the processes have used since their
// start, in user and system mode together, to a hundredth of a second each.
func CPU(pids ...int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		t, err := one(pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

func one(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("meter: %w", err)
	}
	t, err := parseStat(b)
	if err != nil {
		return 0, fmt.Errorf("meter: process %d: %w", pid, err)
	}
	return t, nil
}

// parseStat takes utime and stime, fields 14 and 15, from /proc/PID/stat
// (proc_pid_stat(5)). Field 2 is the program's name in parentheses and may hold
// anything, parentheses too.
func parseStat(b []byte) (time.Duration, error) {
	at := bytes.LastIndexByte(b, ')')
	if at < 0 {
		return 0, errors.New("stat names no program")
	}
	fields := strings.Fields(string(b[at+1:])) // from field 3 on
	if len(fields) < 13 {
		return 0, fmt.Errorf("stat of %d fields, want at least 15", len(fields)+2)
	}
	var ticks uint64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseUint(f, 10, 63)
		if err != nil {
			return 0, fmt.Errorf("stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// Resident returns the memory that a process holds in RAM, bytes.
func Resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("meter: %w", err)
	}
	n, err := parseStatus(string(b))
	if err != nil {
		return 0, fmt.Errorf("meter: process %d: %w", pid, err)
	}
	return n, nil
}

// parseStatus takes VmRSS from /proc/PID/status (proc_pid_status(5)).
func parseStatus(s string) (int64, error) {
	for line := range strings.Lines(s) {
		rest, ok := strings.CutPrefix(line, "VmRSS:")
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) != 2 || fields[1] != "kB" {
			return 0, fmt.Errorf("status: VmRSS is %q", strings.TrimSpace(rest))
		}
		n, err := strconv.ParseInt(fields[0], 10, 40)
		return n << 10, err
	}
	return 0, errors.New("status without VmRSS")
}
