package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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
// how names resolve and, unless trust is nil, of whom to trust. Mounts that the
// host makes later still arrive, below directories that were there before;
// nothing goes the other way.
func privateMounts(trust []byte, program string) (*overlay, error) {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("mount namespace: %w", err)
	}
	for _, run := range []string{"/run", "/var/run"} {
		info, err := os.Lstat(run)
		if err != nil || !info.IsDir() {
			continue // not there, or a symlink to the other
		}
		readOnly := os.Geteuid() != 0 // root's daemons write their pid files here
		var add map[string][]byte
		if dir, file := filepath.Split(trustFile); trust != nil && filepath.Clean(dir) == run {
			add = map[string][]byte{file: trust}
		}
		if err := cover(run, hidden, add, readOnly); err != nil {
			return nil, fmt.Errorf("hide the resolvers in %s: %w", run, err)
		}
	}
	if err := coverUsers(); err != nil {
		return nil, err
	}
	own, err := openOverlay()
	if err != nil {
		return nil, err
	}
	resolv := fmt.Sprintf("nameserver %v\noptions timeout:2 attempts:2\n", ResolverAddr)
	if err := own.lay("/etc/resolv.conf", text([]byte(resolv))); err != nil {
		return nil, err
	}
	if err := own.lay("/etc/nsswitch.conf", ownNsswitch); err != nil {
		return nil, err
	}
	if trust != nil {
		trustOnly(own, trust, program)
	}
	return own, nil
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

// listens reports whether somebody listens at a socket. One left behind by a
// program that is gone may be the command's own, which makes it anew. A datagram
// socket asks: who listens for connections does not notice.
func listens(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return !errors.Is(unix.Connect(fd, &unix.SockaddrUnix{Name: path}), unix.ECONNREFUSED)
}

const maxNsswitch = 64 << 10

func ownNsswitch() ([]byte, error) {
	old, err := readUpTo("/etc/nsswitch.conf", maxNsswitch)
	if err != nil { // out of the command's reach, too
		old = nil
	}
	return nsswitch(old), nil
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

// cover lays a tmpfs over dir that holds everything dir does now, but for the
// paths in gone, and the files in add. What a daemon puts there later isn't
// seen: a resolver may start after us.
func cover(dir string, gone []string, add map[string][]byte, readOnly bool) error {
	old, err := openPath(dir)
	if err != nil {
		return err
	}
	defer unix.Close(old)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return err
	}
	for name, content := range add {
		gone = append(gone, name)
		if err := writeFor(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	if err := bindEntries(old, dir, gone); err != nil {
		return err
	}
	if !readOnly {
		return nil
	}
	// A remount replaces the flags: the first two stay.
	return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
}

// writeFor writes a file that everybody may read, whatever the umask.
func writeFor(path string, content []byte) error {
	err := os.WriteFile(path, content, 0o644)
	if err == nil {
		err = os.Chmod(path, 0o644)
	}
	return err
}

// bindEntries makes every entry of the directory old appear below dir.
func bindEntries(old int, dir string, gone []string) error {
	from := fdPath(old)
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
