package tracker

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// clock is a time that a test moves.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

// open returns a tracker that is not run, and the clock of its book.
func open(t *testing.T, dir string, test bool) (*Tracker, *clock) {
	t.Helper()
	cfg := Config{State: dir, Listen: "127.0.0.1:0", Network: directory.Network{Test: test}, Log: slog.New(slog.DiscardHandler)}
	if !test {
		cfg.Advertise = netip.MustParseAddrPort("9.9.9.1:9000")
	}
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	c := &clock{time.Now()}
	tr.book.now = c.now
	return tr, c
}

// owner makes the descriptors of one relay.
type owner struct {
	identity ed25519.PrivateKey
	onion    *onion.PrivateKey
}

func newOwner(t *testing.T) *owner {
	t.Helper()
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := onion.GenerateKey(1)
	if err != nil {
		t.Fatal(err)
	}
	return &owner{identity, key}
}

func (o *owner) id() onion.ID { return onion.ID(o.identity.Public().(ed25519.PublicKey)) }

func (o *owner) descriptor(t *testing.T, now time.Time, addr string) *directory.Descriptor {
	t.Helper()
	d := &directory.Descriptor{Published: now.Unix(), Addrs: []netip.AddrPort{netip.MustParseAddrPort(addr)},
		Keys: []onion.PublicKey{o.onion.Public()}, Rate: 10 << 20}
	if err := d.Sign(o.identity); err != nil {
		t.Fatal(err)
	}
	return d
}

func take(t *testing.T, tr *Tracker, d *directory.Descriptor, want directory.Standing) {
	t.Helper()
	if got := tr.book.take(d); got != want {
		t.Errorf("take = %v, want %v", got, want)
	}
}

// tried says how a try of o's relay ended, as run does.
func tried(tr *Tracker, o *owner, rate uint64, ok bool) {
	tr.book.mu.Lock()
	defer tr.book.mu.Unlock()
	k := tr.book.relays[o.id()]
	tr.book.tried(k, k.d, rate, ok)
}

func sign(t *testing.T, tr *Tracker) *directory.View {
	t.Helper()
	if err := tr.book.sign(); err != nil {
		t.Fatal(err)
	}
	v, answer := tr.book.view()
	if !bytes.Equal(answer, directory.AppendView(nil, v.Raw())) {
		t.Error("the answer is another view")
	}
	return v
}

const (
	outside = "9.9.9.9:9001"
	another = "8.8.8.8:9001"
)

func TestDescriptorsThatWouldHarmAreRefused(t *testing.T) {
	tr, c := open(t, t.TempDir(), false)
	o := newOwner(t)
	now := c.now()
	forged := o.descriptor(t, now, outside)
	forged.Rate++
	strange := o.descriptor(t, now, outside)
	strange.ID = newOwner(t).id()
	for what, c := range map[string]struct {
		d    *directory.Descriptor
		want directory.Standing
	}{
		"another rate than signed":      {forged, directory.Invalid},
		"another's id":                  {strange, directory.Invalid},
		"a day old":                     {o.descriptor(t, now.Add(-directory.DescriptorFor-time.Minute), outside), directory.WrongTime},
		"from the day after tomorrow":   {o.descriptor(t, now.Add(48*time.Hour), outside), directory.WrongTime},
		"a private address":             {o.descriptor(t, now, "10.1.2.3:9001"), directory.WrongAddress},
		"loopback":                      {o.descriptor(t, now, "127.0.0.1:9001"), directory.WrongAddress},
		"a stand-in":                    {o.descriptor(t, now, "198.18.0.1:9001"), directory.WrongAddress},
		"the tracker's own":             {(&owner{tr.keys.Identity, o.onion}).descriptor(t, now, outside), directory.Invalid},
		"a private address inside IPv6": {o.descriptor(t, now, "[64:ff9b::a01:203]:9001"), directory.WrongAddress},
	} {
		if got := tr.book.take(c.d); got != c.want || got.Taken() {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
	take(t, tr, o.descriptor(t, now, outside), directory.Untested)
	take(t, tr, o.descriptor(t, now.Add(-time.Minute), outside), directory.Outdated)

	local, c := open(t, t.TempDir(), true)
	take(t, local, o.descriptor(t, c.now(), "127.0.0.1:9001"), directory.Untested)
}

func TestOnlyRelaysThatWereReachedAreListed(t *testing.T) {
	tr, c := open(t, t.TempDir(), false)
	good, bad := newOwner(t), newOwner(t)
	take(t, tr, good.descriptor(t, c.now(), outside), directory.Untested)
	take(t, tr, bad.descriptor(t, c.now(), outside), directory.Untested)
	if v := sign(t, tr); len(v.Entries) != 0 {
		t.Errorf("%d relays listed that were never tried", len(v.Entries))
	}
	c.Time = c.Add(time.Hour)
	tried(tr, good, 5<<20, true)
	tried(tr, bad, 0, false)
	take(t, tr, good.descriptor(t, c.now(), outside), directory.Reachable)
	take(t, tr, bad.descriptor(t, c.now(), outside), directory.Unreachable)
	v := sign(t, tr)
	if len(v.Entries) != 1 || v.Entries[0].Descriptor.ID != good.id() || !v.Entries[0].Reachable ||
		v.Entries[0].Weight != directory.FirstWeight || v.Entries[0].FirstSeen != c.Unix() {
		t.Fatalf("listed: %+v", v.Entries)
	}

	// A new address is listed once it was tried, not before.
	take(t, tr, good.descriptor(t, c.now(), another), directory.Untested)
	if v := sign(t, tr); v.Entries[0].Descriptor.Addrs[0].String() != outside {
		t.Error("an address is listed that was never tried")
	}
	tried(tr, good, 5<<20, true)
	if v := sign(t, tr); v.Entries[0].Descriptor.Addrs[0].String() != another {
		t.Error("an address is not listed though it was reached")
	}

	tried(tr, good, 0, false) // may be the tracker's own fault
	if v := sign(t, tr); !v.Entries[0].Reachable {
		t.Error("one failure unlists a relay")
	}
	tried(tr, good, 0, false)
	take(t, tr, good.descriptor(t, c.now(), another), directory.Unreachable)
	if v := sign(t, tr); len(v.Entries) != 1 || v.Entries[0].Weight != 0 || v.Entries[0].Reachable {
		t.Errorf("a relay that went away: %+v", v.Entries)
	}

	tried(tr, good, 5<<20, true)
	c.Time = c.Add(directory.DescriptorFor + time.Minute)
	if v := sign(t, tr); len(v.Entries) != 1 || v.Entries[0].Weight != 0 {
		t.Errorf("a relay that says nothing for a day: %+v", v.Entries)
	}
	c.Time = c.Add(dropAfter)
	if v := sign(t, tr); len(v.Entries) != 0 {
		t.Error("a relay is never forgotten")
	}
}

func TestUnreachableRelaysAreTriedLessAndLess(t *testing.T) {
	tr, c := open(t, t.TempDir(), false)
	o := newOwner(t)
	take(t, tr, o.descriptor(t, c.now(), outside), directory.Untested)
	k := tr.book.relays[o.id()]
	var waits []time.Duration
	for range 7 {
		tried(tr, o, 0, false)
		waits = append(waits, k.next.Sub(c.now()))
	}
	for i, w := range waits {
		if want := time.Minute << min(i, 5); w != want {
			t.Errorf("wait %d is %v, want %v", i, w, want)
		}
	}
	// Publishing another address each second has nobody dial each second.
	for range 3 {
		take(t, tr, o.descriptor(t, c.now(), another), directory.Untested)
		if got := len(tr.book.due(10)); got != 0 {
			t.Fatal("tried again at once")
		}
	}
	c.Time = c.Add(retrySoonest)
	if got := len(tr.book.due(10)); got != 1 {
		t.Error("the new address is not tried")
	}
}

func TestMoreRelaysThanAViewHoldsAreRefused(t *testing.T) {
	tr, c := open(t, t.TempDir(), false)
	held := newOwner(t).descriptor(t, c.now(), outside)
	b := tr.book
	for i := range directory.MaxRelays {
		b.relays[onion.ID{1, byte(i), byte(i >> 8)}] = &known{d: held, listed: held}
	}
	late := newOwner(t)
	take(t, tr, late.descriptor(t, c.now(), outside), directory.Full)
	for _, k := range b.relays { // those that nobody ever reached give way
		k.listed, k.fails = nil, 1
	}
	take(t, tr, late.descriptor(t, c.now(), outside), directory.Untested)
	if len(b.relays) != directory.MaxRelays {
		t.Errorf("%d relays", len(b.relays))
	}
}

func TestWeightAtMostDoublesADay(t *testing.T) {
	k, now := &known{}, time.Now()
	for hour := range 24 * 4 {
		for range 3 {
			k.measured(1<<40, now)
			now = now.Add(20 * time.Minute)
		}
		if most := uint64(directory.FirstWeight << (1 + hour/24)); k.weight > most {
			t.Fatalf("after %d h the weight is %d, at most %d", hour, k.weight, most)
		}
	}
	before := k.weight
	k.measured(1000, now)
	if k.weight != 1000 {
		t.Errorf("a slow relay has weight %d", k.weight)
	}
	k.measured(1<<40, now.Add(time.Minute))
	if k.weight < before {
		t.Errorf("one bad measure costs days: weight %d, was %d", k.weight, before)
	}
}

func TestViewsGoForwardOverARestart(t *testing.T) {
	dir := t.TempDir()
	tr, c := open(t, dir, false)
	o := newOwner(t)
	take(t, tr, o.descriptor(t, c.now(), outside), directory.Untested)
	tried(tr, o, 5<<20, true)
	first := sign(t, tr)
	old, err := os.ReadFile(filepath.Join(dir, "view"))
	if err != nil {
		t.Fatal(err)
	}
	c.Time = c.Add(time.Hour)
	second := sign(t, tr)
	if second.Number != first.Number+1 || second.Previous != first.Hash() {
		t.Errorf("view %d follows view %d", second.Number, first.Number)
	}
	tr.Close()

	tr, c = open(t, dir, false)
	c.Time = c.Add(2 * time.Hour)
	third := sign(t, tr)
	if third.Number <= second.Number || third.Previous != second.Hash() {
		t.Errorf("after a restart view %d follows view %d", third.Number, second.Number)
	}
	if len(third.Entries) != 1 || third.Entries[0].Weight == 0 || third.Entries[0].FirstSeen != first.Entries[0].FirstSeen {
		t.Errorf("after a restart: %+v", third.Entries)
	}
	tr.Close()

	// An old copy of the folder makes no view that was made before.
	if err := os.WriteFile(filepath.Join(dir, "view"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	tr, c = open(t, dir, false)
	c.Time = c.Add(3 * time.Hour)
	var chain directory.Chain
	for _, v := range []*directory.View{first, second, third, sign(t, tr), sign(t, tr)} {
		if err := chain.Check(v); err != nil {
			t.Errorf("view %d: %v", v.Number, err)
		}
		chain.Add(v)
	}
}

// A tracker starts whatever is damaged in its folder, except its identity: that
// is an error, which says what is lost, and nothing is changed.
func TestOnlyADamagedIdentityStopsATracker(t *testing.T) {
	for _, file := range []string{"view", "swarms", "onion-keys", "replays", "identity"} {
		dir := t.TempDir()
		tr, _ := open(t, dir, true)
		sign(t, tr)
		if err := tr.save(); err != nil {
			t.Fatal(err)
		}
		id := tr.server.ID()
		tr.Close()
		path := filepath.Join(dir, file)
		if err := os.Truncate(path, 40); err != nil {
			t.Fatal(err)
		}
		before := contents(t, dir)
		tr, err := New(Config{State: dir, Listen: "127.0.0.1:0", Network: directory.Network{Test: true}})
		if file != "identity" {
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if tr.server.ID() != id {
				t.Errorf("%s: another identity", file)
			}
			sign(t, tr)
			tr.Close()
			continue
		}
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "another ID") {
			t.Errorf("a damaged identity: %v", err)
		}
		if after := contents(t, dir); !maps.Equal(before, after) {
			t.Error("a start that failed over the identity changed the folder")
		}
	}
}

func TestPortInUseLosesNothing(t *testing.T) {
	first, _ := open(t, t.TempDir(), true)
	dir := t.TempDir()
	tr, _ := open(t, dir, true)
	key := tr.keys.Current()
	tr.Close()
	if _, err := New(Config{State: dir, Listen: first.found.Addr.String()}); err == nil {
		t.Fatal("two listen on one port")
	}
	if tr, _ := open(t, dir, true); tr.keys.Current() != key {
		t.Error("a new onion key, as after a crash")
	}
}

func TestSecondTrackerOnAStateFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	tr, _ := open(t, dir, true)
	if _, err := New(Config{State: dir, Listen: "127.0.0.1:0"}); !errors.Is(err, state.ErrInUse) {
		t.Errorf("New = %v, want %v", err, state.ErrInUse)
	}
	tr.Close()
	open(t, dir, true)
}

func TestSettingsThatCannotBeAreRefused(t *testing.T) {
	for _, cfg := range []Config{{StampBits: announce.MaxStampBits + 1}, {StampBits: -1}, {Interval: -1}, {Interval: 48 * time.Hour},
		{Redis: "http://user:secret@host"}, {Redis: "redis://user:secret@127.0.0.1:1/0"}} {
		cfg.State, cfg.Listen = t.TempDir(), "127.0.0.1:0"
		_, err := New(cfg)
		if err == nil || bytes.Contains([]byte(err.Error()), []byte("secret")) {
			t.Errorf("New(%+v) = %v", cfg, err)
		}
	}
}

func TestCircuitSpeaksOfOneSwarmDayByDay(t *testing.T) {
	v, now := new(visitor), time.Now()
	ask := func(name, member byte, at time.Duration, want error) {
		t.Helper()
		r := &announce.Request{Name: [32]byte{name}}
		if member != 0 {
			r.Outer = &announce.Outer{T: [32]byte{member}}
		}
		if err := v.announces(r, now.Add(at)); err != want {
			t.Errorf("name %d, member %d after %v: %v, want %v", name, member, at, err, want)
		}
	}
	ask(1, 1, 0, nil)
	ask(1, 2, 0, errMember)
	ask(2, 2, 0, nil)
	ask(1, 1, time.Hour, nil)
	ask(3, 3, time.Hour, errNames)
	ask(3, 0, time.Hour, errNames)
	ask(3, 3, 24*time.Hour, nil) // the next day's
	ask(2, 2, 24*time.Hour, nil)
	ask(4, 4, 40*time.Hour, nil)
	ask(5, 5, 40*time.Hour, errNames)
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, f := range files {
		b, _ := os.ReadFile(filepath.Join(dir, f.Name()))
		all[f.Name()] = string(b)
	}
	return all
}
