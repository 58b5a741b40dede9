package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrInUse says that another process works with the same state folder. Two
// would show one identity with different keys and views. The commands branch
// on it.
var ErrInUse = errors.New("another process uses this state folder")

// Lock makes the state folder dir, mode 0700, and takes it for this process
// until the file returned is closed. The lock ends with the process too,
// however it ends.
func Lock(dir string) (*os.File, error) {
	if err := MakeDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "lock")
	f, err := lock(path)
	if err != nil {
		return nil, &Error{What: "the lock of the state folder", File: path, Op: "take", Err: cause(err), Do: remedy(err)}
	}
	return f, nil
}

// MakeDir makes a folder of the state folder with all above it, mode 0700. One
// that is there is left as it is.
func MakeDir(dir string) error {
	_, missing := os.Stat(dir)
	err := os.MkdirAll(dir, 0o700)
	if err == nil && errors.Is(missing, fs.ErrNotExist) {
		err = syncDir(filepath.Dir(dir))
	}
	if err != nil {
		return &Error{What: "the state folder", File: dir, Op: "make", Err: cause(err), Do: remedy(err)}
	}
	return nil
}

// Remove removes the file at path, if there is one, from the disk too.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return &Error{What: "a state file", File: path, Op: "remove", Err: cause(err), Do: remedy(err)}
	}
	return nil
}
