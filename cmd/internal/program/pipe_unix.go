//go:build unix

package program

import (
	"os"
	"os/signal"
	"syscall"
)

// outliveReader keeps the process alive when whatever reads its stdout or stderr
// through a pipe ends first, as in "shoal relay 2>&1 | tee log" at Ctrl-C: a
// write then fails, instead of killing a process that has yet to save.
func outliveReader() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
