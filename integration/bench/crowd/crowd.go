// Package crowd is the many that a single relay or tracker has to do with: the
// owners of thousands of circuits, and the members of thousands of swarms.
// Not here: what they cost whom (the suites that use it).
package crowd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/window"
	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// Crowd is the service of a process that holds circuits (package child).
type Crowd struct {
	mu   sync.Mutex
	kept []*circuit.Circuit // guarded by mu; until the process ends
}

// perLink is how many circuits one link gets: relays take so many at once from
// a stranger, and then slow him down.
const perLink = 900

// client returns the owner of a link's worth of circuits, and what ends it.
func client(n *directory.Network, own int, relays func() []path.Relay) (*circuit.Client, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	pool := &link.Pool{Idle: time.Hour}
	ready := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		close(ready)
		pool.Run(ctx)
	})
	<-ready
	c := circuit.New(circuit.Config{
		Links: pool, Chooser: path.New(n.Rules(), path.NewRand(), nil, nil), Relays: relays, Own: own,
		Step:   func() uint32 { return onion.Step(time.Now()) },
		Budget: window.NewBudget(1 << 20), Hello: directory.Hello,
	})
	return c, func() {
		c.Close()
		cancel()
		wg.Wait()
	}
}

// relays reads the relays of a network, once all of wanted are among them.
func relays(ctx context.Context, n directory.Network, wanted ...onion.ID) (found []path.Relay, err error) {
	dir, err := os.MkdirTemp("", "shoal-bench-views-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	k, err := directory.OpenKeeper(dir, n, time.Now)
	if err != nil {
		return nil, err
	}
	c, stop := client(&n, 0, func() []path.Relay { return nil })
	defer stop()
	for {
		var last error
		for _, t := range n.Trackers {
			if _, err := k.Fetch(ctx, c, path.Relay{ID: t.Key, Addr: t.Addr}); err != nil {
				last = err
			}
		}
		found = found[:0]
		for _, id := range wanted {
			if r, ok := k.Relay(id); ok {
				found = append(found, r)
			}
		}
		if len(found) == len(wanted) {
			return found, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("crowd: the directory has %d of %d relays: %w", len(found), len(wanted), errors.Join(last, ctx.Err()))
		case <-time.After(retryEvery):
		}
	}
}

// retryEvery is the pause between attempts at what a young network can't do yet.
const retryEvery = 200 * time.Millisecond

// Build is an order for circuits.
type Build struct {
	Network string   // the network file
	Last    onion.ID // the relay where they end
	Via     onion.ID // the relay before it; zero: none
	Count   int
	Limit   time.Duration
}

// Built is what became of it.
type Built struct {
	Time  time.Duration // for all of them
	Links int
}

// Build builds circuits, some at the same time, and keeps them.
func (c *Crowd) Build(o Build, out *Built) error {
	ctx, cancel := context.WithTimeout(context.Background(), o.Limit)
	defer cancel()
	n, err := directory.LoadNetwork(o.Network)
	if err != nil {
		return err
	}
	wanted := []onion.ID{o.Last}
	if o.Via != (onion.ID{}) {
		wanted = append(wanted, o.Via)
	}
	found, err := relays(ctx, n, wanted...)
	if err != nil {
		return err
	}
	own, between := len(found)-1, found[1:]
	owner := func() (*circuit.Client, func()) { return client(&n, own, func() []path.Relay { return between }) }
	want := circuit.Want{Use: circuit.ForInbound, Last: found[0], Direct: own == 0}
	for { // until the relay before the last has heard of that, too
		one, stop := owner()
		_, err := one.Build(ctx, want)
		stop()
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryEvery):
		}
	}
	start := time.Now()
	for left := o.Count; left > 0; left -= perLink {
		one, _ := owner()
		out.Links++
		if err := c.build(ctx, one, want, min(left, perLink)); err != nil {
			return err
		}
	}
	out.Time = time.Since(start)
	return nil
}

// buildAtOnce is how many circuits of one link are built at the same time.
const buildAtOnce = 16

func (c *Crowd) build(ctx context.Context, from *circuit.Client, w circuit.Want, count int) error {
	return parallel(buildAtOnce, count, func(int) error {
		one, err := from.Build(ctx, w)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.kept = append(c.kept, one)
		c.mu.Unlock()
		return nil
	})
}

// Standing returns how many of the circuits that were built still stand.
func (c *Crowd) Standing(_ struct{}, n *int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.kept {
		select {
		case <-one.Done():
		default:
			*n++
		}
	}
	return nil
}

// parallel calls f for 0 to n-1, so many at the same time, until one fails.
func parallel(atOnce, n int, f func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range min(atOnce, n) {
		wg.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Members is an order for announces to one tracker, each in a swarm of its own.
type Members struct {
	Link   string     // the tracker's
	Hashes [][20]byte // the swarms
	Repeat int        // announces in each swarm over its one circuit
	Limit  time.Duration
}

// Announced is what became of it.
type Announced struct {
	Count   int           // announces that were answered
	Time    time.Duration // for all of them
	Records int           // in all answers
	Bytes   int           // of all answers
}

// announceAtOnce is how many swarms are announced at the same time.
const announceAtOnce = 64

// Announce announces in every swarm: the first time with the circuit, the
// others over it.
func (c *Crowd) Announce(o Members, out *Announced) error {
	ctx, cancel := context.WithTimeout(context.Background(), o.Limit)
	defer cancel()
	l, err := directory.ParseLink(o.Link)
	if err != nil {
		return err
	}
	n := directory.Network{Trackers: []directory.Tracker{l.Tracker}, Test: true}
	requests, err := makeRequests(l.Tracker.Key, o.Hashes)
	if err != nil {
		return err
	}
	want := circuit.Want{Use: circuit.ForTracker, Last: path.Relay{ID: l.Tracker.Key, Addr: l.Tracker.Addr}, Direct: true}
	var mu sync.Mutex
	heard := func(answer []byte) error {
		a, err := announce.ParseAnswer(answer)
		if err != nil {
			return err
		}
		if a.Status != announce.Done {
			return fmt.Errorf("crowd: the tracker's answer is %v", a.Status)
		}
		mu.Lock()
		defer mu.Unlock()
		out.Count++
		out.Records += len(a.Records)
		out.Bytes += len(answer)
		return nil
	}
	start := time.Now()
	for from := 0; from < len(requests); from += perLink {
		some := requests[from:min(from+perLink, len(requests))]
		one, stop := client(&n, 0, func() []path.Relay { return nil })
		err := parallel(announceAtOnce, len(some), func(i int) error {
			circuit, answer, err := one.Request(ctx, want, cell.RequestAnnounce, some[i], announce.MaxAnswer)
			if err != nil {
				return err
			}
			defer circuit.Close()
			for k := 1; ; k++ {
				if err := heard(answer); err != nil || k == o.Repeat {
					return err
				}
				if answer, err = circuit.Request(ctx, cell.RequestAnnounce, some[i], announce.MaxAnswer); err != nil {
					return err
				}
			}
		})
		stop()
		if err != nil {
			return err
		}
	}
	out.Time = time.Since(start)
	return nil
}

// makeRequests seals a record for each swarm: that is the members' work, and
// not to be measured with the tracker's.
func makeRequests(tracker [32]byte, hashes [][20]byte) ([][]byte, error) {
	dir, err := os.MkdirTemp("", "shoal-bench-secret-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	now := time.Now()
	secret, err := announce.LoadSecret(dir, "bench", now)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(hashes))
	for i, h := range hashes {
		member, day := secret.Member(h), announce.Days(h, now)[0]
		var meeting onion.ID
		rand.Read(meeting[:])
		r := announce.Record{Meetings: []announce.Meeting{member.Meeting(meeting, day)}, Sequence: 1, Expiry: now.Add(time.Hour).Unix()}
		outer, err := announce.Seal(member, tracker, day, r, 0)
		if err != nil {
			return nil, err
		}
		q := announce.Request{Name: announce.Name(h, tracker, day), Outer: &outer, NumWant: announce.MaxRecords}
		out[i] = q.Append(nil)
	}
	return out, nil
}
