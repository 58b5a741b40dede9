//go:build !linux

package link

// yield does nothing here.
func yield() {}
