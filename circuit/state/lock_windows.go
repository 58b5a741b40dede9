package state

import (
	"errors"
	"os"
	"syscall"
)

// Errors of Windows that package syscall has no name for.
const (
	writeProtect     = syscall.Errno(19)  // ERROR_WRITE_PROTECT
	sharingViolation = syscall.Errno(32)  // ERROR_SHARING_VIOLATION: another process has the file open
	fullDisk         = syscall.Errno(112) // ERROR_DISK_FULL
)

// lock opens the file so that no other process can open it.
func lock(path string) (*os.File, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, sharingViolation) {
		err = ErrInUse
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(h), path), nil
}

// syncDir does nothing: Windows opens no folder for writing.
func syncDir(string) error { return nil }

func diskFull(err error) bool { return errors.Is(err, fullDisk) }
func readOnly(err error) bool { return errors.Is(err, writeProtect) }
