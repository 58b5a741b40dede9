package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxFile bounds a file of settings, in bytes; real ones have a few thousand.
const maxFile = 1 << 20

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s: more than %d bytes are no settings", name, maxFile)
	}
	return b, err
}

var errMeanwhile = errors.New("setup: the client's settings file has changed since it was read: run this again")

// replace puts new bytes in a file's place if it still holds the old ones. The
// change is atomic and keeps mode and owner. A symbolic link stays one.
func replace(file string, old, new []byte) error {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".shoal-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := keepOwner(tmp, info); err != nil {
		return err
	}
	if err := tmp.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if _, err := tmp.Write(new); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if now, err := readFile(file); err != nil || !bytes.Equal(now, old) {
		return errors.Join(errMeanwhile, err)
	}
	return os.Rename(tmp.Name(), file)
}
