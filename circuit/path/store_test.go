package path

import (
	"bytes"
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

func TestFilesThatCannotBeAreRefused(t *testing.T) {
	_, guards, pins, _, _ := saved(t)
	good, goodPins := body(t, guards), body(t, pins)
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
	for name, content := range map[string]string{
		"a middle for ever": edit(goodPins, `"until": "2026`, `"until": "2126`),
		"five middles":      `{"keys":{"` + strings.Repeat("A", 43) + `":[{},{},{},{},{}]}}`,
		"a short key":       `{"keys":{"AAAA":[]}}`,
	} {
		if ps, err := parsePinned([]byte(content)); err == nil {
			t.Errorf("%s: %d keys", name, len(ps.keys))
		}
	}
}

func TestDamagedFilesGiveAnEmptySetAndAreKeptAside(t *testing.T) {
	_, guards, pins, _, _ := saved(t)
	for _, f := range []string{guards, pins} {
		if err := os.Truncate(f, 100); err != nil {
			t.Fatal(err)
		}
	}
	gs, err := LoadGuards(guards)
	ps, err2 := LoadPins(pins)
	if err != nil || err2 != nil || len(gs.list) != 0 || len(ps.keys) != 0 {
		t.Errorf("%v, %v, %v, %v", gs, err, ps, err2)
	}
	for _, f := range []string{guards, pins} {
		if info, err := os.Stat(f + ".damaged-1"); err != nil || info.Size() != 100 {
			t.Errorf("%s was not kept: %v", f, err)
		}
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

func FuzzParsePins(f *testing.F) {
	f.Add([]byte(`{"keys":{}}`))
	f.Fuzz(func(_ *testing.T, b []byte) { parsePinned(b) })
}
