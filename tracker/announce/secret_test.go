package announce

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// monday is the first moment of an ISO week.
var monday = time.Date(2026, 5, 11, 0, 0, 0, 0, time.UTC)

func load(t *testing.T, dir, client string, now time.Time) *Secret {
	t.Helper()
	s, err := LoadSecret(dir, client, now)
	if err == nil {
		err = s.Keep(now)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// advance is Keep without the file.
func advance(s *Secret, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.advance(now)
}

func TestSecretStaysTheSameAcrossRestartsWithinAWeek(t *testing.T) {
	dir := t.TempDir()
	a := load(t, dir, "alice", monday).Member(testHash)
	b := load(t, dir, "alice", monday.Add(7*24*time.Hour-time.Second)).Member(testHash)
	if a.E() != b.E() || a.S() != b.S() {
		t.Error("a restart changed the keys")
	}
}

func TestTwoClientsShareNoKey(t *testing.T) {
	dir := t.TempDir()
	a, b := load(t, dir, "alice", monday), load(t, dir, "bob", monday)
	if a.Member(testHash).E() == b.Member(testHash).E() {
		t.Error("two clients have one key")
	}
}

func TestClientNameIsNoPath(t *testing.T) {
	dir := t.TempDir()
	load(t, dir, "../../evil/\x00", monday)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d files in the directory, want 1: %v", len(entries), err)
	}
}

func TestSecretFileIsForItsOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	load(t, dir, "alice", monday)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v has mode %v, want 0600", e.Name(), info.Mode())
		}
	}
}

func TestSecretRatchetsEveryMondayAndForgetsAfterADay(t *testing.T) {
	dir := t.TempDir()
	s := load(t, dir, "alice", monday)
	before := s.Member(testHash).E()
	if _, ok := s.Previous(testHash); ok {
		t.Error("a fresh secret has a past")
	}
	next := monday.Add(7 * 24 * time.Hour)
	if advance(s, next.Add(-time.Second)) {
		t.Error("advanced on a Sunday")
	}
	if !advance(s, next) || s.Member(testHash).E() == before {
		t.Error("did not advance on Monday")
	}
	if m, ok := s.Previous(testHash); !ok || m.E() != before {
		t.Error("last week's keys are gone at once")
	}
	if advance(s, next.Add(secretOverlap-time.Second)) || !advance(s, next.Add(secretOverlap)) {
		t.Error("the overlap does not end after a day")
	}
	if _, ok := s.Previous(testHash); ok {
		t.Error("last week's keys are still there")
	}
	if err := s.Keep(next.Add(secretOverlap)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(s.path)
	if err != nil || !bytes.Contains(b, make([]byte, 32)) {
		t.Errorf("the old secret is still in the file: %v", err)
	}
}

func TestSecretThatSleptCatchesUp(t *testing.T) {
	dir := t.TempDir()
	a := load(t, dir, "alice", monday)
	for week := 1; week <= 3; week++ {
		advance(a, monday.Add(time.Duration(week)*7*24*time.Hour))
	}
	later := monday.Add(3*7*24*time.Hour + secretOverlap)
	advance(a, later)
	b := load(t, dir, "alice", later)
	if a.Member(testHash).E() != b.Member(testHash).E() {
		t.Error("three steps and one stride end at different secrets")
	}
	if _, ok := b.Previous(testHash); ok {
		t.Error("the overlap was over before the start")
	}
}

func TestClockSetBackChangesNothing(t *testing.T) {
	s := newSecret(monday)
	before := s.Member(testHash).E()
	if advance(s, monday.Add(-time.Hour)) || s.Member(testHash).E() != before {
		t.Error("a secret went back")
	}
}

func TestADamagedSecretIsReplacedAndLeavesNoCopy(t *testing.T) {
	dir := t.TempDir()
	s := load(t, dir, "alice", monday)
	good, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, b := range [][]byte{good[:i], append(append(bytes.Clone(good[:i]), good[i]^0x10), good[i+1:]...)} {
			if err := os.WriteFile(s.path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			again := load(t, dir, "alice", monday)
			if again.Member(testHash).E() == s.Member(testHash).E() {
				t.Errorf("%d bytes, damaged at %d, are taken", len(b), i)
			}
			if load(t, dir, "alice", monday).Member(testHash).E() != again.Member(testHash).E() {
				t.Errorf("%d bytes, damaged at %d: the new secret was not kept", len(b), i)
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestASecretThatCannotBeWrittenIsWrittenLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	s, err := LoadSecret(dir, "alice", monday)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Keep(monday); err == nil {
		t.Error("written where there is no folder")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Keep(monday); err != nil {
		t.Fatal(err)
	}
	if load(t, dir, "alice", monday).Member(testHash).E() != s.Member(testHash).E() {
		t.Error("another secret is on the disk")
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add(newSecret(monday).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSecret(b)
		if err == nil && !bytes.Equal(s.append(nil), b) {
			t.Error("parseSecret accepts what Save would not write")
		}
	})
}
