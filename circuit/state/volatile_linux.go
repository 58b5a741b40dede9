package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// File systems that lie in memory, from linux/magic.h.
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

// volatileBases returns where the volatile folders of this user may lie, the
// best place first. systemd gives a service the first of them, and a user's
// session the second.
func volatileBases() (bases []string) {
	service, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	user := fmt.Sprint(os.Geteuid())
	for _, dir := range []string{service, os.Getenv("XDG_RUNTIME_DIR"), "/run/user/" + user, "/run"} {
		if filepath.IsAbs(dir) {
			bases = append(bases, filepath.Join(dir, "shoal"))
		}
	}
	return append(bases, "/dev/shm/shoal-"+user) // which all users write to
}

var errNotPrivate = errors.New("state: not a folder in memory of this user's alone")

// makePrivate makes a folder that only this user can read, in memory. It does
// not accept one that another user made, or made a link of.
func makePrivate(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(dir), &fs); err != nil {
		return err
	}
	if kind := uint32(fs.Type); kind != tmpfsMagic && kind != ramfsMagic {
		return errNotPrivate
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() || info.Mode().Perm() != 0o700 {
		return errNotPrivate
	}
	return nil
}
