package hop

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/state"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func openKeys(t *testing.T, dir string) *Keys {
	t.Helper()
	k, err := OpenKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rotate(t *testing.T, k *Keys, now time.Time, want bool) onion.PublicKey {
	t.Helper()
	if fresh, err := k.Rotate(now); err != nil || fresh != want {
		t.Fatalf("Rotate = %v, %v, want %v", fresh, err, want)
	}
	return k.Current()
}

func TestOnionKeysRotateDailyAndEndAfterTheirOverlap(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	k := openKeys(t, dir)
	first := rotate(t, k, start, true)
	secret := k.Get(first.Number()).Bytes()
	rotate(t, k, start.Add(24*time.Hour-time.Second), false)
	second := rotate(t, k, start.Add(24*time.Hour), true)
	if second.Number() == first.Number() {
		t.Error("two keys with one number")
	}
	rotate(t, k, start.Add(48*time.Hour-time.Second), false)
	if k.Get(first.Number()) == nil {
		t.Error("the old key opens nothing in its overlap")
	}
	k = openKeys(t, dir)
	if got := k.Get(first.Number()); got == nil || !bytes.Equal(got.Bytes(), secret) || k.Current() != second {
		t.Error("the keys are others after a restart")
	}
	rotate(t, k, start.Add(48*time.Hour), true)
	if k.Get(first.Number()) != nil || openKeys(t, dir).Get(first.Number()) != nil {
		t.Error("the old key is still there after its overlap")
	}
	if k.Get(second.Number()) == nil {
		t.Error("the second key went with the first")
	}
}

func TestOnionKeyLivesNoLongerForADowntimeOrAClockThatWasAhead(t *testing.T) {
	k := openKeys(t, t.TempDir())
	first := rotate(t, k, start, true)
	rotate(t, k, start.Add(72*time.Hour), true)
	if k.Get(first.Number()) != nil {
		t.Error("a key of three days ago opens")
	}
	back := start.Add(-24 * 365 * time.Hour)
	ahead := rotate(t, k, back, false)
	rotate(t, k, back.Add(24*time.Hour), true)
	rotate(t, k, back.Add(48*time.Hour), true)
	if k.Get(ahead.Number()) != nil {
		t.Error("a key from the future outlives its time")
	}
}

func TestOnionKeyThatCannotBeWrittenIsNotUsed(t *testing.T) {
	dir := t.TempDir()
	k := openKeys(t, dir)
	first := rotate(t, k, start, true)
	if err := os.MkdirAll(filepath.Join(dir, "onion-keys.new", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if fresh, err := k.Rotate(start.Add(25 * time.Hour)); err == nil || fresh || k.Current() != first {
		t.Errorf("Rotate = %v, %v, and the key changed: %v", fresh, err, k.Current() != first)
	}
	os.RemoveAll(filepath.Join(dir, "onion-keys.new"))
	rotate(t, k, start.Add(25*time.Hour), true)
}

func server(t *testing.T, k *Keys) *Server {
	t.Helper()
	s, err := New(Config{Identity: k.Identity, Key: k.Get, Now: func() time.Time { return time.Unix(600_000, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReplaysSurviveAGoodEndAndACrashTakesANewKey(t *testing.T) {
	dir := t.TempDir()
	k := openKeys(t, dir)
	key := rotate(t, k, time.Now(), true)
	s := server(t, k)
	s.Replays().Add(1000, 1000, [16]byte{7})
	if err := k.SaveReplays(s); err != nil {
		t.Fatal(err)
	}

	k = openKeys(t, dir)
	s = server(t, k)
	if err := k.LoadReplays(s); err != nil {
		t.Fatal(err)
	}
	if k.Current() != key {
		t.Error("a new key after a good end")
	}
	if s.Replays().Add(1000, 1000, [16]byte{7}) == 0 {
		t.Error("a CREATE is served again after a restart")
	}

	k = openKeys(t, dir) // nothing was saved: a crash
	if err := k.LoadReplays(server(t, k)); err != nil {
		t.Fatal(err)
	}
	if k.Current() == key || k.Get(key.Number()) != nil {
		t.Error("the old key opens after a crash")
	}
	if openKeys(t, dir).Get(key.Number()) != nil {
		t.Error("the old key is on the disk after a crash")
	}
}

func TestDamagedReplaysTakeANewKey(t *testing.T) {
	dir := t.TempDir()
	k := openKeys(t, dir)
	key := rotate(t, k, time.Now(), true)
	os.WriteFile(filepath.Join(dir, "replays"), []byte("x"), 0o600)
	if err := k.LoadReplays(server(t, k)); err != nil {
		t.Fatal(err)
	}
	if k.Get(key.Number()) != nil {
		t.Error("the old key opens though its replays are lost")
	}
}

func TestADamagedIdentityIsAnErrorAndStays(t *testing.T) {
	dir := t.TempDir()
	openKeys(t, dir)
	path := filepath.Join(dir, "identity")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, damaged := range [][]byte{good[:i], append(append(bytes.Clone(good[:i]), good[i]^4), good[i+1:]...)} {
			os.WriteFile(path, damaged, 0o600)
			if _, err := OpenKeys(dir); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "new one with another ID") {
				t.Errorf("identity of %d bytes, damaged at %d: %v", len(damaged), i, err)
			}
			if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, damaged) {
				t.Errorf("the damaged identity was changed")
			}
		}
	}
}

func TestDamagedOnionKeysAreMadeAnewAndLeaveNoCopy(t *testing.T) {
	dir := t.TempDir()
	k := openKeys(t, dir)
	key := rotate(t, k, start, true)
	path := filepath.Join(dir, "onion-keys")
	if err := os.Truncate(path, 200); err != nil {
		t.Fatal(err)
	}
	again := openKeys(t, dir)
	if !again.Identity.Equal(k.Identity) || again.Get(key.Number()) != nil {
		t.Error("another identity, or the old key")
	}
	rotate(t, again, start, true)
	if left, _ := filepath.Glob(path + "*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOnionKeysThatCannotBeAreRefused(t *testing.T) {
	for _, b := range []string{"", "[{}]", `[{"number":1,"secret":"AAAA"}]`, "[" + strings.Repeat("{},", 9) + "{}]", strings.Repeat("[1,", 99)} {
		if k := new(Keys); k.parse([]byte(b)) == nil || k.all != nil {
			t.Errorf("%q makes %d keys", b, len(k.all))
		}
	}
}

func TestStateIsItsOwnersAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	locked, err := state.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	k := openKeys(t, dir)
	rotate(t, k, start, true)
	if err := k.SaveReplays(server(t, k)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", info.Mode(), err)
	}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	if len(files) != 4 {
		t.Errorf("%d files, want identity, onion-keys, replays and lock", len(files))
	}
}

func TestIdentityStays(t *testing.T) {
	dir := t.TempDir()
	a, b := openKeys(t, dir), openKeys(t, dir)
	if !a.Identity.Equal(b.Identity) {
		t.Error("another identity at the second start")
	}
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	if a.Identity.Equal(other) {
		t.Error("everybody is the same")
	}
}

func TestTheIDIsReadBesideARunningProgramAndNothingElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := OpenID(dir) // makes the keys
	if err != nil {
		t.Fatal(err)
	}
	locked, err := state.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	k := openKeys(t, dir)
	rotate(t, k, start, true)
	path := filepath.Join(dir, "onion-keys")
	damaged := []byte("half")
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := OpenID(dir); err != nil || id != first || id != k.ID() {
		t.Errorf("OpenID = %v, %v, want %v", id, err, first)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, damaged) {
		t.Errorf("the onion keys were touched: %q, %v", b, err)
	}
}

func TestTwoProcessesDoNotBothMakeAnIdentity(t *testing.T) {
	dir := t.TempDir()
	locked, err := state.Lock(dir) // a program that starts
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	if id, err := OpenID(dir); !errors.Is(err, state.ErrInUse) {
		t.Errorf("OpenID = %v, %v, want %v", id, err, state.ErrInUse)
	}
}
