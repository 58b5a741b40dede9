//go:build unix && !linux

package link

import "syscall"

// readNow reads what is there; the error is EAGAIN when nothing is.
func readNow(fd uintptr, b []byte) (int, error) { return syscall.Read(int(fd), b) }

// writeNow writes as much as fits; the error is EAGAIN when nothing does.
func writeNow(fd uintptr, b []byte) (int, error) { return syscall.Write(int(fd), b) }
