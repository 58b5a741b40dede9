package path

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func saved(t *testing.T) (dir, guards, pins string, c *Chooser, relays []Relay) {
	t.Helper()
	dir = t.TempDir()
	guards, pins = filepath.Join(dir, "guards.json"), filepath.Join(dir, "pins.json")
	relays = network(50)
	c = New(Rules{}, testRand(1), nil, nil)
	for k := range 3 {
		if _, err := c.Choose(day0, relays, key(k), 2, Relay{}); err != nil {
			t.Fatal(err)
		}
	}
	c.GuardResult(c.guards.list[0].id, true)
	c.GuardDown(day0, c.guards.list[1].id)
	if err := errors.Join(c.SaveGuards(guards), c.SavePins(pins)); err != nil {
		t.Fatal(err)
	}
	return dir, guards, pins, c, relays
}

func TestGuardsAndPinsSurviveARestart(t *testing.T) {
	dir, guards, pins, c, relays := saved(t)
	gs, err := LoadGuards(guards)
	if err != nil {
		t.Fatal(err)
	}
	ps, err := LoadPins(pins)
	if err != nil {
		t.Fatal(err)
	}
	again := New(Rules{}, testRand(99), gs, ps)
	if got, want := again.GuardStatus(), c.GuardStatus(); !slices.Equal(got, want) {
		t.Errorf("guards after a restart: %v, want %v", got, want)
	}
	for k := range 3 {
		if got, want := again.pins.keys[key(k)].list, c.pins.keys[key(k)].list; !slices.Equal(got, want) {
			t.Errorf("middles after a restart: %v, want %v", got, want)
		}
	}
	if _, err := again.Choose(day0.Add(time.Hour), relays, key(1), 2, Relay{}); err != nil {
		t.Error(err)
	}
	for _, f := range []string{guards, pins} {
		if info, _ := os.Stat(f); info.Mode().Perm() != 0600 {
			t.Errorf("%s has mode %v, want 0600", filepath.Base(f), info.Mode().Perm())
		}
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("%d files left, want 2", len(entries))
	}
}

func TestNothingIsWrittenWithoutAChange(t *testing.T) {
	_, guards, _, c, _ := saved(t)
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
	ps, err2 := LoadPins(none)
	if gs == nil || ps == nil || err != nil || err2 != nil {
		t.Errorf("%v, %v, %v, %v", gs, err, ps, err2)
	}
}

func TestDamagedFilesAreKeptAside(t *testing.T) {
	_, guards, pins, _, _ := saved(t)
	good, _ := os.ReadFile(guards)
	goodPins, _ := os.ReadFile(pins)
	edit := func(b []byte, old, new string) string {
		if !strings.Contains(string(b), old) {
			t.Fatalf("no %q in the file", old)
		}
		return strings.Replace(string(b), old, new, 1)
	}
	for _, c := range []struct {
		name, content string
		pins          bool
	}{
		{"empty", "", false},
		{"cut off", string(good[:len(good)/2]), false},
		{"no JSON", "guards", false},
		{"two documents", string(good) + string(good), false},
		{"no version", edit(good, `"version": 1`, `"version": 0`), false},
		{"a guard for ever", edit(good, `"until": "2026`, `"until": "2126`), false},
		{"more circuits stood than tried", edit(good, `"stood": 1`, `"stood": 2`), false},
		{"no id", edit(good, `"id": "`, `"id": "!`), false},
		{"no address", edit(good, `"addr": "`, `"addr": "!`), false},
		{"a middle for ever", edit(goodPins, `"until": "2026`, `"until": "2126`), true},
		{"five middles", `{"version":1,"keys":{"` + strings.Repeat("A", 43) + `":[{},{},{},{},{}]}}`, true},
		{"a short key", `{"version":1,"keys":{"AAAA":[]}}`, true},
	} {
		file := filepath.Join(t.TempDir(), "f")
		for n := 1; n <= 2; n++ { // the second damaged file doesn't replace the first
			os.WriteFile(file, []byte(c.content), 0600)
			var err error
			var empty bool
			if c.pins {
				ps, e := LoadPins(file)
				err, empty = e, ps != nil && len(ps.keys) == 0
			} else {
				gs, e := LoadGuards(file)
				err, empty = e, gs != nil && len(gs.list) == 0
			}
			var damaged *CorruptError
			if !errors.As(err, &damaged) || !empty {
				t.Fatalf("%s: %v, empty set %v", c.name, err, empty)
			}
			if b, _ := os.ReadFile(damaged.Kept); string(b) != c.content {
				t.Errorf("%s: the file wasn't kept", c.name)
			}
		}
		if left, _ := filepath.Glob(file + "*"); len(left) != 2 {
			t.Errorf("%s: %d files, want two kept ones", c.name, len(left))
		}
	}
}

func TestANewerFileIsLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	os.WriteFile(file, []byte(`{"version":2,"guards":{"new":"form"}}`), 0600)
	gs, err := LoadGuards(file)
	var damaged *CorruptError
	if err == nil || gs != nil || errors.As(err, &damaged) {
		t.Errorf("LoadGuards = %v, %v", gs, err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("the newer file is gone")
	}
}

func FuzzLoadTakesAnyBytes(f *testing.F) {
	f.Add([]byte(`{"version":1,"guards":[]}`))
	f.Add([]byte(`{"version":1,"keys":{}}`))
	f.Add([]byte(`{"version":1,"guards":[{"id":"x","tried":1e99}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(t.TempDir(), "f")
		os.WriteFile(file, b, 0600)
		LoadGuards(file)
		os.WriteFile(file, b, 0600)
		LoadPins(file)
	})
}
