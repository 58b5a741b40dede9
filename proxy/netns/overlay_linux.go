package netns

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// overlay is the files that lie over the system's for the command alone. They
// are in a tmpfs that no path leads to: a disk may be full, read-only or missing.
type overlay struct {
	dir   int // the tmpfs
	files []laid
	trust []byte // the certificate that lies over the system's, if any
}

// laid is one file of an overlay; its number is its name there.
type laid struct {
	path    string                 // the system's file
	content func() ([]byte, error) // of ours
}

const (
	overlaySize = "mode=0700,size=4m"

	// keepEvery is how often the overlay is looked at: when the host puts a new
	// file in the place of an old one, what lay over the old one goes with it.
	keepEvery = time.Second
)

// overlayPlaces are folders on which the tmpfs may be mounted, the first that
// exists.
var overlayPlaces = []string{"/etc", "/run", "/var", "/usr"}

func openOverlay() (*overlay, error) {
	var errs error
	for _, place := range overlayPlaces {
		dir, err := mountBelow(place)
		if err == nil {
			return &overlay{dir: dir}, nil
		}
		errs = errors.Join(errs, err)
	}
	return nil, fmt.Errorf("a tmpfs for files of our own: %w", errs)
}

// mountBelow mounts a tmpfs on a folder, and on top of that the folder itself
// again. The tmpfs is within reach of the returned descriptor alone.
func mountBelow(folder string) (dir int, err error) {
	old, err := openPath(folder)
	if err != nil {
		return -1, err
	}
	defer unix.Close(old)
	if err := unix.Mount("tmpfs", folder, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, overlaySize); err != nil {
		return -1, os.NewSyscallError("mount "+folder, err)
	}
	dir, err = openPath(folder)
	for _, m := range []struct {
		from, to string
		flags    uintptr
	}{
		{"", folder, unix.MS_UNBINDABLE}, // or it would be a part of what comes on top
		{fdPath(old), folder, unix.MS_BIND | unix.MS_REC},
		{"", fdPath(dir), unix.MS_PRIVATE},
	} {
		if err == nil {
			err = os.NewSyscallError("mount "+folder, unix.Mount(m.from, m.to, "", m.flags, ""))
		}
	}
	if err != nil {
		return -1, errors.Join(err, unix.Unmount(folder, unix.MNT_DETACH))
	}
	return dir, nil
}

func openPath(folder string) (int, error) {
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: folder, Err: err}
	}
	return fd, nil
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// lay lays a file of ours over a system's file, now and whenever keep finds
// another file there. Nothing happens while there is none, or a link that leads
// nowhere. A folder in its place (Docker makes one where a file is missing) goes
// under together with the folder that it is in.
func (o *overlay) lay(path string, content func() ([]byte, error)) error {
	o.files = append(o.files, laid{path, content})
	return o.put(len(o.files) - 1)
}

// text returns a file's content for lay.
func text(content []byte) func() ([]byte, error) {
	return func() ([]byte, error) { return content, nil }
}

// keep lays the files again that the host has replaced meanwhile.
func (o *overlay) keep() {
	for i := range o.files {
		_ = o.put(i) // in a second once more
	}
}

func (o *overlay) put(i int) error {
	f := o.files[i]
	info, err := os.Stat(f.path)
	if err != nil || !info.IsDir() && !info.Mode().IsRegular() || o.has(f.path) {
		return nil
	}
	content, err := f.content()
	if err == nil && info.IsDir() {
		dir, name := filepath.Split(f.path)
		err = cover(dir, nil, map[string][]byte{name: content}, os.Geteuid() != 0)
	}
	own := filepath.Join(fdPath(o.dir), strconv.Itoa(i))
	if err == nil {
		err = writeFor(own, content)
	}
	if err == nil {
		err = os.NewSyscallError("mount", unix.Mount(own, f.path, "", unix.MS_BIND, ""))
	}
	if err != nil {
		return fmt.Errorf("own %s: %w", f.path, err)
	}
	return nil
}

// has reports whether what path leads to is a file of the overlay.
func (o *overlay) has(path string) bool {
	var file, dir unix.Stat_t
	return unix.Stat(path, &file) == nil && unix.Fstat(o.dir, &dir) == nil && file.Dev == dir.Dev
}

func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: over %d bytes", path, limit)
	}
	return b, err
}
