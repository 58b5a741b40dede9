package swarm

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/window"
	"github.com/shoal-p2p/shoal/relay"
	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/directory"
	store "github.com/shoal-p2p/shoal/tracker/swarm"
)

// world is meeting relays and trackers in this process. Sidecars dial them
// without own relays in between: nobody needs a directory then.
type world struct {
	t        testing.TB
	relays   []*meetingRelay
	trackers []*tracker
}

type meetingRelay struct {
	path.Relay
	*process
}

// process is what ends when it is stopped.
type process struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func start(t testing.TB, run func(context.Context)) *process {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{cancel, make(chan struct{})}
	go func() { run(ctx); close(p.done) }()
	t.Cleanup(p.stop)
	return p
}

func (p *process) stop() {
	p.cancel()
	<-p.done
}

func newWorld(t testing.TB, relays, trackers int) *world {
	t.Helper()
	w := &world{t: t}
	network := directory.Network{Test: true, ViewEvery: directory.ViewEvery}
	for range trackers {
		tr := newTracker(t)
		w.trackers = append(w.trackers, tr)
		network.Trackers = append(network.Trackers, directory.Tracker{Key: tr.ID, Addr: tr.Addr})
	}
	for i := range relays {
		state := filepath.Join(t.TempDir(), fmt.Sprint("relay-", i))
		r, err := relay.New(relay.Config{Network: network, State: state, Listen: "127.0.0.1:0",
			Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		keys, err := hop.OpenKeys(state)
		if err != nil {
			t.Fatal(err)
		}
		w.relays = append(w.relays, &meetingRelay{
			path.Relay{ID: r.ID(), Addr: r.Where().Addr, Key: keys.Current(), Weight: 1 << 20},
			start(t, func(ctx context.Context) { r.Run(ctx) }),
		})
	}
	return w
}

// tracker is a blind tracker that a test looks into.
type tracker struct {
	path.Relay
	*process

	mu          sync.Mutex
	store       *store.Memory
	bits        int                 // guarded by mu: the stamp it asks for
	took        []*announce.Request // guarded by mu
	withdrawals int                 // guarded by mu
	slow        chan struct{}       // not nil: answers wait until it is closed
	waiting     atomic.Int32        // requests that have waited for slow, or do
	now         func() time.Time    // its clock
}

func newTracker(t testing.TB) *tracker {
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := onion.GenerateKey(1)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := link.Certificate(identity)
	if err != nil {
		t.Fatal(err)
	}
	tr := &tracker{store: store.NewMemory(store.Limits{}), now: time.Now}
	links := &link.Pool{Certificate: &cert}
	server, err := hop.New(hop.Config{
		Identity: identity, Key: func(byte) *onion.PrivateKey { return key }, Now: time.Now, Links: links,
		Requests: map[byte]func(*hop.Circuit, []byte) ([]byte, error){cell.RequestAnnounce: tr.announce},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr.process = start(t, func(ctx context.Context) {
		var all sync.WaitGroup
		all.Go(func() { links.Run(ctx) })
		server.Serve(ctx, ln)
		all.Wait()
	})
	tr.Relay = path.Relay{ID: server.ID(), Addr: ln.Addr().(*net.TCPAddr).AddrPort(), Key: key.Public(), Weight: 1}
	return tr
}

func step() uint32 { return onion.Step(time.Now()) }

func (tr *tracker) announce(_ *hop.Circuit, b []byte) ([]byte, error) {
	r, err := announce.ParseRequest(b)
	if err != nil {
		return nil, err
	}
	if tr.slow != nil {
		tr.waiting.Add(1)
		<-tr.slow
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	now, ctx := tr.now(), context.Background()
	a := announce.Answer{Interval: time.Hour, StampBits: tr.bits}
	switch {
	case r.Outer != nil:
		if !announce.Check(r.Name, r.Outer.T, r.Outer.Stamp, tr.bits) {
			a.Status = announce.StampNeeded
		} else if r.Outer.Verify(r.Name, now) != nil || tr.store.Put(ctx, r.Name, r.Outer, now) != nil {
			a.Status = announce.Invalid
		} else {
			tr.took = append(tr.took, r)
		}
	case r.Withdraw != nil:
		if err := r.Withdraw.Verify(r.Name); err != nil {
			return nil, err
		}
		tr.store.Remove(ctx, r.Name, r.Withdraw.T)
		tr.withdrawals++
	}
	answer, counts, err := tr.store.Get(ctx, make([]byte, announce.AnswerHeader), r.Name, r.NumWant, now)
	a.Seeders, a.Leechers = uint32(counts.Seeders), uint32(counts.Leechers)
	a.PutHeader(answer)
	return answer, err
}

func (tr *tracker) counts() (took, withdrawn int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.took), tr.withdrawals
}

// held returns how many records tr has for the swarm of h now.
func (tr *tracker) held(h Hash, now time.Time) (n int) {
	for _, day := range announce.Days(h, now) {
		records, _, _ := tr.store.Get(context.Background(), nil, announce.Name(h, tr.ID, day), 50, now)
		n += len(records) / announce.OuterSize
	}
	return n
}

// sidecar is one user's.
type sidecar struct {
	*Net
	*process
	circuits *circuit.Client
}

// sidecar starts one. Gossip is quick.
func (w *world) sidecar(set func(*Config)) *sidecar {
	t := w.t
	t.Helper()
	links := &link.Pool{}
	chooser := path.New(path.Rules{Test: true, SameNet: true}, path.NewRand(), nil, nil)
	relays := func() (out []path.Relay) {
		for _, r := range w.relays {
			out = append(out, r.Relay)
		}
		return out
	}
	c := circuit.New(circuit.Config{Links: links, Chooser: chooser, Relays: relays, Step: step, Budget: window.NewBudget(1 << 20)})
	cfg := Config{
		State: t.TempDir(), Circuits: c, Chooser: chooser, Relays: relays,
		Relay: func(id onion.ID) (path.Relay, bool) {
			i := slices.IndexFunc(w.relays, func(r *meetingRelay) bool { return r.ID == id })
			if i < 0 {
				return path.Relay{}, false
			}
			return w.relays[i].Relay, true
		},
		Trackers: func() (out []path.Relay) {
			for _, tr := range w.trackers {
				out = append(out, tr.Relay)
			}
			return out
		},
		Budget: window.NewBudget(64 << 20), Now: time.Now,
	}
	if set != nil {
		set(&cfg)
	}
	n := New(cfg)
	n.pace = 10 * time.Millisecond
	s := &sidecar{Net: n, circuits: c}
	s.process = start(t, func(ctx context.Context) {
		life, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		all.Go(func() { links.Run(life) })
		n.Run(ctx)
		c.Close()
		cancel()
		all.Wait()
	})
	for { // until links are dialled and swarms joined
		_, err := links.Get(t.Context(), w.relays[0].ID, w.relays[0].Addr)
		n.mu.Lock()
		ready := err == nil && n.ctx != nil
		n.mu.Unlock()
		if ready {
			return s
		}
		runtime.Gosched()
	}
}

// someHash returns the infohash of a swarm whose day does not change soon: what
// a test counts is then there once.
func someHash() (h Hash) {
	for {
		rand.Read(h[:])
		now := time.Now()
		if len(announce.Days(h, now)) == 1 && len(announce.Days(h, now.Add(10*time.Minute))) == 1 {
			return h
		}
	}
}

// join joins h and announces until peers others are known.
func (s *sidecar) join(t testing.TB, h Hash, peers int) *member {
	t.Helper()
	joined, err := s.Join("client", h)
	if err != nil {
		t.Fatal(err)
	}
	m := joined.(*member)
	within(t, func() bool {
		a, err := m.Announce(soon(t), Announce{Event: Started, Left: 1, NumWant: -1})
		if err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		m.last = nil // the next announce asks again
		m.mu.Unlock()
		return len(a.Peers) >= peers
	})
	return m
}

// patience is how long a test waits for what must happen.
const patience = time.Minute

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// within waits until ok.
func within(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not happen within %v", patience)
		}
	}
}

// meet opens a stream from one member to the other.
func meet(t testing.TB, from, to *member) (a, b Conn) {
	t.Helper()
	a, err := from.Dial(soon(t), to.Self())
	if err != nil {
		t.Fatal(err)
	}
	k, b, err := to.Accept(soon(t))
	if err != nil || k != from.Self() {
		t.Fatalf("accepted another: %v", err)
	}
	return a, b
}

func (m *member) knows(k Key) bool { return len(m.records(k)) > 0 }

func (m *member) boundTo() (ids []onion.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, b := range m.bound {
		if b.circuit != nil && len(b.here) > 0 {
			ids = append(ids, id)
		}
	}
	return ids
}
