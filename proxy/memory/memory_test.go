package memory

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/proxy/proc"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

var (
	home = netip.MustParseAddr("127.0.0.1")
	port = netip.MustParseAddrPort("127.0.0.1:6881")
	now  = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
)

func hash(i int) (h swarm.Hash) {
	copy(h[:], fmt.Sprintf("hash %d", i))
	return h
}

func open(t testing.TB, file string, at time.Time) (*Memory, []Client) {
	t.Helper()
	m, earlier, err := Open(file, at)
	if err != nil {
		t.Fatal(err)
	}
	return m, earlier.Clients
}

func TestWhatIsRememberedComesBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memory")
	m, earlier := open(t, file, now)
	if earlier != nil {
		t.Fatalf("a first start remembers %v", earlier)
	}
	const odd = swarm.Client("user \xff\x00")
	owner := proc.ID{PID: 7, Started: 8}
	m.Met(odd, home)
	m.Heard(odd, port, owner)
	m.Join(odd, hash(1), func(s *Swarm) { s.Port, s.Left, s.Again = 6881, Something, 5*time.Minute })
	m.Join(odd, hash(1), func(s *Swarm) { s.Say(0); s.Say(swarm.Unknown) })
	m.Join(odd, hash(2), nil)
	m.Join(odd, hash(3), nil)
	m.Leave(odd, hash(2))
	m.Leave(odd, hash(4))
	m.Leave("nobody", hash(1))
	if !m.Has(odd, hash(1)) || m.Has(odd, hash(2)) || m.Has("nobody", hash(1)) {
		t.Error("a client is in another swarm than it said")
	}
	if err := m.save(now); err != nil {
		t.Fatal(err)
	}
	want := []Client{{Name: odd, Addr: home, UDP: port, Owner: owner, Swarms: []Swarm{
		{Hash: Hash(hash(1)), Port: 6881, Left: Nothing, Again: 5 * time.Minute},
		{Hash: Hash(hash(3)), Left: Unknown, Again: unsaid},
	}}}
	if _, got, err := Open(file, now.Add(time.Hour)); err != nil || got.Away != time.Hour || !reflect.DeepEqual(got.Clients, want) {
		t.Errorf("remembered %+v, %v, want %+v", got, err, want)
	}
	for _, at := range []time.Time{now.Add(forgotten + 1), now.Add(-forgotten - 1)} {
		if _, got := open(t, file, at); got != nil {
			t.Errorf("after %v it remembers %v", at.Sub(now), got)
		}
	}
}

func TestWithoutAPlaceNothingIsKept(t *testing.T) {
	t.Chdir(t.TempDir())
	m, _ := open(t, "", now)
	m.Join("c", hash(1), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.Run(ctx)
	if left, _ := os.ReadDir("."); len(left) != 0 {
		t.Errorf("%v was written", left)
	}
}

func TestAMemoryIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memory")
	m, _ := open(t, file, now)
	for i := range maxSwarms + 10 {
		m.Join("c", hash(i), func(s *Swarm) { s.Port, s.Left, s.Again = 65535, Something, 99*time.Hour })
	}
	for i := range maxClients + 10 {
		m.Met(swarm.Client(bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 128)), home)
	}
	if err := m.save(now); err != nil {
		t.Fatal(err)
	}
	_, got := open(t, file, now)
	n := 0
	for _, c := range got {
		n += len(c.Swarms)
	}
	if len(got) != maxClients || n != maxSwarms {
		t.Errorf("%d clients in %d swarms, want %d and %d", len(got), n, maxClients, maxSwarms)
	}
	m.Leave("c", hash(0))
	m.Join("c", hash(maxSwarms+20), nil)
	if n := len(m.clients["c"].swarms); n != maxSwarms {
		t.Errorf("%d swarms after one was left and one joined", n)
	}
}

func TestAChangeIsWrittenSoonAndManyAreOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "memory")
		m, _ := open(t, file, time.Now())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() {
			m.Run(ctx)
			close(done)
		}()
		kept := func() int {
			_, all := open(t, file, time.Now())
			if len(all) == 0 {
				return 0
			}
			return len(all[0].Swarms)
		}
		m.Join("c", hash(0), nil)
		time.Sleep(batch + time.Millisecond)
		if n := kept(); n != 1 {
			t.Errorf("%d swarms in the file after %v", n, batch)
		}
		for i := range 100 {
			m.Join("c", hash(i), nil)
			time.Sleep(5 * time.Millisecond)
		}
		if n := kept(); n != 1 {
			t.Errorf("%d swarms in the file within a second of the last write", n)
		}
		time.Sleep(saveEvery)
		if n := kept(); n != 100 {
			t.Errorf("%d swarms in the file, want 100", n)
		}
		info, _ := os.Stat(file)
		m.Join("c", hash(7), nil) // nothing new
		time.Sleep(2 * saveEvery)
		if again, _ := os.Stat(file); !os.SameFile(info, again) {
			t.Error("written without a change")
		}
		time.Sleep(beatEvery)
		if again, _ := os.Stat(file); os.SameFile(info, again) {
			t.Error("the file does not tell that the sidecar still runs")
		}
		m.Leave("c", hash(1))
		cancel()
		<-done
		if n := kept(); n != 99 {
			t.Errorf("%d swarms in the file at the end, want 99", n)
		}
	})
}

func TestHashesAreInNoLog(t *testing.T) {
	m := Swarm{Hash: Hash(hash(1))}
	if s := fmt.Sprintf("%v %+v %s", m, m, m.Hash); bytes.Contains([]byte(s), []byte("68617368")) || bytes.Contains([]byte(s), []byte("104 97")) {
		t.Errorf("%s", s)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"saved":"2030-01-02T03:04:05Z","clients":[{"name":"YQ==","addr":"127.0.0.1","swarms":[{"hash":"0000000000000000000000000000000000000000","port":6881,"left":"nothing","again":300000000000}]}]}`))
	f.Add([]byte(`{"saved":"2030-01-02T03:04:05Z","clients":[{"name":"YQ=="},{"name":"YQ=="}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parse(b, now)
		if err != nil {
			return
		}
		for _, c := range all.Clients {
			for _, s := range c.Swarms {
				s.Say(s.Left.Announce())
			}
		}
	})
}

func BenchmarkSave(b *testing.B) {
	m, _, err := Open(filepath.Join("/dev/shm", fmt.Sprint("shoal-bench-", os.Getpid())), now)
	if err != nil {
		b.Fatal(err)
	}
	defer os.Remove(m.file)
	for i := range maxSwarms {
		m.Join("c", hash(i), func(s *Swarm) { s.Port, s.Left, s.Again = 6881, Nothing, 5*time.Minute })
	}
	for b.Loop() {
		if err := m.save(now); err != nil {
			b.Fatal(err)
		}
	}
	if info, err := os.Stat(m.file); err == nil {
		b.ReportMetric(float64(info.Size()), "bytes")
	}
}
