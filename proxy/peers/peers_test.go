package peers

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

var (
	update = flag.Bool("update", false, "write testdata anew")
	secret = [32]byte{1}
	torrA  = swarm.Hash{0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa}
	torrB  = swarm.Hash{0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb}
)

func key(i int) (k swarm.Key) {
	binary.BigEndian.PutUint64(k[:], uint64(i)+1)
	return k
}

func keys(from, n int) (l []swarm.Key) {
	for i := range n {
		l = append(l, key(from+i))
	}
	return l
}

func open(t testing.TB, file string) *Table {
	t.Helper()
	table, err := Open(file, secret)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func empty(t testing.TB) *Table { return open(t, filepath.Join(t.TempDir(), "stand-ins")) }

func TestEveryAddressIsUsable(t *testing.T) {
	seen := make(map[netip.Addr]bool)
	for i := range slots {
		a := at(i)
		b := a.As4()
		s, ok := slotOf(a)
		if !Is(a) || IsBeacon(a) || seen[a] || b[3] == 0 || b[3] == 255 || !ok || s != i {
			t.Fatalf("slot %d is %v, back %d %v", i, a, s, ok)
		}
		seen[a] = true
	}
	for i := range 2 * Beacons {
		a := Beacon(i)
		b := a.As4()
		if _, peer := slotOf(a); peer || !IsBeacon(a) || !Is(a) || b[3] == 0 || b[3] == 255 || a != Beacon(i-Beacons) {
			t.Fatalf("beacon %d is %v", i, a)
		}
	}
	for _, s := range []string{"198.17.255.255", "198.20.0.0", "127.0.0.1", "::1", "198.18.0.0", "198.18.0.1", "198.18.1.0", "198.18.1.255", "198.19.255.7"} {
		if i, ok := slotOf(netip.MustParseAddr(s)); ok {
			t.Errorf("%s is slot %d", s, i)
		}
	}
	if got := Source(netip.MustParseAddr("::ffff:198.19.7.8")); got.String() != "127.19.7.8" || !got.IsLoopback() {
		t.Errorf("Source = %v", got)
	}
}

func TestStandInStaysAPeersOwn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stand-ins")
	table := open(t, file)
	got := table.Assign("c", torrA, keys(0, 10))
	if len(got) != 10 {
		t.Fatalf("%d stand-ins, want 10", len(got))
	}
	for i, a := range got {
		if p, ok := table.Lookup(a); !ok || p != (Peer{"c", torrA, key(i)}) {
			t.Errorf("%v is %v, %v", a, p, ok)
		}
		if m, err := table.Meet("c", torrA, key(i)); err != nil || m != a {
			t.Errorf("met at %v, %v, want %v", m, err, a)
		}
	}
	for _, other := range []Peer{{"d", torrA, key(0)}, {"c", torrB, key(0)}, {"c", torrA, key(99)}} {
		if a, err := table.Meet(other.Client, other.Hash, other.Key); err != nil || a == got[0] {
			t.Errorf("another client, swarm or peer has %v too, %v", a, err)
		}
	}
	if err := table.Save(); err != nil {
		t.Fatal(err)
	}

	again := open(t, file)
	if p, ok := again.Lookup(got[3]); ok {
		t.Errorf("the file tells that %v is %v", got[3], p)
	}
	if a := again.Assign("c", torrA, keys(3, 1)); len(a) != 1 || a[0] != got[3] {
		t.Errorf("after a restart it is %v, want %v", a, got[3])
	}
	if _, ok := again.Lookup(got[3]); !ok {
		t.Error("a peer that was announced again is unknown")
	}

	lost := empty(t) // the file was lost: the address is the same still
	if a, err := lost.Meet("c", torrA, key(3)); err != nil || a != got[3] {
		t.Errorf("without the file it is %v, want %v", a, got[3])
	}
}

// TestStandInOfAnEarlierRun says nothing but to whom it was given, and to who
// names the swarm that it was of.
func TestStandInOfAnEarlierRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stand-ins")
	table := open(t, file)
	a := table.Assign("alice", torrA, keys(0, 1))[0]
	if table.Given("alice", a) || !table.Was("alice", torrA, a) {
		t.Error("a stand-in of this run is taken for one of an earlier one")
	}
	if err := table.Save(); err != nil {
		t.Fatal(err)
	}
	table = open(t, file)
	never := at(slots - 1)
	if _, ok := table.Lookup(a); ok || !table.Given("alice", a) || table.Given("bob", a) || table.Given("alice", never) || table.Given("alice", Beacon(0)) {
		t.Error("it is not known to whom it was given")
	}
	if !table.Was("alice", torrA, a) || table.Was("alice", torrB, a) || table.Was("bob", torrA, a) || table.Was("alice", torrA, never) || table.Was("alice", torrA, Beacon(0)) {
		t.Error("it is not known of which swarm it was")
	}
	if again := table.Assign("alice", torrA, keys(0, 1))[0]; again != a || table.Given("alice", a) {
		t.Error("the peer is another, or not seen")
	}
}

func TestGoodPeersComeFirst(t *testing.T) {
	table := empty(t)
	table.Assign("c", torrA, keys(0, 20))
	good, err := table.Meet("c", torrA, key(15))
	if err != nil {
		t.Fatal(err)
	}
	got := table.Assign("c", torrA, keys(0, 30))
	if got[0] != good {
		t.Errorf("first is %v, want %v", got[0], good)
	}
	for _, a := range got[1:20] {
		p, _ := table.Lookup(a)
		if binary.BigEndian.Uint64(p.Key[:]) > 20 {
			t.Error("a new peer comes before a known one")
		}
	}
}

func TestOneAnswerMakesFiftyAtMost(t *testing.T) {
	table := empty(t)
	if got := table.Assign("c", torrA, keys(0, 200)); len(got) != MaxNew {
		t.Errorf("%d new, want %d", len(got), MaxNew)
	}
	if got := table.Assign("c", torrA, keys(0, 200)); len(got) != 2*MaxNew {
		t.Errorf("%d the second time, want %d", len(got), 2*MaxNew)
	}
	if got := table.Assign("c", torrA, []swarm.Key{key(500), key(500)}); len(got) != 1 {
		t.Errorf("%d for one peer", len(got))
	}
}

func TestSwarmHoldsOnlySoMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := empty(t)
		met, err := table.Meet("c", torrA, key(0))
		if err != nil {
			t.Fatal(err)
		}
		for i := range MaxLive - 1 {
			table.Assign("c", torrA, keys(1+i, 1))
		}
		if _, err := table.Meet("c", torrA, key(9999)); err != ErrSwarmFull {
			t.Errorf("one more: %v, want %v", err, ErrSwarmFull)
		}
		if _, err := table.Meet("c", torrB, key(9999)); err != nil {
			t.Errorf("another swarm: %v", err)
		}
		time.Sleep(2 * idle)
		if _, err := table.Meet("c", torrA, key(9999)); err != nil {
			t.Errorf("no idle one made room: %v", err)
		}
		if table.Live() != MaxLive+1 {
			t.Errorf("%d live", table.Live())
		}
		if _, ok := table.Lookup(met); !ok {
			t.Error("a peer that was met made room for a stranger")
		}
	})
}

func TestDayMakesOnlySoMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := empty(t)
		n := 0
		for s := byte(1); n < MaxPerDay; s++ {
			n += len(table.Assign("c", swarm.Hash{s}, keys(0, MaxNew)))
		}
		if n != MaxPerDay {
			t.Errorf("%d were made", n)
		}
		if _, err := table.Meet("c", torrB, key(7)); err != ErrDayFull {
			t.Errorf("one more: %v, want %v", err, ErrDayFull)
		}
		if _, err := table.Meet("d", torrB, key(7)); err != nil {
			t.Errorf("another client: %v", err)
		}
		if err := table.Save(); err != nil {
			t.Fatal(err)
		}
		table = open(t, table.file)
		if _, err := table.Meet("c", torrB, key(7)); err != ErrDayFull {
			t.Errorf("after a restart: %v, want %v", err, ErrDayFull)
		}
		time.Sleep(24 * time.Hour)
		if _, err := table.Meet("c", torrB, key(7)); err != nil {
			t.Errorf("the next day: %v", err)
		}
	})
}

func TestUnusedStandInRestsAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := empty(t)
		a, err := table.Meet("c", torrA, key(1))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(Unused - time.Hour)
		table.Lookup(a) // a client that dials it uses it
		time.Sleep(2 * time.Hour)
		table.Sweep()
		if _, ok := table.Lookup(a); !ok {
			t.Error("gone although it was dialled")
		}
		time.Sleep(Unused)
		table.Sweep()
		if _, ok := table.Lookup(a); ok || table.Live() != 0 {
			t.Error("not in quarantine")
		}
		if b, err := table.Meet("c", torrA, key(1)); err != nil || a != b {
			t.Errorf("its own peer comes back at %v, %v, want %v", b, err, a)
		}
	})
}

// TestRangeIsReusedByTheSameClientOnly fills the whole range.
func TestRangeIsReusedByTheSameClientOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := empty(t)
		_, _, owner := table.ids(Peer{Client: "c"})
		for s := range slots {
			var i id
			binary.BigEndian.PutUint64(i[8:], uint64(s))
			table.entries[s] = &entry{id: i, client: owner, used: hours(time.Now()), rests: true}
			table.known[i] = s
		}
		if _, err := table.Meet("c", torrA, key(1)); err != ErrRangeFull {
			t.Errorf("Meet = %v, want %v", err, ErrRangeFull)
		}
		time.Sleep(Unused + Quarantine)
		if _, err := table.Meet("d", torrA, key(1)); err != ErrRangeFull {
			t.Errorf("another client: %v, want %v", err, ErrRangeFull)
		}
		if _, err := table.Meet("c", torrA, key(1)); err != nil {
			t.Errorf("the same client: %v", err)
		}
		if len(table.known) != slots {
			t.Errorf("%d known, want %d", len(table.known), slots)
		}
	})
}

func sample(t testing.TB) *Table {
	table := newTable("", secret)
	add := func(p Peer, used int64, met, rests bool) {
		i, g, o := table.ids(p)
		s, ok := table.free(i, o, time.Unix(0, 0))
		if !ok {
			t.Fatal("no slot")
		}
		table.entries[s] = &entry{id: i, group: g, client: o, used: used, met: met, rests: rests}
		table.known[i] = s
		table.made[o] = made{day: 20000, n: 3}
	}
	add(Peer{"c", torrA, key(1)}, 480000, true, false)
	add(Peer{"c", torrB, key(2)}, 480001, false, true)
	add(Peer{"d", torrA, key(1)}, 480002, true, true)
	return table
}

// TestGoldenFile holds the layout of the file.
func TestGoldenFile(t *testing.T) {
	const name = "testdata/file.txt"
	b := sample(t).append(nil)
	if *update {
		var s strings.Builder
		s.WriteString("# A table of three stand-ins of two clients, under the secret 01 00 ...\n")
		s.WriteString("# Made by go test -run Golden -update ./proxy/peers; file.go has the layout.\n")
		line := func(what string, n int) {
			fmt.Fprintf(&s, "%x  # %s\n", b[:n], what)
			b = b[n:]
		}
		line("entries", 4)
		line("days", 4)
		for range 3 {
			line("slot", 4)
			line("peer", 16)
			line("swarm", 8)
			line("client", 8)
			line("last use", 4)
			line("flags", 1)
		}
		for range 2 {
			line("client", 8)
			line("day", 4)
			line("made", 4)
		}
		if err := os.WriteFile(name, []byte(s.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := golden(t); !bytes.Equal(b, want) {
		t.Errorf("the file is\n%x, want\n%x", b, want)
	}
}

func golden(t testing.TB) (b []byte) {
	text, err := os.ReadFile("testdata/file.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		digits, _, _ := strings.Cut(line, "#")
		part, err := hex.DecodeString(strings.TrimSpace(digits))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, part...)
	}
	return b
}

func TestFileRoundTrip(t *testing.T) {
	b := sample(t).append(nil)
	table := newTable("", secret)
	if err := table.parse(b); err != nil {
		t.Fatal(err)
	}
	if got := table.append(nil); !bytes.Equal(got, b) {
		t.Errorf("made %x of %x", got, b)
	}
}

func TestDamagedFileIsRefused(t *testing.T) {
	b := sample(t).append(nil)
	for i := range b {
		if newTable("", secret).parse(b[:i]) == nil {
			t.Errorf("took %d of %d bytes", i, len(b))
		}
	}
	if newTable("", secret).parse(append(b, 0)) == nil {
		t.Error("took a byte too many")
	}
}

func FuzzFile(f *testing.F) {
	f.Add(golden(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		table := newTable("", secret)
		if table.parse(b) == nil && !bytes.Equal(table.append(nil), b) {
			t.Errorf("made something else of %x", b)
		}
	})
}

func TestADamagedFileIsAnEmptyTableAndLeavesNoCopy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stand-ins")
	table := open(t, file)
	table.Assign("alice", torrA, keys(0, 3))
	if err := table.Save(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 100); err != nil {
		t.Fatal(err)
	}
	if n := open(t, file).Live(); n != 0 {
		t.Errorf("%d stand-ins of a damaged file", n)
	}
	if left, _ := filepath.Glob(file + "*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFileIsItsOwnersAndTellsNothing(t *testing.T) {
	table := empty(t)
	table.Assign("alice", torrA, keys(0, 3))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := table.Run(ctx); err != nil { // saves when it ends
		t.Fatal(err)
	}
	info, err := os.Stat(table.file)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	b, err := os.ReadFile(table.file)
	if err != nil {
		t.Fatal(err)
	}
	k := key(1)
	for _, secret := range [][]byte{torrA[:], torrA[:6], k[:8], []byte("alice")} {
		if bytes.Contains(b, secret) {
			t.Errorf("the file holds %x", secret)
		}
	}
	if l, _ := os.ReadDir(filepath.Dir(table.file)); len(l) != 1 {
		t.Errorf("%v are left", l)
	}
	table.file = filepath.Join(t.TempDir(), "no such folder", "file")
	table.dirty = true
	if err := table.Save(); err == nil || !table.dirty {
		t.Errorf("Save into nowhere = %v", err)
	}
}

func TestRunSavesWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := empty(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- table.Run(ctx) }()
		table.Assign("c", torrA, keys(0, 3))
		time.Sleep(saveEvery + time.Second)
		synctest.Wait()
		if _, err := os.Stat(table.file); err != nil {
			t.Error(err)
		}
		time.Sleep(Unused + 2*sweepEvery)
		if table.Live() != 0 {
			t.Errorf("%d live, want none", table.Live())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	table := empty(t)
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := range 100 {
				for _, a := range table.Assign("c", torrA, keys(i, 3)) {
					table.Lookup(a)
				}
				table.Meet("c", torrA, key(i))
				if c == 0 && i%10 == 0 {
					table.Save()
				}
			}
		})
	}
	wg.Wait()
	if table.Live() != 102 {
		t.Errorf("%d live, want 102", table.Live())
	}
}
