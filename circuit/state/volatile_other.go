//go:build !linux

package state

// volatileBases returns nothing: no folder of this system lies in memory.
func volatileBases() []string { return nil }

func makePrivate(string) error { return ErrNoVolatile }
