package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// disk is the calls of the operating system that Replace makes. Tests stop it
// between any two of them.
type disk interface {
	create(path string, mode fs.FileMode) (file, error) // a new file
	rename(from, to string) error
	syncDir(path string) error // puts what was renamed in the folder on the disk
	remove(path string) error
}

type file interface {
	io.WriteCloser
	Sync() error
}

var calls disk = system{}

// Replace makes what write writes the content of the file at path. Whatever
// ends the program or the machine, the file is then the old one or the new one,
// whole; it is the new one on the disk when Replace returns nil. Two goroutines
// or processes must not replace one file at the same time: the lock of the
// folder keeps processes apart.
func Replace(path string, mode fs.FileMode, write func(io.Writer) error) (err error) {
	// One name, so that an interrupted run leaves at most one such file, which
	// the next removes.
	next := path + ".new"
	if err := calls.remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := calls.create(next, mode)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = calls.rename(next, path)
	}
	if info, statErr := os.Lstat(path); err != nil && statErr == nil && info.IsDir() {
		if _, err = setAside(path, false); err == nil { // no file can take the place of a folder
			err = calls.rename(next, path)
		}
	}
	if err != nil {
		calls.remove(next) // it may hold a secret, and takes room on a full disk
		return err
	}
	return calls.syncDir(filepath.Dir(path))
}

// ReplaceBytes is Replace with content that lies in memory.
func ReplaceBytes(path string, mode fs.FileMode, b []byte) error {
	return Replace(path, mode, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// Read returns the content of the file at path, which must not be longer than
// limit bytes. The error is fs.ErrNotExist when there is none.
func Read(path string, limit int64) ([]byte, error) {
	f, _, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is longer than %d bytes", limit)}
	}
	return b, err
}

var errKind = errors.New("it is no regular file")

// openRegular opens a file for reading. Opening a pipe would wait for its other end.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, &fs.PathError{Op: "open", Path: path, Err: errKind}
	}
	f, err := os.Open(path)
	return f, info, err
}

// system is the disk of the operating system.
type system struct{}

func (system) create(path string, mode fs.FileMode) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err == nil && runtime.GOOS != "windows" {
		err = f.Chmod(mode) // whatever the umask takes away
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return f, nil
}

func (system) rename(from, to string) error { return os.Rename(from, to) }
func (system) syncDir(path string) error    { return syncDir(path) }
func (system) remove(path string) error     { return os.Remove(path) }
