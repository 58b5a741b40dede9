package state

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrNoVolatile says that this system has no folder for Volatile.
var ErrNoVolatile = errors.New("no folder in memory: neither RUNTIME_DIRECTORY, XDG_RUNTIME_DIR, /run nor /dev/shm is a tmpfs that this user can write")

// owns is the file in which a volatile folder says whose it is.
const owns = "state-folder"

// maxVolatile bounds how many volatile folders are looked at.
const maxVolatile = 1024

// Volatile returns a folder that belongs to the state folder dir and ends with
// the machine's power: it lies in memory, and only this user can read it. Those
// of state folders that are gone are removed. Without such a place the error is
// ErrNoVolatile, and the caller keeps nothing.
func Volatile(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", fmt.Errorf("state: %w", err)
	}
	for _, base := range volatileBases() {
		if makePrivate(base) != nil {
			continue
		}
		sum := sha256.Sum256([]byte(dir))
		of := filepath.Join(base, hex.EncodeToString(sum[:8]))
		tidy(base, of)
		if makePrivate(of) == nil && ReplaceBytes(filepath.Join(of, owns), 0o600, []byte(dir)) == nil {
			return of, nil
		}
	}
	return "", ErrNoVolatile
}

// tidy removes the volatile folders of state folders that are gone, but for one.
func tidy(base, but string) {
	all, err := filepath.Glob(filepath.Join(base, "*", owns))
	if err != nil {
		return
	}
	for _, file := range all[:min(len(all), maxVolatile)] {
		of := filepath.Dir(file)
		dir, err := Read(file, 4096)
		if err != nil || of == but {
			continue
		}
		if _, err := os.Stat(string(dir)); errors.Is(err, os.ErrNotExist) {
			os.RemoveAll(of)
		}
	}
}
