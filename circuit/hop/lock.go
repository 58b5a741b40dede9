package hop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrInUse says that another process works with the same state folder: two
// would show one identity with different keys and views.
var ErrInUse = errors.New("another process uses this state folder")

// Lock makes the state folder dir, mode 0700, and takes it for this process
// until the file returned is closed. The lock ends with the process too,
// however it ends.
func Lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	f, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w", dir, err)
	}
	return f, nil
}
