// Package meter measures what processes have used, where Linux shows it.
// Not here: which processes, and what their figures are compared with.
package meter

import (
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// tick is the unit of the times in /proc/PID/stat: USER_HZ, 100 on every Linux.
const tick = time.Second / 100

// CPU returns the processor time that the processes have used since their
// start, in user and system mode together, to a hundredth of a second each.
func CPU(pids ...int) (time.Duration, error) {
	var ticks uint
	for _, pid := range pids {
		stat, err := stat(pid)
		if err != nil {
			return 0, err
		}
		ticks += stat.UTime + stat.STime
	}
	return time.Duration(ticks) * tick, nil
}

// Resident returns the memory that a process holds in RAM, bytes.
func Resident(pid int) (int64, error) {
	stat, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return int64(stat.ResidentMemory()), nil
}

func stat(pid int) (procfs.ProcStat, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return procfs.ProcStat{}, fmt.Errorf("meter: %w", err)
	}
	s, err := p.Stat()
	if err != nil {
		return s, fmt.Errorf("meter: process %d: %w", pid, err)
	}
	return s, nil
}
