package state

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func kind(p Policy) *Kind {
	return &Kind{Name: "fruit", Version: 3, Limit: 1000, Policy: p, What: "the fruit", Lost: "new fruit is picked"}
}

var apples = []byte("apples\n\x00pears")

func saved(t testing.TB, p Policy) (path string, raw []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fruit")
	if err := kind(p).Save(path, apples); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, raw
}

func load(k *Kind, path string) (body []byte, found bool, err error) {
	found, err = k.Load(path, func(b []byte) error {
		body = b
		return nil
	})
	return body, found, err
}

func TestAFileSaysWhatItIs(t *testing.T) {
	path, raw := saved(t, Cache)
	want := "shoal fruit 3\napples\n\x00pearssha256 fc1631f5d6698f4b0caa68941e6bac906b190989a554268a803d4e5f6e9d994c\n"
	if string(raw) != want {
		t.Errorf("the file is %q, want %q", raw, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if body, found, err := load(kind(Cache), path); !found || err != nil || !bytes.Equal(body, apples) {
		t.Errorf("Load = %q, %v, %v", body, found, err)
	}
	if _, found, err := load(kind(Keep), path+"s"); found || err != nil {
		t.Errorf("a file that is missing: %v, %v", found, err)
	}
}

// damages returns every way in which a file of raw can be damaged.
func damages(raw []byte) map[string][]byte {
	d := map[string][]byte{"longer": append(bytes.Clone(raw), '\n'), "text": []byte("what is this?"), "huge": bytes.Repeat([]byte("x"), 5000)}
	for i := range raw {
		flipped := bytes.Clone(raw)
		flipped[i] ^= 1 << (i % 8)
		d["flip at "+string(rune('0'+i))] = flipped
		d["cut at "+string(rune('0'+i))] = raw[:i]
	}
	return d
}

func TestADamagedFileMeetsItsPolicy(t *testing.T) {
	for _, p := range []Policy{Cache, Erase, Keep} {
		path, raw := saved(t, p)
		for name, b := range damages(raw) {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			body, found, err := load(kind(p), path)
			if found || body != nil {
				t.Errorf("policy %d, %s: taken as %q", p, name, body)
			}
			left, _ := filepath.Glob(path + "*")
			switch kept := path + ".damaged-1"; p {
			case Cache:
				if got, _ := os.ReadFile(kept); err != nil || len(left) != 1 || !bytes.Equal(got, b) {
					t.Errorf("cache, %s: %v, left %v", name, err, left)
				}
				os.Remove(kept)
			case Erase:
				if err != nil || len(left) != 0 {
					t.Errorf("erase, %s: %v, left %v", name, err, left)
				}
			case Keep:
				if got, _ := os.ReadFile(path); len(left) != 1 || !bytes.Equal(got, b) {
					t.Errorf("keep, %s: the file was changed, left %v", name, left)
				}
				wantSaid(t, err, path, "the fruit", "new fruit is picked", "remove it")
			}
		}
	}
}

// wantSaid checks that an error names all of these.
func wantSaid(t *testing.T, err error, words ...string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("%v is no *Error", err)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not name %q: %v", w, err)
		}
	}
}

func TestAFileThatItsParserRefusesIsDamaged(t *testing.T) {
	path, _ := saved(t, Keep)
	refusal := errors.New("too sour")
	if found, err := kind(Keep).Load(path, func([]byte) error { return refusal }); found || !errors.Is(err, refusal) {
		t.Errorf("Load = %v, %v", found, err)
	}
	if found, err := kind(Cache).Load(path, func([]byte) error { return refusal }); found || err != nil {
		t.Errorf("Load = %v, %v", found, err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is still there")
	}
}

// A folder can't be read as a file, and may hold somebody's data: whatever the
// policy, it is never removed.
func TestAFolderInPlaceOfAFile(t *testing.T) {
	for _, p := range []Policy{Cache, Erase, Keep} {
		path := filepath.Join(t.TempDir(), "fruit")
		inside := filepath.Join(path, "inside")
		if err := os.MkdirAll(inside, 0o700); err != nil {
			t.Fatal(err)
		}
		_, found, err := load(kind(p), path)
		_, moved := os.Stat(filepath.Join(path+".damaged-1", "inside"))
		_, stayed := os.Stat(inside)
		if found || (err != nil) != (p == Keep) || (moved == nil) != (p != Keep) || (stayed == nil) != (p == Keep) {
			t.Errorf("policy %d: %v, %v; moved: %v, stayed: %v", p, found, err, moved, stayed)
		}
		if p != Keep {
			if err := kind(p).Save(path, apples); err != nil {
				t.Errorf("policy %d: Save afterwards: %v", p, err)
			}
		}
	}
}

func TestAFileTakesTheNameOfAFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fruit")
	if err := os.MkdirAll(filepath.Join(path, "inside"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := ReplaceBytes(path, 0o600, apples); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path+".damaged-1", "inside")); err != nil {
		t.Errorf("what was in the folder is gone: %v", err)
	}
}

func TestFewDamagedCopiesAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fruit")
	for range 3 * maxAside {
		os.WriteFile(path, []byte("x"), 0o600)
		if _, _, err := load(kind(Cache), path); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != maxAside {
		t.Errorf("%d copies, want %d", len(left), maxAside)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fruit")
	defer func() { calls = system{} }()
	calls = stopped{disk: system{}, n: new(int), at: func(int) error { return &fs.PathError{Op: "open", Path: path, Err: syscall.ENOSPC} }}
	err := kind(Cache).Save(path, apples)
	wantSaid(t, err, path, "the fruit", "Free some space")
	if strings.Count(err.Error(), path) != 1 {
		t.Errorf("the file is named twice: %v", err)
	}
}

func TestWhatLoadWouldRefuseIsNotSaved(t *testing.T) {
	path, _ := saved(t, Cache)
	if err := kind(Cache).Save(path, make([]byte, 1001)); err == nil {
		t.Error("saved more than the limit")
	}
	if body, _, err := load(kind(Cache), path); !bytes.Equal(body, apples) {
		t.Errorf("the old file is %q, %v", body, err)
	}
	if err := kind(Cache).Save(path, make([]byte, 1000)); err != nil {
		t.Error(err)
	}
	if _, found, err := load(kind(Cache), path); !found {
		t.Errorf("the largest body is not taken: %v", err)
	}
}

func TestReadIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	os.WriteFile(path, []byte("12345"), 0o600)
	if b, err := Read(path, 5); string(b) != "12345" || err != nil {
		t.Errorf("Read = %q, %v", b, err)
	}
	if _, err := Read(path, 4); err == nil {
		t.Error("five bytes are at most four")
	}
	if _, err := Read(filepath.Dir(path), 4); err == nil {
		t.Error("a folder was read")
	}
	if _, err := Read(path+"x", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestAStateFolderIsOneProcesss(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	locked, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", info.Mode(), err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("second Lock = %v, want %v", err, ErrInUse)
	}
	locked.Close()
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestALockThatCannotBeTaken(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "lock"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Lock(dir)
	wantSaid(t, err, filepath.Join(dir, "lock"))
	file := filepath.Join(dir, "file")
	os.WriteFile(file, nil, 0o600)
	_, err = Lock(file)
	wantSaid(t, err, file)
}

func FuzzLoad(f *testing.F) {
	_, raw := saved(f, Cache)
	f.Add(raw)
	f.Add([]byte("shoal fruit 3\n"))
	path := filepath.Join(f.TempDir(), "fruit")
	f.Fuzz(func(t *testing.T, b []byte) {
		os.WriteFile(path, b, 0o600)
		body, found, err := load(kind(Erase), path)
		if err != nil {
			t.Fatal(err)
		}
		if !found {
			return
		}
		kind(Erase).Save(path, body)
		if again, _ := os.ReadFile(path); !bytes.Equal(again, b) {
			t.Errorf("%q was accepted, and is not what Save writes", b)
		}
	})
}
