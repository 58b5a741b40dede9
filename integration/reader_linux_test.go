package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-p2p/shoal/integration/hosts"
	"github.com/shoal-p2p/shoal/integration/process"
)

// reader is somebody at a machine of their own, with the project's folder and
// nothing else, who types what a page says. Commands can change what is theirs,
// and find the rest of the machine read-only.
type reader struct {
	host    *hosts.Host
	dir     string // where what is theirs really is
	env     []string
	running []*typed
	count   int
}

// What is theirs is there, seen from the reader's machine.
const (
	theirs  = "/mnt"
	project = theirs + "/shoal"
	homeDir = theirs + "/home"
)

// seatVariable makes the test binary a reader's shell: it names what is theirs.
const seatVariable = "SHOAL_TEST_SEAT"

func newReader(t *testing.T, h *hosts.Host) *reader {
	t.Helper()
	r := &reader{host: h, dir: t.TempDir()}
	for _, d := range []string{"home", "tmp", "log"} {
		if err := os.Mkdir(filepath.Join(r.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyProject(root, filepath.Join(r.dir, "shoal")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "env", "-json", "GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS", "GOTOOLCHAIN").Output()
	if err != nil {
		t.Fatal(err)
	}
	var goEnv map[string]string
	if err := json.Unmarshal(out, &goEnv); err != nil {
		t.Fatal(err)
	}
	r.env = append(os.Environ(), seatVariable+"="+r.dir, "HOME="+homeDir, "TMPDIR=/tmp", "XDG_CONFIG_HOME=", "XDG_CACHE_HOME=", "XDG_RUNTIME_DIR=",
		"PATH="+project+"/bin:"+os.Getenv("PATH"))
	for name, value := range goEnv {
		r.env = append(r.env, name+"="+value)
	}
	t.Cleanup(func() {
		if err := r.leaves(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// leaves ends what r has started and not stopped.
func (r *reader) leaves() error {
	var errs []error
	for _, c := range slices.Clone(r.running) {
		errs = append(errs, r.stops(c))
	}
	return errors.Join(errs...)
}

// installed gives r the programs, as `make build` does.
func (r *reader) installed(t *testing.T) {
	t.Helper()
	bin := filepath.Join(r.dir, "shoal", "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{shoal(), shoalTracker()} {
		if err := os.Link(program, filepath.Join(bin, filepath.Base(program))); err != nil {
			t.Fatal(err)
		}
	}
}

// copyProject copies what somebody has who has just fetched the project.
func copyProject(from, to string) error {
	return filepath.WalkDir(from, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		info, err := e.Info()
		switch {
		case err != nil:
			return err
		case name == ".git" && !e.IsDir():
			return nil
		case name == ".git", name == "bin":
			return fs.SkipDir
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		case !info.Mode().IsRegular():
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), text, info.Mode().Perm())
	})
}

// typed is a command that a reader has typed.
type typed struct {
	line    string
	log     string
	process *process.Process
}

func (c *typed) output() string {
	b, _ := os.ReadFile(c.log)
	return string(b)
}

// types has a shell in the project's folder begin a command.
func (r *reader) types(line string) (*typed, error) {
	cmd := r.host.Command("unshare", "--mount", "--", os.Args[0], line)
	cmd.Env = r.env
	r.count++
	c := &typed{line: line, log: filepath.Join(r.dir, "log", fmt.Sprint(r.count))}
	var err error
	if c.process, err = process.Start(line, cmd, c.log); err != nil {
		return nil, err
	}
	r.running = append(r.running, c)
	return c, nil
}

// stops ends a command that runs, as Ctrl-C or a service manager does.
func (r *reader) stops(c *typed) error {
	r.running = slices.DeleteFunc(r.running, func(other *typed) bool { return other == c })
	err := c.process.Stop()
	if code := c.process.ExitCode(); err == nil && code != 0 {
		err = fmt.Errorf("on %s: %s: at its end, exit code %d: %s", r.host.Name, c.line, code, c.output())
	}
	return err
}

// kills ends a command that does not do what it should.
func (r *reader) kills(c *typed) {
	r.running = slices.DeleteFunc(r.running, func(other *typed) bool { return other == c })
	c.process.Kill()
}

// takeSeat turns this process, alone in a mount namespace, into the shell that
// runs line: what is the reader's is at theirs and /tmp, and all else read-only
// but what programs need.
func takeSeat(dir, line string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	mine := []struct{ from, at string }{{dir, theirs}, {filepath.Join(dir, "tmp"), "/tmp"}, {os.Getenv("GOCACHE"), os.Getenv("GOCACHE")}}
	trees := make([]int, len(mine))
	for i, m := range mine {
		var err error
		if trees[i], err = unix.OpenTree(unix.AT_FDCWD, m.from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC); err != nil {
			return fmt.Errorf("%s: %w", m.from, err)
		}
	}
	for _, set := range []struct {
		at   string
		attr unix.MountAttr
	}{
		{"/", unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}},
		{"/proc", unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}},
		{"/dev", unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}},
		{"/run", unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}},
	} {
		if err := unix.MountSetattr(unix.AT_FDCWD, set.at, unix.AT_RECURSIVE, &set.attr); err != nil {
			return fmt.Errorf("%s: %w", set.at, err)
		}
	}
	for i, m := range mine {
		os.MkdirAll(m.at, 0o700) // the cache may be in /tmp
		if err := unix.MoveMount(trees[i], "", unix.AT_FDCWD, m.at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("%s: %w", m.at, err)
		}
	}
	if err := errors.Join(os.Chdir(project), os.Unsetenv(seatVariable)); err != nil {
		return err
	}
	shell, err := exec.LookPath("bash")
	if err != nil {
		return err
	}
	return syscall.Exec(shell, []string{"bash", "-c", line}, os.Environ()) // whose process one command becomes
}
