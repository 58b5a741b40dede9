package program

import "golang.org/x/sys/windows"

const (
	addressInUse   = windows.WSAEADDRINUSE
	addressNotOurs = windows.WSAEADDRNOTAVAIL
	notAllowed     = windows.WSAEACCES
)

// grant returns nothing: Windows reserves no port for an administrator.
func grant() string { return "" }
