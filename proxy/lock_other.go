//go:build !unix

package proxy

import (
	"fmt"
	"os"
)

// lock takes file for this process. Without flock only an open file says so:
// on Windows that alone keeps it from being removed, not from being opened.
func lock(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	return f, nil
}
