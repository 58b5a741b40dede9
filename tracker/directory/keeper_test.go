package directory

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/state"
)

// clock is a time that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func openKeeper(t *testing.T, dir string, trackers int, c *clock) *Keeper {
	t.Helper()
	k, err := OpenKeeper(dir, testNetwork(trackers), c.now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustAdd(t *testing.T, k *Keeper, views ...*View) {
	t.Helper()
	for _, v := range views {
		if news, err := k.Add(v.Raw()); err != nil || !news {
			t.Fatalf("Add = %v, %v", news, err)
		}
	}
}

func TestKeeperMergesViewsAndKeepsThemOverARestart(t *testing.T) {
	dir, c := t.TempDir(), &clock{testNow}
	a := relay(t, 1)
	k := openKeeper(t, dir, 3, c)
	changed := k.Changed()
	mustAdd(t, k, view(t, 0, testNow, nil, said{a, 100, 5}))
	if len(k.Relays()) != 0 {
		t.Error("one tracker of three lists a relay alone")
	}
	select {
	case <-changed:
	default:
		t.Error("the change was not told")
	}
	mustAdd(t, k, view(t, 1, testNow, nil, said{a, 300, 5}))
	for _, k := range []*Keeper{k, openKeeper(t, dir, 3, c)} {
		r, ok := k.Relay(a.ID)
		if !ok || r.Weight != 100 {
			t.Errorf("Relay = %d, %v", r.Weight, ok)
		}
		if addr, ok := k.Lookup(a.ID); !ok || addr != a.Addrs[0] {
			t.Error("the relay can't be looked up")
		}
		info, ok := k.Tracker(trackerKey(0))
		if !ok || info.ID != onion.ID(trackerKey(0)) || info.Onion.IsZero() || info.Hop().Addr != info.Addr {
			t.Error("the tracker can't be reached")
		}
		if addr, ok := k.Lookup(onion.ID(trackerKey(1))); !ok || !addr.IsValid() {
			t.Error("the tracker can't be looked up")
		}
		if n := len(k.Trackers()); n != 2 {
			t.Errorf("%d trackers known, want 2", n)
		}
	}
}

func TestKeeperRefusesStrangersOldViewsAndRepeats(t *testing.T) {
	c := &clock{testNow}
	k := openKeeper(t, t.TempDir(), 1, c)
	first := view(t, 0, testNow, nil)
	second := view(t, 0, testNow.Add(time.Hour), first)
	c.at = testNow.Add(time.Hour)
	mustAdd(t, k, second)
	if news, err := k.Add(second.Raw()); news || err != nil {
		t.Errorf("the same view again: %v, %v", news, err)
	}
	if _, err := k.Add(first.Raw()); !errors.Is(err, ErrOld) {
		t.Errorf("an older view: %v", err)
	}
	if _, err := k.Add(view(t, 5, testNow, nil).Raw()); err == nil {
		t.Error("took a view of a stranger")
	}
	forged := bytes.Clone(view(t, 0, testNow.Add(2*time.Hour), second).Raw())
	forged[len(forged)-1] ^= 1
	if _, err := k.Add(forged); err == nil {
		t.Error("took a view that nobody signed")
	}
	c.at = testNow.Add(48 * time.Hour)
	if _, err := k.Add(view(t, 0, testNow.Add(3*time.Hour), nil).Raw()); !errors.Is(err, ErrStale) {
		t.Errorf("a stale view: %v", err)
	}
}

func TestTrackerWithTwoStoriesIsDroppedAndShown(t *testing.T) {
	a, b := relay(t, 1), relay(t, 2)
	for name, second := range map[string]func(first *View) *View{
		"two views of one number": func(*View) *View { return view(t, 0, testNow, nil, said{b, 100, 5}) },
		"another history": func(first *View) *View {
			other := view(t, 0, testNow, nil, said{b, 100, 5})
			return view(t, 0, testNow.Add(time.Hour), other, said{b, 100, 5})
		},
	} {
		dir, c := t.TempDir(), &clock{testNow}
		k := openKeeper(t, dir, 1, c)
		first := view(t, 0, testNow, nil, said{a, 100, 5})
		mustAdd(t, k, first)
		_, err := k.Add(second(first).Raw())
		var twice *EquivocationError
		if !errors.As(err, &twice) || twice.Tracker != trackerKey(0) {
			t.Fatalf("%s: %v", name, err)
		}
		for _, k := range []*Keeper{k, openKeeper(t, dir, 1, c)} {
			if len(k.Faults()) != 1 || len(k.Relays()) != 0 || len(k.Have()) != 0 {
				t.Errorf("%s: %d faults, %d relays", name, len(k.Faults()), len(k.Relays()))
			}
			if _, err := k.Add(view(t, 0, testNow.Add(2*time.Hour), first).Raw()); !errors.As(err, &twice) {
				t.Errorf("%s: believed again: %v", name, err)
			}
		}
	}
}

func TestTrackerThatLostItsStateGoesOn(t *testing.T) {
	c := &clock{testNow}
	k := openKeeper(t, t.TempDir(), 1, c)
	v := view(t, 0, testNow, nil)
	for range 5 {
		mustAdd(t, k, v)
		c.at = c.at.Add(time.Hour)
		v = view(t, 0, c.at, v)
	}
	mustAdd(t, k, view(t, 0, c.at, nil))
}

func TestRelayStaysKnownForADayAfterItWasListed(t *testing.T) {
	a := relay(t, 1)
	c := &clock{testNow}
	k := openKeeper(t, t.TempDir(), 1, c)
	first := view(t, 0, testNow, nil, said{a, 100, 5})
	mustAdd(t, k, first)
	prev := first
	for range 24 {
		c.at = c.at.Add(time.Hour)
		prev = view(t, 0, c.at, prev)
		mustAdd(t, k, prev)
		if _, ok := k.Relay(a.ID); ok {
			t.Fatal("still chosen from")
		}
		if _, ok := k.Lookup(a.ID); ok != c.at.Before(testNow.Add(UsableFor)) {
			t.Fatalf("after %v: known %v", c.at.Sub(testNow), ok)
		}
	}
}

func TestListLapsesWithItsViews(t *testing.T) {
	c := &clock{testNow}
	k := openKeeper(t, t.TempDir(), 1, c)
	mustAdd(t, k, view(t, 0, testNow, nil, said{relay(t, 1), 100, 5}))
	for _, step := range []struct {
		after  time.Duration
		relays int
		stale  bool
	}{{time.Hour, 1, false}, {ValidFor, 1, true}, {UsableFor, 0, true}} {
		c.at = testNow.Add(step.after)
		if m := k.Merged(); len(m.Relays) != step.relays || m.Stale != step.stale {
			t.Errorf("after %v: %d relays, stale %v", step.after, len(m.Relays), m.Stale)
		}
	}
	if _, ok := k.Tracker(trackerKey(0)); ok {
		t.Error("the tracker's key is still used")
	}
}

func TestViewsPassFromKeeperToKeeper(t *testing.T) {
	c := &clock{testNow}
	a, b := openKeeper(t, t.TempDir(), 3, c), openKeeper(t, t.TempDir(), 3, c)
	first := view(t, 0, testNow, nil)
	mustAdd(t, a, first, view(t, 1, testNow, nil))
	pass := func(want int) {
		t.Helper()
		answer, err := a.Answer(AppendHave(nil, b.Have()))
		if err != nil {
			t.Fatal(err)
		}
		views, err := ParseViews(answer)
		if err != nil || len(views) != want {
			t.Fatalf("%d views, %v, want %d", len(views), err, want)
		}
		if news, err := b.AddAnswer(answer); news != (want > 0) || err != nil {
			t.Fatalf("AddAnswer = %v, %v", news, err)
		}
	}
	pass(2)
	pass(0)
	c.at = testNow.Add(time.Hour)
	mustAdd(t, a, view(t, 0, c.at, first))
	pass(1)
	twice := append(b.Have(), b.Have()...)
	for i := range twice {
		twice[i].Number = 0
	}
	if n := len(a.RawViews(twice)); n != 2 {
		t.Errorf("asked twice, answered with %d views", n)
	}
}

func TestClockThatIsBehindIsToldByMoreThanHalfOfTheTrackers(t *testing.T) {
	c := &clock{testNow.Add(-20 * time.Minute)}
	k := openKeeper(t, t.TempDir(), 3, c)
	mustAdd(t, k, view(t, 0, testNow.Add(10*time.Hour), nil))
	if e := k.ClockError(); e != 0 {
		t.Errorf("one tracker moves the clock by %v", e)
	}
	mustAdd(t, k, view(t, 1, testNow, nil), view(t, 2, testNow, nil))
	if e := k.ClockError(); e != 20*time.Minute {
		t.Errorf("clock is behind by %v, want 20m", e)
	}
}

// Whichever file of a tracker is damaged, and however: the view is fetched
// anew, and an older one than was seen is refused.
func TestADamagedFileIsFetchedAnewAndForgetsNothing(t *testing.T) {
	dir, c := t.TempDir(), &clock{testNow.Add(time.Hour)}
	first := view(t, 0, testNow, nil)
	second := view(t, 0, c.at, first, said{relay(t, 1), 100, 5})
	k := openKeeper(t, dir, 1, c)
	mustAdd(t, k, first, second)
	for _, kind := range []*state.Kind{viewFile, chainFile} {
		file := k.file(kind, trackerKey(0))
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(good); i += 1 + len(good)/100 {
			for name, b := range map[string][]byte{"cut": good[:i], "changed": append(append(bytes.Clone(good[:i]), good[i]^1), good[i+1:]...)} {
				if err := os.WriteFile(file, b, 0o600); err != nil {
					t.Fatal(err)
				}
				k := openKeeper(t, dir, 1, c)
				if _, err := k.Add(first.Raw()); !errors.Is(err, ErrOld) {
					t.Errorf("%s %s at %d: an older view: %v", kind.Name, name, i, err)
				}
				if kind == viewFile {
					mustAdd(t, k, second)
				}
				os.Remove(file + ".damaged-1")
				os.WriteFile(file, good, 0o600)
			}
		}
	}
}

func TestATrackerWithTwoStoriesStaysOutWhenAFileIsDamaged(t *testing.T) {
	dir, c := t.TempDir(), &clock{testNow}
	k := openKeeper(t, dir, 1, c)
	mustAdd(t, k, view(t, 0, testNow, nil))
	k.Add(view(t, 0, testNow, nil, said{relay(t, 1), 100, 5}).Raw())
	for _, kind := range []*state.Kind{viewFile, chainFile} {
		file := k.file(kind, trackerKey(0))
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(file, nil, 0o600)
		if k := openKeeper(t, dir, 1, c); len(k.Faults()) != 1 || len(k.Trackers()) != 0 {
			t.Errorf("%s damaged: %d faults, %d trackers", kind.Name, len(k.Faults()), len(k.Trackers()))
		}
		os.WriteFile(file, good, 0o600)
	}
}

// An old copy of one file is not an old copy of the folder.
func TestAnOlderSavedViewIsDropped(t *testing.T) {
	dir, c := t.TempDir(), &clock{testNow.Add(time.Hour)}
	first := view(t, 0, testNow, nil)
	k := openKeeper(t, dir, 1, c)
	mustAdd(t, k, first)
	old, err := os.ReadFile(k.file(viewFile, trackerKey(0)))
	if err != nil {
		t.Fatal(err)
	}
	second := view(t, 0, c.at, first)
	mustAdd(t, k, second)
	os.WriteFile(k.file(viewFile, trackerKey(0)), old, 0o600)
	k = openKeeper(t, dir, 1, c)
	if len(k.Trackers()) != 0 {
		t.Error("a view that is older than one seen is used")
	}
	mustAdd(t, k, second)
}

func TestSavedViewWhoseTimeIsOverIsNoError(t *testing.T) {
	dir, c := t.TempDir(), &clock{testNow}
	old := view(t, 0, testNow, nil)
	k := openKeeper(t, dir, 1, c)
	mustAdd(t, k, old)
	c.at = testNow.Add(72 * time.Hour)
	k = openKeeper(t, dir, 1, c)
	if len(k.Trackers()) != 0 {
		t.Error("a stale view is used")
	}
	c.at = testNow
	if _, err := k.Add(view(t, 0, testNow.Add(-time.Hour), nil).Raw()); !errors.Is(err, ErrOld) {
		t.Errorf("what was seen is forgotten: %v", err)
	}
}

func FuzzParseKept(f *testing.F) {
	v := view(f, 0, testNow, nil)
	t := kept{view: v}
	t.chain.Add(v)
	f.Add(AppendView(t.append(nil), v.Raw()))
	f.Add(AppendView((&kept{fault: &EquivocationError{trackerKey(0), 7}}).append(nil), nil))
	f.Fuzz(func(f *testing.T, b []byte) {
		t, raw, err := parseKept(b, trackerKey(0))
		if err == nil && !bytes.Equal(AppendView(t.append(nil), raw), b) {
			f.Error("accepted what save would not write")
		}
	})
}

func TestAnAnswerIsOneChangeAndOneBadViewSpoilsNoOther(t *testing.T) {
	dir, c := t.TempDir(), &clock{testNow}
	a := relay(t, 1)
	k := openKeeper(t, dir, 3, c)
	good, other := view(t, 0, testNow, nil, said{a, 100, 5}), view(t, 2, testNow, nil, said{a, 100, 5})
	forged := bytes.Clone(view(t, 1, testNow, nil, said{a, 900, 5}).Raw())
	forged[len(forged)-1] ^= 1
	var answer []byte
	for _, raw := range [][]byte{good.Raw(), forged, other.Raw(), good.Raw()} {
		answer = AppendView(answer, raw)
	}
	if news, err := k.AddAnswer(answer); !news || err == nil {
		t.Errorf("AddAnswer = %v, %v of two good views and a forged one", news, err)
	}
	clear(answer) // the views are the keeper's own
	for _, k := range []*Keeper{k, openKeeper(t, dir, 3, c)} {
		if r, ok := k.Relay(a.ID); !ok || r.Weight != 100 || k.Merged().Views != 2 {
			t.Errorf("Relay = %d, %v of %d views", r.Weight, ok, k.Merged().Views)
		}
	}
	if raws := k.RawViews(k.Have()); len(raws) != 0 {
		t.Errorf("%d views are newer than what the keeper has", len(raws))
	}
}

// TestViewsOfAnotherKindOfNetworkAreRefused, from anyone and from the disk: they
// say where to dial a tracker.
func TestViewsOfAnotherKindOfNetworkAreRefused(t *testing.T) {
	home := view(t, 0, testNow, nil)
	home.Self = relay(t, trackerBase, func(d *Descriptor) { d.Addrs[0] = netip.MustParseAddrPort("192.168.1.2:9000") })
	if err := home.Sign(key(trackerBase + 100)); err != nil {
		t.Fatal(err)
	}
	lan, public := privateNetwork(), testNetwork(1)
	lan.Trackers = lan.Trackers[:1]
	c, dir := &clock{testNow}, t.TempDir()
	open := func(dir string, n Network) *Keeper {
		t.Helper()
		k, err := OpenKeeper(dir, n, c.now)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	mustAdd(t, open(dir, lan), home)
	if _, ok := open(dir, lan).Tracker(trackerKey(0)); !ok {
		t.Error("a private network forgets its tracker")
	}
	if _, ok := open(dir, public).Tracker(trackerKey(0)); ok {
		t.Error("a saved view takes a public network to a private address")
	}
	if _, err := open(t.TempDir(), public).Add(home.Raw()); !errors.Is(err, ErrAddress) {
		t.Errorf("a public network takes a private tracker's view: %v", err)
	}
	if _, err := open(t.TempDir(), lan).Add(view(t, 0, testNow, nil).Raw()); !errors.Is(err, ErrAddress) {
		t.Errorf("a private network takes a public tracker's view: %v", err)
	}
}
