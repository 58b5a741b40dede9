package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// known bounds the time until a sidecar knows that its line is cut. It takes 9 s
// at most; the rest is for a machine that does other things at the same time.
const known = 15 * time.Second

// forgotten is when a loss of two seconds that was to end a link would have.
const forgotten = 9 * time.Second

// stays checks for d that the sidecar is ready.
func (h *household) stays(t *testing.T, ctx context.Context, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if code, body, err := h.get(ctx, "/readyz"); err != nil || code != 200 {
			t.Fatalf("%d %s, %v", code, body, err)
		}
	}
}

// TestReadyIsTrue while nothing moves and while a file does: a cut line is known
// within seconds, a short loss is no cut, and the sidecar is back soon after
// the line is.
func TestReadyIsTrue(t *testing.T) {
	ctx := deadline(t)
	s := newSite(t, ctx, 3, 6)
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprint("busy ", busy), func(t *testing.T) {
			t.Parallel() // most of it is waiting
			h := s.home(t, s.network)
			t.Logf("ready %v after the start", h.ready(t, ctx, true).Round(10*time.Millisecond))
			secret := "a torrent"
			if busy {
				other := s.home(t, s.network)
				other.ready(t, ctx, true)
				secret = transfer(t, ctx, other, h).Hash.String()
			}
			for range 2 { // at different moments between two keepalives
				if err := h.host.Cut(); err != nil {
					t.Fatal(err)
				}
				h.stays(t, ctx, 2*time.Second)
				if err := h.host.Mend(); err != nil {
					t.Fatal(err)
				}
				h.stays(t, ctx, forgotten-2*time.Second)
			}
			for _, line := range []struct {
				name      string
				cut, mend func() error
			}{{"cut beyond the interface", h.host.Cut, h.host.Mend}, {"interface down", h.host.Down, h.host.Up}} {
				if err := line.cut(); err != nil {
					t.Fatal(err)
				}
				gone := h.ready(t, ctx, false)
				time.Sleep(3 * time.Second)
				if err := line.mend(); err != nil {
					t.Fatal(err)
				}
				back := h.ready(t, ctx, true)
				t.Logf("%s: not ready after %v, ready %v after it was back", line.name, gone.Round(10*time.Millisecond), back.Round(10*time.Millisecond))
				if gone > known || back > known {
					t.Errorf("%s: not ready after %v, ready again after %v: want at most %v", line.name, gone, back, known)
				}
				h.stays(t, ctx, time.Second)
			}
			words := h.words(t)
			if n := strings.Count(words, `msg="not ready"`); n < 2 || n > 6 {
				t.Errorf("the log says %d times that it is not ready: %s", n, words)
			}
			h.private(t)
			if strings.Contains(strings.ToLower(words), secret) {
				t.Errorf("the log names the torrent: %s", words)
			}
		})
	}
}

// transfer has a file move from one household's client to the other's for
// longer than the test, and returns when it does.
func transfer(t *testing.T, ctx context.Context, from, to *household) torrent.Torrent {
	t.Helper()
	client := func(h *household, limit int) clients.Client {
		return startClient(t, ctx, clients.QBittorrent, clients.Config{Dir: t.TempDir(), SOCKS: h.SOCKS, Dial: h.host.Dial, DownloadLimit: limit,
			Under: func(uint16) []string { return h.host.Command("env").Args }})
	}
	tor := noise(t, 256<<20, httpTracker)
	seeder, leecher := client(from, 0), client(to, 1<<20)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	add(t, ctx, leecher, tor)
	err := clients.WaitFor(ctx, leecher, tor.Hash, func(p clients.Progress) bool { return p.Done > 0.004 })
	if err != nil {
		t.Fatal(err)
	}
	return tor
}

// guards returns a household's guards, the first first.
func (h *household) guards(t *testing.T) (ids []onion.ID) {
	t.Helper()
	kept, err := path.LoadGuards(filepath.Join(h.State, "state", "guards"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range path.New(path.Rules{}, path.NewRand(), kept, nil).GuardStatus() {
		ids = append(ids, g.ID)
	}
	return ids
}

// TestAGuardThatHangsIsReplaced by the other one, without the sidecar being
// anything but ready, and is used again once it is back.
func TestAGuardThatHangsIsReplaced(t *testing.T) {
	ctx := deadline(t)
	s := newSite(t, ctx, 1, 6)
	h := s.home(t, s.network)
	h.ready(t, ctx, true)
	first := h.guards(t)[0]
	for _, r := range s.relays {
		if r.id.ID != first {
			continue
		}
		if err := syscall.Kill(r.PID(), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		h.stays(t, ctx, forgotten+2*time.Second)
		h.says(t, ctx, "a guard is lost; the other one carries everything")
		if err := syscall.Kill(r.PID(), syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		h.says(t, ctx, "the guard that was lost is back")
		h.stays(t, ctx, time.Second)
		return
	}
	t.Errorf("the guard %v is no relay of this network", first)
}

// says waits until the log holds s.
func (h *household) says(t *testing.T, ctx context.Context, s string) {
	t.Helper()
	began := time.Now()
	err := process.Until(ctx, 50*time.Millisecond, func() (bool, error) { return strings.Contains(h.words(t), s), nil }, h.Process)
	if err != nil {
		t.Fatalf("the log does not say %q: %v: %s", s, err, h.words(t))
	}
	t.Logf("%q after %v", s, time.Since(began).Round(10*time.Millisecond))
}

// TestThePageSaysHowManyTrackersAnswer, and the sidecar is ready as long as one does.
func TestThePageSaysHowManyTrackersAnswer(t *testing.T) {
	ctx := deadline(t)
	s := newSite(t, ctx, 3, 4)
	h := s.home(t, s.network)
	h.ready(t, ctx, true)
	answer := func(want int) {
		t.Helper()
		began := time.Now()
		err := process.Until(ctx, 20*time.Millisecond, func() (bool, error) {
			now, err := h.status(ctx)
			if err == nil {
				err = fmt.Errorf("%+v", now.Trackers)
			}
			return now.Trackers.Asked == 3 && now.Trackers.Answer == want, err
		})
		if err != nil {
			t.Fatalf("%d of 3: %v", want, err)
		}
		t.Logf("%d of 3 after %v", want, time.Since(began).Round(10*time.Millisecond))
	}
	answer(3)
	for i, tr := range s.trackers {
		h.stays(t, ctx, 0)
		tr.Kill()
		answer(2 - i)
	}
	t.Logf("not ready %v later", h.ready(t, ctx, false))
	s.start(t, s.trackers[1])
	answer(1)
	h.ready(t, ctx, true)
	for _, words := range []string{"2 of 3 trackers answer", "1 of 3 trackers answer", "0 of 3 trackers answer", "None of the 3 trackers answers."} {
		h.says(t, ctx, words)
	}
	h.private(t)
}
