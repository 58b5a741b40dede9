//go:build !windows

package link

import (
	"syscall"

	"github.com/shoal-p2p/shoal/circuit/fault"
)

// errnos are what the system's errors mean for a connection.
var errnos = map[syscall.Errno]fault.Cause{
	syscall.ENETUNREACH:   fault.NoNetwork,
	syscall.ENETDOWN:      fault.NoNetwork,
	syscall.EHOSTUNREACH:  fault.Unreachable,
	syscall.EHOSTDOWN:     fault.Unreachable,
	syscall.EADDRNOTAVAIL: fault.Source,
	syscall.EACCES:        fault.Blocked,
	syscall.EPERM:         fault.Blocked,
	syscall.EMFILE:        fault.NoSockets,
	syscall.ENFILE:        fault.NoSockets,
	syscall.ENOBUFS:       fault.NoSockets,
	syscall.ECONNREFUSED:  fault.Refused,
	syscall.ETIMEDOUT:     fault.Timeout,
	syscall.ECONNRESET:    fault.Closed,
	syscall.ECONNABORTED:  fault.Closed,
	syscall.EPIPE:         fault.Closed,
}
