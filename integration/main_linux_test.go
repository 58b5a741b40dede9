package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/netns"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// Everything here runs in a network namespace of its own. The programs are
// built, and what is missing is installed, before it is entered.
func TestMain(m *testing.M) {
	if dir := os.Getenv(seatVariable); dir != "" {
		fmt.Fprintln(os.Stderr, takeSeat(dir, os.Args[1]))
		os.Exit(1)
	}
	netns.Tests(suite{m}, build)
}

// binVariable tells where the programs are.
const binVariable = "SHOAL_TEST_BIN"

func build(dir string) ([]string, error) {
	for _, c := range []struct {
		cgo  string
		args []string
	}{
		{"0", []string{"./prereq.sh", "test"}},
		{"0", []string{"go", "build", "-trimpath", "-o", dir + "/", "../cmd/shoal", "../cmd/shoal-tracker"}},
		{"1", []string{"go", "build", "-race", "-o", dir + "/" + raceDir + "/", "../cmd/shoal", "../cmd/shoal-tracker"}},
	} {
		cmd := exec.Command(c.args[0], c.args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+c.cgo)
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(c.args, " "), err)
		}
	}
	return []string{binVariable + "=" + dir, "TMPDIR=" + dir}, nil
}

// raceDir is where the programs are once more, with the race detector in them.
const raceDir = "race"

func shoal() string        { return filepath.Join(os.Getenv(binVariable), "shoal") }
func shoalTracker() string { return filepath.Join(os.Getenv(binVariable), "shoal-tracker") }

// suite runs the tests, and then looks for what they have left.
type suite struct{ m *testing.M }

func (s suite) Run() int {
	code := s.m.Run()
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if left := processes(); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "processes are left:", left)
		return 1
	}
	return code
}

// processes returns the command lines of the other processes in this namespace.
func processes() []string {
	var all []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && len(line) > 0 && file != fmt.Sprintf("/proc/%d/cmdline", os.Getpid()) {
			all = append(all, strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " "))
		}
	}
	return all
}

// shared is the network that most tests use: it takes seconds to start.
var shared struct {
	once sync.Once
	net  *testnet.Net
	err  error
}

func network(t *testing.T) *testnet.Net {
	t.Helper()
	shared.once.Do(func() {
		began := time.Now()
		shared.net, shared.err = testnet.Start(context.Background(), testnet.Config{
			Trackers: 3, Relays: 9, Sidecars: 3,
			State: filepath.Join(os.Getenv(binVariable), "network"),
			Shoal: shoal(), Tracker: shoalTracker(), Ready: patience,
		})
		t.Logf("the network was ready after %v", time.Since(began))
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			explain(t, shared.net)
		}
	})
	return shared.net
}

func closeShared() error {
	if shared.net == nil {
		return nil
	}
	return shared.net.Close()
}

// start starts a network of the test's own, that is gone at its end.
func start(t *testing.T, ctx context.Context, c testnet.Config) *testnet.Net {
	t.Helper()
	c.State, c.Ready = t.TempDir(), patience
	if c.Shoal == "" {
		c.Shoal, c.Tracker = shoal(), shoalTracker()
	}
	began := time.Now()
	net, err := testnet.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v", time.Since(began))
	t.Cleanup(func() {
		if t.Failed() {
			explain(t, net)
		}
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
	return net
}

// explain logs what the sidecars have to say about a failed test.
func explain(t *testing.T, net *testnet.Net) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i, s := range net.Sidecars {
		status, err := s.ReadStatus(ctx)
		t.Logf("sidecar %d: %+v, %v; its last words: %s", i+1, status, err, s.Process.LastWords())
	}
}

// patience bounds a whole test, so that it fails and not the run. It is many
// times what any test takes on two idle cores, so that a busy machine breaks
// none, and less than the five minutes after which every client announces again:
// what only that would mend is a failure.
const patience = 3 * time.Minute

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// client starts a qBittorrent behind a sidecar, with what set adds to the
// settings that everybody needs. It is gone at the end of the test.
func client(t *testing.T, ctx context.Context, s *testnet.Sidecar, set func(*clients.Config)) clients.Client {
	t.Helper()
	c := clients.Config{Dir: t.TempDir(), SOCKS: s.SOCKS}
	if set != nil {
		set(&c)
	}
	return startClient(t, ctx, clients.QBittorrent, c)
}

func startClient(t *testing.T, ctx context.Context, kind clients.Kind, c clients.Config) clients.Client {
	t.Helper()
	running, err := kind.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s in %s: its last words: %s", kind.Name, c.Dir, running.Process().LastWords())
		}
		if err := running.Stop(); err != nil {
			t.Error(err)
		}
	})
	return running
}

// noise makes a torrent that no other test has, one of each size.
func noise(t *testing.T, size int, trackers ...string) torrent.Torrent {
	t.Helper()
	name := fmt.Sprintf("%s-%d.bin", strings.ReplaceAll(t.Name(), "/", "-"), size)
	tor, err := torrent.Noise(name, size, trackers...)
	if err != nil {
		t.Fatal(err)
	}
	return tor
}

// seed gives c the whole of tor, and returns once c knows that it has it.
func seed(t *testing.T, ctx context.Context, c clients.Client, tor torrent.Torrent) {
	t.Helper()
	if err := tor.Put(c.Config().Downloads()); err != nil {
		t.Fatal(err)
	}
	add(t, ctx, c, tor)
	if err := clients.Wait(ctx, c, tor.Hash); err != nil {
		t.Fatalf("seeding: %v", err)
	}
}

func add(t *testing.T, ctx context.Context, c clients.Client, tor torrent.Torrent) {
	t.Helper()
	if err := c.Add(ctx, tor.File); err != nil {
		t.Fatal(err)
	}
}

// arrives waits until c has tor, and checks it.
func arrives(t *testing.T, ctx context.Context, c clients.Client, tor torrent.Torrent) {
	t.Helper()
	began := time.Now()
	if err := clients.Wait(ctx, c, tor.Hash); err != nil {
		t.Fatalf("downloading: %v", err)
	}
	if err := tor.Check(c.Config().Downloads()); err != nil {
		t.Fatal(err)
	}
	t.Logf("arrived after %v", time.Since(began).Round(time.Millisecond))
}

// announced waits until the tracker that does not exist has answered c.
func announced(t *testing.T, ctx context.Context, c clients.Client, tor torrent.Torrent) {
	t.Helper()
	err := clients.WaitFor(ctx, c, tor.Hash, func(p clients.Progress) bool { return p.Announced })
	if err != nil {
		t.Fatalf("announcing: %v", err)
	}
}
