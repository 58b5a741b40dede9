//go:build linux && !race

package link

func willWrite()      {}
func hasRead(uintptr) {}
