//go:build linux && race

package link

import "syscall"

// The race detector is told by package syscall alone that what happened before a
// write happened before the read that got it. These two tell it for calls that are
// made raw: they transfer nothing.

// willWrite comes before a write.
func willWrite() { syscall.Write(-1, nil) }

// hasRead comes after a read.
func hasRead(fd uintptr) { syscall.Read(int(fd), nil) }
