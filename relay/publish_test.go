package relay_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/circuit/window"
	"github.com/shoal-p2p/shoal/relay"
	"github.com/shoal-p2p/shoal/tracker"
	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// Real trackers and relays on loopback, in this process.

// patience is how long a test waits for what must happen.
const patience = time.Minute

// run starts f and returns what ends it; the test ends it otherwise.
func run(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func startTracker(t *testing.T, cfg tracker.Config) (directory.Tracker, func()) {
	t.Helper()
	if cfg.State == "" {
		cfg.State = t.TempDir()
	}
	cfg.Listen = "127.0.0.1:0"
	cfg.Network = directory.Network{Test: true, ViewEvery: 100 * time.Millisecond}
	cfg.Log = slog.New(slog.DiscardHandler)
	tr, err := tracker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr.Link().Tracker, run(t, tr.Run)
}

func networkOf(trackers ...directory.Tracker) directory.Network {
	return directory.Network{Trackers: trackers, Test: true, ViewEvery: 100 * time.Millisecond}
}

// lines is a log whose messages a test waits for.
type lines struct {
	slog.Handler
	said chan string
}

func (l lines) Handle(_ context.Context, r slog.Record) error {
	select {
	case l.said <- r.Message:
	default:
	}
	return nil
}

func (l lines) wait(t *testing.T, part string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case m := <-l.said:
			if bytes.Contains([]byte(m), []byte(part)) {
				return
			}
		case <-deadline:
			t.Fatalf("nobody said %q", part)
		}
	}
}

func startRelay(t *testing.T, n directory.Network, cfg relay.Config) (*relay.Relay, lines, func()) {
	t.Helper()
	said := lines{slog.NewTextHandler(nil, nil), make(chan string, 100)}
	if cfg.State == "" {
		cfg.State = t.TempDir()
	}
	cfg.Network, cfg.Listen, cfg.Log = n, "127.0.0.1:0", slog.New(said)
	r, err := relay.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r, said, run(t, r.Run)
}

// newClient returns a client that dials last hops itself.
func newClient(t *testing.T) *circuit.Client {
	t.Helper()
	return clientOver(t, &link.Pool{})
}

func clientOver(t *testing.T, links *link.Pool) *circuit.Client {
	t.Helper()
	run(t, func(ctx context.Context) error { links.Run(ctx); return nil })
	c := circuit.New(circuit.Config{
		Links:   links,
		Chooser: path.New(path.Rules{Test: true, SameNet: true}, path.NewRand(), nil, nil),
		Relays:  func() []path.Relay { return nil },
		Step:    func() uint32 { return onion.Step(time.Now()) },
		Budget:  window.NewBudget(1 << 12),
		Hello:   directory.Hello,
	})
	t.Cleanup(c.Close)
	return c
}

func to(tr directory.Tracker) circuit.Want {
	return circuit.Want{Use: circuit.ForTracker, Last: path.Relay{ID: onion.ID(tr.Key), Addr: tr.Addr}, Direct: true}
}

// follow keeps the views of tr until what holds of them.
func follow(t *testing.T, c *circuit.Client, tr directory.Tracker, what func(*directory.Keeper) bool) *directory.Keeper {
	t.Helper()
	k, err := directory.OpenKeeper(t.TempDir(), networkOf(tr), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, func(ctx context.Context) error {
		k.Follow(ctx, c, false, func(asked []onion.ID) (path.Relay, bool) { return to(tr).Last, len(asked) == 0 })
		return nil
	})
	defer stop()
	deadline := time.After(patience)
	for {
		changed := k.Changed()
		if what(k) {
			return k
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("the views never say so")
		}
	}
}

func TestRelayPublishesIsTriedAndListed(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("network", func(t *testing.T) {
		tr, stopTracker := startTracker(t, tracker.Config{})
		dir := t.TempDir() + "/state"
		r, said, stop := startRelay(t, networkOf(tr), relay.Config{State: dir})
		said.wait(t, "is reachable from outside")
		k := follow(t, newClient(t), tr, func(k *directory.Keeper) bool { _, ok := k.Relay(r.ID()); return ok })
		if got, _ := k.Relay(r.ID()); got.Addr != r.Where().Addr || got.Weight == 0 || got.Weight > directory.FirstWeight {
			t.Errorf("listed at %v with weight %d", got.Addr, got.Weight)
		}
		if _, err := relay.New(relay.Config{Network: networkOf(tr), State: dir, Listen: "127.0.0.1:0"}); !errors.Is(err, state.ErrInUse) {
			t.Errorf("second relay on the folder: %v, want %v", err, state.ErrInUse)
		}
		stop()
		stopTracker()
		filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
			want := fs.FileMode(0o600)
			if err == nil && e.IsDir() {
				want = 0o700
			}
			if info, err := e.Info(); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v, want %v", file, info.Mode(), err, want)
			}
			return nil
		})
	})
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, were %d\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

func TestRelayThatCannotBeReachedIsToldAndNotListed(t *testing.T) {
	tr, _ := startTracker(t, tracker.Config{})
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	hidden, said, _ := startRelay(t, networkOf(tr), relay.Config{Advertise: nobody.Addr().(*net.TCPAddr).AddrPort()})
	said.wait(t, "NOT reachable from outside")
	good, _, _ := startRelay(t, networkOf(tr), relay.Config{})
	k := follow(t, newClient(t), tr, func(k *directory.Keeper) bool { _, ok := k.Relay(good.ID()); return ok })
	if _, ok := k.Lookup(hidden.ID()); ok {
		t.Error("others are made to dial a relay that nobody reached")
	}
}

func TestRelayWithAnAddressOfAnotherNetworkIsTold(t *testing.T) {
	cfg := tracker.Config{State: t.TempDir(), Listen: "127.0.0.1:0", Advertise: netip.MustParseAddrPort("9.9.9.1:0"), Log: slog.New(slog.DiscardHandler)}
	tr, err := tracker.New(cfg) // a public network
	if err != nil {
		t.Fatal(err)
	}
	run(t, tr.Run)
	at := tr.Link().Tracker
	at.Addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Addr.Port())
	_, said, _ := startRelay(t, networkOf(at), relay.Config{Advertise: netip.MustParseAddrPort("10.0.0.1:9001")})
	said.wait(t, "does not take this relay: it has no address")
}

// seal makes the record of a member of the swarm of hash at tr, and its name there.
func seal(t *testing.T, m *announce.Member, tr directory.Tracker, life time.Duration, bits int) (name [32]byte, o announce.Outer) {
	t.Helper()
	now := time.Now()
	day := announce.Days(m.InfoHash(), now)[0]
	name = announce.Name(m.InfoHash(), tr.Key, day)
	tk := m.TrackerKey(tr.Key, day)
	stamp, err := announce.Mint(t.Context(), name, [32]byte(tk[32:]), bits)
	if err != nil {
		t.Fatal(err)
	}
	o, err = announce.Seal(m, tr.Key, day, announce.Record{Meetings: []announce.Meeting{m.Meeting(onion.ID{1}, day)},
		Sequence: 1, Expiry: now.Add(life).Unix(), Seeder: true}, stamp)
	if err != nil {
		t.Fatal(err)
	}
	return name, o
}

// quiet is the info-hash of a swarm whose day does not change during the tests.
var quiet = sync.OnceValue(func() (h [20]byte) {
	for now := time.Now(); len(announce.Days(h, now)) != 1 || announce.Days(h, now)[0] != announce.Days(h, now.Add(2*time.Hour))[0]; {
		h[0]++
	}
	return h
})

func newMember(t *testing.T) *announce.Member {
	t.Helper()
	s, err := announce.LoadSecret(t.TempDir(), "client", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return s.Member(quiet())
}

// tell sends one request over a circuit of its own, which it returns.
func tell(t *testing.T, c *circuit.Client, tr directory.Tracker, r announce.Request) (*circuit.Circuit, *announce.Answer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	one, reply, err := c.Request(ctx, to(tr), cell.RequestAnnounce, r.Append(nil), announce.MaxAnswer)
	if err != nil {
		t.Fatal(err)
	}
	a, err := announce.ParseAnswer(reply)
	if err != nil {
		t.Fatal(err)
	}
	return one, a
}

func TestAnnounceIsStoredFoundWithdrawnAndExpires(t *testing.T) {
	tr, _ := startTracker(t, tracker.Config{Interval: 7 * time.Minute})
	c := newClient(t)
	seeder, other := newMember(t), newMember(t)
	name, o := seal(t, seeder, tr, time.Hour, 0)
	if _, a := tell(t, c, tr, announce.Request{Name: name, Outer: &o, NumWant: 10}); a.Status != announce.Done || a.Interval != 7*time.Minute {
		t.Errorf("status %v, interval %v", a.Status, a.Interval)
	}
	look := announce.Request{Name: name, NumWant: 10}
	_, a := tell(t, c, tr, look)
	if len(a.Records) != 1 || a.Seeders != 1 || a.Leechers != 0 {
		t.Fatalf("%d records, %d seeders, %d leechers", len(a.Records), a.Seeders, a.Leechers)
	}
	r, err := announce.OpenRecord(other.InfoHash(), tr.Key, announce.Days(other.InfoHash(), time.Now())[0], &a.Records[0], time.Now())
	if err != nil || r.E != seeder.E() {
		t.Errorf("OpenRecord: %v", err)
	}

	forged := o
	forged.Seeder = false
	if _, a := tell(t, c, tr, announce.Request{Name: name, Outer: &forged}); a.Status != announce.Invalid {
		t.Errorf("a forged record: %v", a.Status)
	}
	day := announce.Days(seeder.InfoHash(), time.Now())[0]
	stranger := announce.Withdraw(other, tr.Key, day)
	stranger.T = o.T
	if _, a := tell(t, c, tr, announce.Request{Name: name, Withdraw: stranger, NumWant: 1}); a.Status != announce.Invalid || len(a.Records) != 1 {
		t.Errorf("another's withdrawal: %v, %d records left", a.Status, len(a.Records))
	}
	if _, a := tell(t, c, tr, announce.Request{Name: name, Withdraw: announce.Withdraw(seeder, tr.Key, day), NumWant: 1}); a.Status != announce.Done || len(a.Records) != 0 {
		t.Errorf("withdrawal: %v, %d records left", a.Status, len(a.Records))
	}

	_, brief := seal(t, other, tr, 2*time.Second, 0)
	ends := time.Now().Add(2 * time.Second) // or up to a second earlier
	_, a = tell(t, c, tr, announce.Request{Name: name, Outer: &brief, NumWant: 1})
	if len(a.Records) != 1 && time.Now().Before(ends.Add(-time.Second)) {
		t.Errorf("%v, %d records", a.Status, len(a.Records))
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ended := time.Now().Add(patience); ; <-tick.C {
		if _, a := tell(t, c, tr, look); len(a.Records) == 0 {
			break
		}
		if time.Now().After(ended) {
			t.Fatal("a record never ends")
		}
	}
}

func TestCircuitThatSpeaksOfMoreIsRefused(t *testing.T) {
	tr, _ := startTracker(t, tracker.Config{})
	c := newClient(t)
	name, o := seal(t, newMember(t), tr, time.Hour, 0)
	one, _ := tell(t, c, tr, announce.Request{Name: name, Outer: &o})
	ask := func(kind byte, body []byte) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := one.Request(ctx, kind, body, announce.MaxAnswer)
		return err
	}
	refused := func(what string, err error) {
		t.Helper()
		if r := new(circuit.RefusedError); !errors.As(err, &r) || r.Reason != cell.BadRequest {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, second := seal(t, newMember(t), tr, time.Hour, 0)
	refused("a second member", ask(cell.RequestAnnounce, (&announce.Request{Name: name, Outer: &second}).Append(nil)))
	if err := ask(cell.RequestAnnounce, (&announce.Request{Name: [32]byte{2}}).Append(nil)); err != nil {
		t.Errorf("the name of another day: %v", err)
	}
	refused("a third name", ask(cell.RequestAnnounce, (&announce.Request{Name: [32]byte{3}}).Append(nil)))
	refused("garbage", ask(cell.RequestAnnounce, []byte("garbage")))
	refused("no descriptor", ask(cell.RequestPublish, []byte("garbage")))
	refused("no list of views", ask(cell.RequestViews, []byte{200}))
	refused("an unknown request", ask(99, nil))
	if err := ask(cell.RequestAnnounce, (&announce.Request{Name: name}).Append(nil)); err != nil {
		t.Errorf("the circuit's own swarm after all that: %v", err)
	}
}

func TestStampIsAskedForAndTaken(t *testing.T) {
	const bits = 8
	tr, _ := startTracker(t, tracker.Config{StampBits: bits})
	c, m := newClient(t), newMember(t)
	name, o := seal(t, m, tr, time.Hour, 0)
	for announce.Check(name, o.T, o.Stamp, bits) {
		o.Stamp++
	}
	if _, a := tell(t, c, tr, announce.Request{Name: name, Outer: &o, NumWant: 1}); a.Status != announce.StampNeeded || a.StampBits != bits || len(a.Records) != 0 {
		t.Errorf("without a stamp: %v, %d bits, %d records", a.Status, a.StampBits, len(a.Records))
	}
	name, o = seal(t, m, tr, time.Hour, bits)
	if _, a := tell(t, c, tr, announce.Request{Name: name, Outer: &o, NumWant: 1}); a.Status != announce.Done || len(a.Records) != 1 {
		t.Errorf("with a stamp: %v, %d records", a.Status, len(a.Records))
	}
}

func TestEchoIsBounded(t *testing.T) {
	if b, err := relay.Echo([]byte{0, 16, 0, 0}); err != nil || len(b) != cell.MaxEcho {
		t.Errorf("the longest echo: %d bytes, %v", len(b), err)
	}
	for _, body := range [][]byte{nil, {1}, {0, 16, 0, 1}, {255, 255, 255, 255}, {0, 0, 0, 1, 0}} {
		if _, err := relay.Echo(body); err == nil {
			t.Errorf("Echo(%x) is answered", body)
		}
	}
}

func TestFloodOnOneCircuitDisturbsNobody(t *testing.T) {
	tr, _ := startTracker(t, tracker.Config{})
	c := newClient(t)
	name, o := seal(t, newMember(t), tr, time.Hour, 0)
	one, _ := tell(t, c, tr, announce.Request{Name: name, Outer: &o})
	for _, flood := range []int{50, 1000} {
		var answered, refused atomic.Int32
		var all sync.WaitGroup
		for range flood {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				_, err := one.Request(ctx, cell.RequestViews, directory.AppendHave(nil, []directory.Have{{Tracker: tr.Key}}), directory.MaxView)
				switch r := new(circuit.RefusedError); {
				case err == nil:
					answered.Add(1)
				case errors.As(err, &r), errors.Is(err, circuit.ErrGone): // a few at a time, and who has hundreds refused unread is cut off
					refused.Add(1)
				default:
					t.Errorf("flood: %v", err)
				}
			})
		}
		if _, a := tell(t, c, tr, announce.Request{Name: name, NumWant: 1}); len(a.Records) != 1 {
			t.Error("another circuit is not served meanwhile")
		}
		all.Wait()
		t.Logf("of %d: %d answered, %d refused", flood, answered.Load(), refused.Load())
		if flood == 50 && answered.Load() == 0 {
			t.Error("nothing was answered")
		}
	}
}

func TestFollowWithOneSourceSticksToItAndWithoutAsksAll(t *testing.T) {
	a, stopA := startTracker(t, tracker.Config{})
	b, _ := startTracker(t, tracker.Config{})
	other, _ := startTracker(t, tracker.Config{})
	sources := []directory.Tracker{a, b}
	c := newClient(t)
	for _, one := range []bool{true, false} {
		k, err := directory.OpenKeeper(t.TempDir(), networkOf(a, b, other), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		rounds, asked := make(chan struct{}, 100), [2]atomic.Int32{}
		stop := run(t, func(ctx context.Context) error {
			k.Follow(ctx, c, one, func(had []onion.ID) (path.Relay, bool) {
				if len(had) == 0 {
					rounds <- struct{}{}
				}
				if len(had) == len(sources) {
					return path.Relay{}, false
				}
				asked[len(had)].Add(1)
				return to(sources[len(had)]).Last, true
			})
			return nil
		})
		for range 4 {
			<-rounds
		}
		if got := asked[1].Load(); one && got != 0 || !one && got < 3 {
			t.Errorf("one %v: the second source was asked %d times in 3 rounds", one, got)
		}
		if one { // until it fails
			stopA()
			for deadline := time.After(patience); asked[1].Load() == 0; {
				select {
				case <-rounds:
				case <-deadline:
					t.Fatal("the second source is never asked")
				}
			}
		}
		stop()
		sources = []directory.Tracker{other, b}
	}
}
