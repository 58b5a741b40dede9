package peers

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

var (
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
	table := New(secret)
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

	again := New(secret)
	if p, ok := again.Lookup(got[3]); ok || !Valid(got[3]) {
		t.Errorf("after a restart %v is %v", got[3], p)
	}
	if a := again.Assign("c", torrA, keys(3, 1)); len(a) != 1 || a[0] != got[3] {
		t.Errorf("after a restart it is %v, want %v", a, got[3])
	}
	if a, err := New([32]byte{2}).Meet("c", torrA, key(3)); err != nil || a == got[3] {
		t.Errorf("with another secret it is %v too, %v", a, err)
	}
}

func TestGoodPeersComeFirst(t *testing.T) {
	table := New(secret)
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
	table := New(secret)
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
		table := New(secret)
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
		table := New(secret)
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
		time.Sleep(24 * time.Hour)
		if _, err := table.Meet("c", torrB, key(7)); err != nil {
			t.Errorf("the next day: %v", err)
		}
	})
}

func TestUnusedStandInRestsAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New(secret)
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
		table := New(secret)
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

func TestRunSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New(secret)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() {
			table.Run(ctx)
			close(done)
		}()
		table.Assign("c", torrA, keys(0, 3))
		time.Sleep(Unused + 2*sweepEvery)
		if table.Live() != 0 {
			t.Errorf("%d live, want none", table.Live())
		}
		cancel()
		<-done
	})
}

func TestManyAtOnce(t *testing.T) {
	table := New(secret)
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := range 100 {
				for _, a := range table.Assign("c", torrA, keys(i, 3)) {
					table.Lookup(a)
				}
				table.Meet("c", torrA, key(i))
				if c == 0 && i%10 == 0 {
					table.Sweep()
				}
			}
		})
	}
	wg.Wait()
	if table.Live() != 102 {
		t.Errorf("%d live, want 102", table.Live())
	}
}

func TestMeantIsWhatRTorrentMisread(t *testing.T) {
	for a, want := range map[string]string{
		"54.58.198.18:18246": "198.18.71.70:6881", // "6:" and c6 12 47 46
		"54.58.198.19:1":     "198.19.0.1:6881",
		"54.58.198.20:18246": "54.58.198.20:18246",
		"54.59.198.18:18246": "54.59.198.18:18246",
		"198.18.71.70:6881":  "198.18.71.70:6881",
		"[2001:db8::1]:1":    "[2001:db8::1]:1",
	} {
		if got := Meant(netip.MustParseAddrPort(a)).String(); got != want {
			t.Errorf("Meant(%s) = %s, want %s", a, got, want)
		}
	}
}
