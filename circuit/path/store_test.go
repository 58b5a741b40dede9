package path

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func saved(t *testing.T) (dir, guards string, c *Chooser) {
	t.Helper()
	dir = t.TempDir()
	guards = filepath.Join(dir, "guards")
	c = New(Rules{}, testRand(1), nil, nil)
	if _, err := c.Choose(day0, network(50), key(0), 2, Relay{}); err != nil {
		t.Fatal(err)
	}
	c.GuardResult(c.guards.list[0].id, true)
	c.GuardDown(day0, c.guards.list[1].id)
	if err := c.SaveGuards(guards); err != nil {
		t.Fatal(err)
	}
	return dir, guards, c
}

func TestGuardsSurviveARestart(t *testing.T) {
	dir, guards, c := saved(t)
	gs, err := LoadGuards(guards)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := New(Rules{}, testRand(99), gs, nil).GuardStatus(), c.GuardStatus(); !slices.Equal(got, want) {
		t.Errorf("guards after a restart: %v, want %v", got, want)
	}
	if info, _ := os.Stat(guards); info.Mode().Perm() != 0600 {
		t.Errorf("mode %v, want 0600", info.Mode().Perm())
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%d files left, want 1", len(entries))
	}
}

func TestNothingIsWrittenWithoutAChange(t *testing.T) {
	_, guards, c := saved(t)
	os.Remove(guards)
	if err := c.SaveGuards(guards); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(guards); !errors.Is(err, os.ErrNotExist) {
		t.Error("an unchanged set was written again")
	}
	c.GuardResult(c.guards.list[0].id, false)
	if err := c.SaveGuards(filepath.Join(guards, "no such folder")); err == nil {
		t.Fatal("saved into nowhere")
	}
	if err := c.SaveGuards(guards); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(guards); err != nil {
		t.Error("a change that couldn't be written was lost")
	}
}

func TestAMissingFileIsAnEmptySet(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	gs, err := LoadGuards(none)
	if gs == nil || err != nil {
		t.Errorf("%v, %v", gs, err)
	}
}

func TestFilesThatCannotBeAreRefused(t *testing.T) {
	_, guards, _ := saved(t)
	good := body(t, guards)
	edit := func(b []byte, old, new string) string {
		if !strings.Contains(string(b), old) {
			t.Fatalf("no %q in the file", old)
		}
		return strings.Replace(string(b), old, new, 1)
	}
	for name, content := range map[string]string{
		"empty":                          "",
		"cut off":                        string(good[:len(good)/2]),
		"no JSON":                        "guards",
		"two documents":                  string(good) + string(good),
		"a guard for ever":               edit(good, `"until": "2026`, `"until": "2126`),
		"more circuits stood than tried": edit(good, `"stood": 1`, `"stood": 2`),
		"no id":                          edit(good, `"id": "`, `"id": "!`),
		"no address":                     edit(good, `"addr": "`, `"addr": "!`),
	} {
		if gs, err := parseGuards([]byte(content)); err == nil {
			t.Errorf("%s: %d guards", name, len(gs.list))
		}
	}
}

func TestADamagedFileGivesAnEmptySetAndIsKeptAside(t *testing.T) {
	_, guards, _ := saved(t)
	if err := os.Truncate(guards, 100); err != nil {
		t.Fatal(err)
	}
	if gs, err := LoadGuards(guards); err != nil || len(gs.list) != 0 {
		t.Errorf("%v, %v", gs, err)
	}
	if info, err := os.Stat(guards + ".damaged-1"); err != nil || info.Size() != 100 {
		t.Errorf("the file was not kept: %v", err)
	}
}

// body returns what a file holds, without the frame of package state.
func body(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b[bytes.IndexByte(b, '\n')+1 : bytes.LastIndex(b, []byte("sha256 "))]
}

func FuzzParseGuards(f *testing.F) {
	f.Add([]byte(`{"guards":[]}`))
	f.Add([]byte(`{"guards":[{"id":"x","tried":1e99}]}`))
	f.Fuzz(func(_ *testing.T, b []byte) { parseGuards(b) })
}
