package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// hidden is what below /run (or /var/run) resolves names for whoever connects,
// the name service cache, systemd-resolved, mDNS, and the system bus, behind
// which are resolved, avahi and NetworkManager; and what starts programs, which
// would be outside: systemd, snapd, and the daemons of containers.
var hidden = []string{
	"nscd",
	"nslcd",
	"systemd/resolve",
	"systemd/resolve.hook",
	"systemd/private",
	"avahi-daemon",
	"mdnsd",
	"dbus",
	"snapd.socket",
	"docker.sock",
	"containerd",
	"podman",
}

// privateMounts gives the calling process's mount namespace its own idea of
// how names resolve. Mounts that the host makes later still arrive, below
// directories that were there before; nothing goes the other way.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	for _, run := range []string{"/run", "/var/run"} {
		info, err := os.Lstat(run)
		if err != nil || !info.IsDir() {
			continue // not there, or a symlink to the other
		}
		if err := hideIn(run, hidden); err != nil {
			return fmt.Errorf("hide the resolvers in %s: %w", run, err)
		}
	}
	if err := coverUsers(); err != nil {
		return err
	}
	resolv := fmt.Sprintf("nameserver %v\noptions timeout:2 attempts:2\n", ResolverAddr)
	if err := replaceFile("/etc/resolv.conf", func([]byte) []byte { return []byte(resolv) }); err != nil {
		return err
	}
	return replaceFile("/etc/nsswitch.conf", nsswitch)
}

// The users' folders for sockets, and what in one of them stays: the screen.
const (
	userFolders = "/run/user/*"
	screen      = "wayland-"

	userDepth = 4 // of a folder in there
)

// coverUsers puts an empty file over each socket of the users' folders at which
// somebody listens, and an empty folder over what gvfs shows of other computers.
// Whoever listens there before the command starts is outside, and many fetch or
// start programs for others: the session bus, systemd, gvfs, dirmngr, podman.
// What else is in those folders stays as it is, also the way out of them for
// sockets of the command's own.
func coverUsers() error {
	folders, err := filepath.Glob(userFolders)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		err := unix.Mount("tmpfs", filepath.Join(folder, "gvfs"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, "mode=0755,size=4k")
		if err := coverError(err); err != nil {
			return err
		}
		if err := coverSockets(folder, userDepth); err != nil {
			return err
		}
	}
	return nil
}

// coverSockets covers those in folder, and depth folders down.
func coverSockets(folder string, depth int) error {
	entries, err := os.ReadDir(folder)
	if err != nil { // another user's
		return nil
	}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		switch {
		case e.IsDir() && depth > 0:
			err = coverSockets(path, depth-1)
		case e.Type()&fs.ModeSocket != 0 && !strings.HasPrefix(e.Name(), screen) && listens(path):
			err = coverError(unix.Mount("/dev/null", path, "", unix.MS_BIND, ""))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// coverError is nil for what has just gone, or is out of the command's reach too.
func coverError(err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return fmt.Errorf("cover a user's socket: %w", err)
}

// listens says if somebody listens at a socket. One left behind by a program
// that is gone may be the command's own, which makes it anew. A datagram socket
// asks: whoever listens for connections does not hear of it.
func listens(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return !errors.Is(unix.Connect(fd, &unix.SockaddrUnix{Name: path}), unix.ECONNREFUSED)
}

// nsswitch returns old with names of hosts looked up in files and DNS alone:
// every other source asks some daemon outside. Users and groups stay as they are.
func nsswitch(old []byte) []byte {
	var out strings.Builder
	for line := range strings.Lines(string(old)) {
		db, _, _ := strings.Cut(line, ":")
		if db = strings.TrimSpace(db); db != "hosts" && db != "networks" {
			out.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	out.WriteString("hosts: files dns\nnetworks: files\n")
	return []byte(out.String())
}

// hideIn covers dir with a file system that holds everything dir does now,
// except for the paths in gone. What a daemon puts there later isn't seen: a
// resolver may start after us.
func hideIn(dir string, gone []string) error {
	old, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(old)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return err
	}
	if err := bindEntries(old, dir, gone); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		return nil // root's daemons write their pid files here
	}
	// A remount replaces the flags: the first two stay.
	return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
}

// bindEntries makes every entry of the directory old appear below dir.
func bindEntries(old int, dir string, gone []string) error {
	from := fmt.Sprintf("/proc/self/fd/%d", old)
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var below []string // what is hidden deeper down
		skip := false
		for _, g := range gone {
			first, rest, deeper := strings.Cut(g, "/")
			switch {
			case first != e.Name():
			case deeper:
				below = append(below, rest)
			default:
				skip = true
			}
		}
		if skip {
			continue
		}
		err := bindEntry(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name()), e.Type(), below)
		// What has just gone, or we may not look into, is what it was: not there.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

func bindEntry(from, to string, t fs.FileMode, below []string) error {
	switch {
	case t&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case t.IsDir() && len(below) > 0:
		old, err := unix.Open(from, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(old)
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		return bindEntries(old, to, below)
	case t.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	default:
		f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	}
	return unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
}

// replaceFile puts what edit makes of file's content in file's place. A file
// that isn't there stays away: resolvers then ask 127.0.0.1, where we answer.
// One that was a symlink into a directory we hid is made anew.
func replaceFile(file string, edit func(old []byte) []byte) error {
	old, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		target, lerr := os.Readlink(file)
		if lerr != nil {
			return nil
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(file), target)
		}
		if os.MkdirAll(path.Dir(target), 0o755) != nil || os.WriteFile(target, edit(nil), 0o644) != nil {
			return nil // not in a directory of ours
		}
		return nil
	}
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp("", "shoal-run-*")
	if err != nil { // not wrapped: a closed folder is no refusal of namespaces
		return fmt.Errorf("own %s: %v", file, err)
	}
	// The mount keeps the file; its name can go.
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(edit(old))
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	if err := unix.Mount(tmp.Name(), file, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("own %s: %w", file, err)
	}
	return nil
}
