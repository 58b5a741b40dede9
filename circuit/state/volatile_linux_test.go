package state

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// inMemory returns a folder on a tmpfs for a test, and makes it the only place
// that Volatile looks at first.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shoal-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("RUNTIME_DIRECTORY", dir+":/elsewhere")
	return dir
}

func TestAVolatileFolderIsInMemoryAndThisUsersAlone(t *testing.T) {
	base, dir := inMemory(t), t.TempDir()
	of, err := Volatile(dir)
	if err != nil || !strings.HasPrefix(of, filepath.Join(base, "shoal")+"/") {
		t.Fatalf("Volatile = %q, %v", of, err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(of, &fs); err != nil || uint32(fs.Type) != tmpfsMagic {
		t.Errorf("its file system is %x, %v", fs.Type, err)
	}
	for _, d := range []string{filepath.Dir(of), of} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, %v", d, info.Mode(), err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if again, err := Volatile(link); again != of {
		t.Errorf("by another name it is %q, %v, want %q", again, err, of)
	}
	if other, err := Volatile(t.TempDir()); other == of || err != nil {
		t.Errorf("another state folder has %q, %v", other, err)
	}
}

func TestAFolderOnADiskIsNotVolatile(t *testing.T) {
	base, dir := inMemory(t), t.TempDir()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || uint32(fs.Type) == tmpfsMagic {
		dir = "/" // the tests' own folder may lie in memory
	}
	t.Setenv("RUNTIME_DIRECTORY", dir)
	t.Setenv("XDG_RUNTIME_DIR", base)
	of, err := Volatile(base)
	if err != nil || !strings.HasPrefix(of, base) {
		t.Errorf("Volatile = %q, %v, want one in %s", of, err, base)
	}
}

func TestAFolderThatOthersMadeOrCanReadIsNotVolatile(t *testing.T) {
	base, state := inMemory(t), t.TempDir()
	shoal := filepath.Join(base, "shoal")
	elsewhere := filepath.Join(base, "elsewhere")
	os.Mkdir(elsewhere, 0o700)
	for name, make := range map[string]func() error{
		"readable by all": func() error { return errors.Join(os.Mkdir(shoal, 0o700), os.Chmod(shoal, 0o755)) },
		"a link":          func() error { return os.Symlink(elsewhere, shoal) },
		"a file":          func() error { return os.WriteFile(shoal, nil, 0o700) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if of, _ := Volatile(state); strings.HasPrefix(of, base) {
			t.Errorf("%s: %s was taken", name, of)
		}
		os.Remove(shoal)
	}
}

func TestTheVolatileFolderOfAGoneStateFolderGoes(t *testing.T) {
	inMemory(t)
	dir, stays := filepath.Join(t.TempDir(), "a"), t.TempDir()
	os.Mkdir(dir, 0o700)
	of, err := Volatile(dir)
	kept, err2 := Volatile(stays)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	os.Remove(dir)
	if _, err := Volatile(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(of); !errors.Is(err, os.ErrNotExist) {
		t.Error("it is still there")
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error("one of a state folder that stays is gone")
	}
}

// A program that ran as another user once leaves files that can't be read.
func TestAFileThatCannotBeReadMeetsItsPolicy(t *testing.T) {
	for _, p := range []Policy{Cache, Erase, Keep} {
		dir := inMemory(t)
		path := filepath.Join(dir, "fruit")
		if err := kind(p).Save(path, apples); err != nil {
			t.Fatal(err)
		}
		raw, _ := os.ReadFile(path)
		var found bool
		var err error
		unprivileged(t, dir, func() {
			os.Chmod(path, 0)
			_, found, err = load(kind(p), path)
			os.Chmod(path+".damaged-1", 0o600)
		})
		if p == Keep {
			wantSaid(t, err, path, "permission denied", "new fruit is picked", "Make the folder and its files yours")
			continue
		}
		if got, _ := os.ReadFile(path + ".damaged-1"); found || err != nil || string(got) != string(raw) {
			t.Errorf("policy %d: %v, %v, kept %d bytes", p, found, err, len(got))
		}
	}
}

// unprivileged calls f as a user who owns dir and what is in it, and is not
// root, who may read everything.
func unprivileged(t *testing.T, dir string, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	const nobody = 65534
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, file := range append(files, dir) {
		if err := os.Chown(file, nobody, -1); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread() // the user of this thread alone changes
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setfsuid(0)
	f()
}
