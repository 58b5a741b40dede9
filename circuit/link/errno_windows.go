package link

import (
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/shoal-p2p/shoal/circuit/fault"
)

// errnos are what the system's errors mean for a connection.
var errnos = map[syscall.Errno]fault.Cause{
	windows.WSAENETUNREACH:   fault.NoNetwork,
	windows.WSAENETDOWN:      fault.NoNetwork,
	windows.WSAEHOSTUNREACH:  fault.Unreachable,
	windows.WSAEHOSTDOWN:     fault.Unreachable,
	windows.WSAEADDRNOTAVAIL: fault.Source,
	windows.WSAEACCES:        fault.Blocked,
	windows.WSAEMFILE:        fault.NoSockets,
	windows.WSAENOBUFS:       fault.NoSockets,
	windows.WSAECONNREFUSED:  fault.Refused,
	windows.WSAETIMEDOUT:     fault.Timeout,
	windows.WSAECONNRESET:    fault.Closed,
	windows.WSAECONNABORTED:  fault.Closed,
}
