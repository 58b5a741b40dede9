package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

const killAt = "SHOAL_TEST_KILL_AT"

func TestMain(m *testing.M) {
	if at := os.Getenv(killAt); at != "" {
		n, err := strconv.Atoi(at)
		if err != nil {
			panic(err)
		}
		replaceAndDie(n)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // thousands of damaged files
	os.Exit(m.Run())
}

// The file before and after. It is written in three calls.
var (
	before = bytes.Repeat([]byte("before "), 1000)
	parts  = [][]byte{bytes.Repeat([]byte("after "), 2000), []byte("and "), bytes.Repeat([]byte("more "), 3000)}
	after  = bytes.Join(parts, nil)
)

func writeParts(w io.Writer) error {
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// stopped calls at before each call, with the call's number, from 1. A write
// is two calls: one of its first half, one of the rest.
type stopped struct {
	disk
	at func(call int) error
	n  *int
}

func (s stopped) next() error {
	*s.n++
	return s.at(*s.n)
}

func (s stopped) create(path string, mode fs.FileMode) (file, error) {
	if err := s.next(); err != nil {
		return nil, err
	}
	f, err := s.disk.create(path, mode)
	return stoppedFile{f, s}, err
}

func (s stopped) rename(from, to string) error {
	if err := s.next(); err != nil {
		return err
	}
	return s.disk.rename(from, to)
}

func (s stopped) syncDir(path string) error {
	if err := s.next(); err != nil {
		return err
	}
	return s.disk.syncDir(path)
}

type stoppedFile struct {
	file
	s stopped
}

func (f stoppedFile) Write(b []byte) (n int, err error) {
	for _, half := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
		if err := f.s.next(); err != nil {
			return n, err
		}
		m, err := f.file.Write(half)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (f stoppedFile) Sync() error {
	if err := f.s.next(); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f stoppedFile) Close() error {
	if err := f.s.next(); err != nil {
		f.file.Close()
		return err
	}
	return f.file.Close()
}

// steps is how many calls one Replace of parts makes: create, two for each
// write, sync, close, rename, sync of the folder.
const steps = 1 + 2*3 + 1 + 1 + 1 + 1

// replaceAndDie kills this process before the n-th call of a Replace.
func replaceAndDie(n int) {
	calls = stopped{disk: system{}, n: new(int), at: func(call int) error {
		if call == n {
			self, _ := os.FindProcess(os.Getpid())
			self.Kill()
			select {} // until the signal is there
		}
		return nil
	}}
	if err := Replace(os.Getenv("SHOAL_TEST_FILE"), 0o600, writeParts); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func TestAKilledProcessLeavesTheOldFileOrTheNew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	killed := 0
	for n := 1; n <= steps+1; n++ {
		if err := ReplaceBytes(file, 0o600, before); err != nil {
			t.Fatal(err)
		}
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), killAt+"="+strconv.Itoa(n), "SHOAL_TEST_FILE="+file)
		out, err := child.CombinedOutput()
		if err != nil {
			killed++
		}
		got, readErr := os.ReadFile(file)
		whole := bytes.Equal(got, before) || bytes.Equal(got, after)
		if readErr != nil || !whole || err == nil && !bytes.Equal(got, after) {
			t.Errorf("killed before call %d: %d bytes, %v; %s", n, len(got), readErr, out)
		}
	}
	if killed != steps {
		t.Errorf("%d processes were killed, want %d", killed, steps)
	}
	if err := ReplaceBytes(file, 0o600, before); err != nil {
		t.Errorf("after an interrupted run: %v", err)
	}
	if left, _ := filepath.Glob(file + "*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestACallThatFailsLeavesTheOldFileAndNothingElse(t *testing.T) {
	defer func() { calls = system{} }()
	for n := 1; n <= steps; n++ {
		file := filepath.Join(t.TempDir(), "f")
		calls = system{}
		if err := ReplaceBytes(file, 0o600, before); err != nil {
			t.Fatal(err)
		}
		calls = stopped{disk: system{}, n: new(int), at: func(call int) error {
			if call == n {
				return syscall.ENOSPC
			}
			return nil
		}}
		if err := Replace(file, 0o600, writeParts); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("call %d failed: Replace = %v", n, err)
		}
		want := before
		if n == steps { // the folder could not be put on the disk: the new file may be there
			want = after
		}
		if got, err := os.ReadFile(file); !bytes.Equal(got, want) {
			t.Errorf("call %d failed: %d bytes, %v", n, len(got), err)
		}
		if left, _ := filepath.Glob(file + "*"); len(left) != 1 {
			t.Errorf("call %d failed: left behind %v", n, left)
		}
	}
}

// platter is a disk that may lose, when the power goes, whatever was not
// synced: the bytes of a file, or the change of a folder.
type platter struct {
	names map[string]*data // as the running system sees them
	sure  map[string]*data // as they are on the disk for certain
	maybe []map[string]*data
	after func() // called after each call
}

// data is a file's content: what was written, and what of it is on the disk.
type data struct{ written, synced []byte }

func (p *platter) create(path string, _ fs.FileMode) (file, error) {
	d := &data{}
	p.names[path] = d
	p.after()
	return platterFile{p, d}, nil
}

func (p *platter) rename(from, to string) error {
	p.names[to] = p.names[from]
	delete(p.names, from)
	p.maybe = append(p.maybe, map[string]*data{to: p.names[to]})
	p.after()
	return nil
}

func (p *platter) syncDir(string) error {
	for _, m := range p.maybe {
		for name, d := range m {
			p.sure[name] = d
		}
	}
	p.maybe = nil
	p.after()
	return nil
}

func (p *platter) remove(path string) error {
	delete(p.names, path)
	return nil
}

// outcomes returns what a file may hold after the power went.
func (p *platter) outcomes(name string) (all [][]byte) {
	for _, m := range append([]map[string]*data{p.sure}, p.maybe...) {
		if d := m[name]; d != nil {
			all = append(all, d.synced, d.written, d.written[:len(d.written)/2])
			if bytes.Equal(d.synced, d.written) {
				all = all[:len(all)-1]
			}
		}
	}
	return all
}

type platterFile struct {
	p *platter
	d *data
}

func (f platterFile) Write(b []byte) (int, error) {
	f.d.written = append(f.d.written, b...)
	f.p.after()
	return len(b), nil
}

func (f platterFile) Sync() error {
	f.d.synced = bytes.Clone(f.d.written)
	f.p.after()
	return nil
}

func (f platterFile) Close() error {
	f.p.after()
	return nil
}

func TestPowerThatGoesLeavesTheOldFileOrTheNew(t *testing.T) {
	defer func() { calls = system{} }()
	old := &data{before, before}
	p := &platter{names: map[string]*data{"f": old}, sure: map[string]*data{"f": old}}
	moments := 0
	p.after = func() {
		moments++
		for _, got := range p.outcomes("f") {
			if !bytes.Equal(got, before) && !bytes.Equal(got, after) {
				t.Errorf("after call %d the file may have %d bytes of neither", moments, len(got))
			}
		}
	}
	calls = p
	if err := Replace("f", 0o600, writeParts); err != nil {
		t.Fatal(err)
	}
	if moments < 8 {
		t.Errorf("%d calls were seen", moments)
	}
	for _, got := range p.outcomes("f") {
		if !bytes.Equal(got, after) {
			t.Error("Replace has returned, and the old file may come back")
		}
	}
}
