//go:build unix

package program

import (
	"os"
	"runtime"
	"syscall"
)

const (
	addressInUse   = syscall.EADDRINUSE
	addressNotOurs = syscall.EADDRNOTAVAIL
	notAllowed     = syscall.EACCES
)

// grant returns how this program may be allowed a reserved port.
func grant() string {
	program, err := os.Executable()
	if runtime.GOOS != "linux" || err != nil {
		return ""
	}
	return ", or allow this program any: sudo setcap cap_net_bind_service=+ep " + program
}
