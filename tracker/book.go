package tracker

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// book is what this tracker knows of relays, and the views that it signs of it.
// Its newest view, on disk, is all its state.
type book struct {
	t *Tracker

	mu      sync.Mutex
	relays  map[onion.ID]*known // guarded by mu
	current *directory.View     // guarded by mu: the newest signed
	changed bool                // guarded by mu: since then, by much
	wake    chan struct{}       // cap 1: a relay is to be tried, or a view made
}

// known is one relay.
type known struct {
	d         *directory.Descriptor
	first     time.Time
	weight    uint64
	weighed   time.Time
	reachable bool
	fails     int       // tries in a row
	tried     time.Time // zero: not yet
	trying    bool
}

const (
	retryEvery   = 20 * time.Minute // a relay that answered
	retryFailed  = time.Minute      // one that did not
	testRetry    = 10 * time.Second // either, in a test network
	dropAfter    = 48 * time.Hour   // one that says nothing any more
	tryAtOnce    = 16               // relays tried at the same time
	soonest      = 10 * time.Second // between views made early
	earlyPercent = 5                // of the relays must have changed for one
)

func openBook(t *Tracker) (*book, error) {
	b := &book{t: t, relays: make(map[onion.ID]*known), wake: make(chan struct{}, 1)}
	raw, err := os.ReadFile(t.path("view"))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	v, err := directory.ParseView(raw)
	if err == nil {
		err = v.Verify([32]byte(t.server.ID()), time.Unix(v.Time, 0), nil)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: remove it, and relays make themselves known again", t.path("view"), err)
	}
	for _, e := range v.Entries {
		b.relays[e.Descriptor.ID] = &known{d: e.Descriptor, first: time.Unix(e.FirstSeen, 0), weight: e.Weight, weighed: time.Unix(v.Time, 0), reachable: e.Reachable}
	}
	b.current = v
	return b, nil
}

func (b *book) view() *directory.View {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current
}

func (b *book) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take notes a descriptor that a relay published and says how it stands.
func (b *book) take(d *directory.Descriptor) directory.Standing {
	now := time.Now()
	if d.Verify() != nil || d.CheckTime(now) != nil || d.CheckAddrs(b.t.cfg.Network.Test) != nil || d.ID == b.t.server.ID() {
		return directory.Rejected
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.relays[d.ID]
	if k == nil {
		if len(b.relays) >= directory.MaxRelays {
			return directory.Rejected
		}
		k = &known{first: now}
		b.relays[d.ID] = k
	}
	if k.d != nil && d.Published < k.d.Published {
		return directory.Rejected
	}
	news := k.d == nil || !slices.Equal(k.d.Addrs, d.Addrs) || !slices.Equal(k.d.Keys, d.Keys)
	k.d = d
	if news {
		k.tried = time.Time{}
		b.poke()
		return directory.Untested
	}
	switch {
	case k.tried.IsZero():
		return directory.Untested
	case k.reachable:
		return directory.Reachable
	}
	return directory.Unreachable
}

// run tries relays and signs views until ctx ends.
func (b *book) run(ctx context.Context) {
	every := directory.ViewEvery
	if e := b.t.cfg.Network.ViewEvery; b.t.cfg.Network.Test && e > 0 {
		every = e
	}
	quiet := min(soonest, every)
	slots := make(chan struct{}, tryAtOnce)
	var tries sync.WaitGroup
	defer tries.Wait()
	var last time.Time
	for {
		for _, k := range b.due() {
			tries.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				b.try(ctx, k)
			})
		}
		age := time.Since(last)
		if age >= every || age >= quiet && b.muchChanged() {
			if err := b.sign(); err != nil {
				b.t.cfg.Log.Error("view", "err", err)
			} else {
				last = time.Now()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		case <-time.After(min(quiet, time.Second)):
		}
	}
}

func (b *book) due() (out []*known) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.relays {
		again := retryFailed
		if k.reachable && k.fails == 0 {
			again = retryEvery
		}
		if b.t.cfg.Network.Test {
			again = min(again, testRetry)
		}
		if !k.trying && time.Since(k.tried) > again {
			k.trying = true
			out = append(out, k)
		}
	}
	return out
}

func (b *book) try(ctx context.Context, k *known) {
	b.mu.Lock()
	d := k.d
	b.mu.Unlock()
	rate, err := b.t.try(ctx, d)
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	k.trying = false
	if ctx.Err() != nil {
		return
	}
	was := k.reachable
	first := k.tried.IsZero()
	defer func() {
		if first || was != k.reachable {
			b.changed = true
			b.poke()
		}
	}()
	k.tried, k.reachable = now, err == nil || k.reachable && k.fails == 0 // one failure may be ours
	if err != nil {
		k.fails++
		return
	}
	k.fails = 0
	rate = min(rate, d.Rate)
	if k.weight == 0 {
		k.weight = min(rate, directory.FirstWeight)
	} else {
		k.weight = directory.Grow(k.weight, rate, now.Sub(k.weighed))
	}
	k.weighed = now
}

// muchChanged reports whether so much changed that a view should not wait.
func (b *book) muchChanged() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current == nil || !b.changed {
		return b.changed || b.current == nil && len(b.relays) > 0
	}
	listed := make(map[onion.ID]bool)
	for _, e := range b.current.Entries {
		listed[e.Descriptor.ID] = e.Reachable
	}
	n := 0
	for id, k := range b.relays {
		if was, ok := listed[id]; !ok || was != k.reachable {
			n++
		}
	}
	return 100*n >= earlyPercent*max(len(listed), 1)
}

// self returns the tracker's own descriptor, of now.
func (b *book) self() (*directory.Descriptor, error) {
	t := b.t
	d := &directory.Descriptor{
		ID: t.server.ID(), Published: time.Now().Unix(), Addrs: []netip.AddrPort{t.addr},
		Keys: []onion.PublicKey{t.keys.Current()}, Program: t.cfg.Program,
	}
	return d, d.Sign(t.keys.Identity)
}

// sign makes the next view. The key that signs it is the pinned one, certified
// by itself: an operator who keeps that one offline certifies another.
func (b *book) sign() error {
	t := b.t
	if _, err := t.keys.Rotate(time.Now()); err != nil {
		return err
	}
	self, err := b.self()
	if err != nil {
		return err
	}
	now := time.Now()
	b.mu.Lock()
	prev := b.current
	v := &directory.View{
		Certificate: directory.Certify(t.keys.Identity, [32]byte(t.keys.Identity.Public().(ed25519.PublicKey)), now),
		Number:      directory.NextNumber(prev, now),
		Time:        now.Unix(),
		ValidUntil:  now.Add(directory.ValidFor).Unix(),
		UsableUntil: now.Add(directory.UsableFor).Unix(),
		Self:        self,
	}
	if prev != nil {
		v.Previous = prev.Hash()
	}
	for id, k := range b.relays {
		if now.Sub(time.Unix(k.d.Published, 0)) > dropAfter {
			delete(b.relays, id)
			continue
		}
		if k.tried.IsZero() && prev == nil {
			continue
		}
		e := directory.Entry{FirstSeen: k.first.Unix(), Reachable: k.reachable, Descriptor: k.d}
		if k.reachable {
			e.Weight = k.weight
		}
		v.Entries = append(v.Entries, e)
	}
	b.changed = false
	b.mu.Unlock()
	slices.SortFunc(v.Entries, func(x, y directory.Entry) int { return bytes.Compare(x.Descriptor.ID[:], y.Descriptor.ID[:]) })
	if err := v.Sign(t.keys.Identity); err != nil {
		return err
	}
	if err := replace(t.path("view"), v.Raw()); err != nil {
		return err
	}
	b.mu.Lock()
	b.current = v
	b.mu.Unlock()
	return nil
}

// replace writes a file so that a crash leaves the old or the new. It is on the
// disk when replace returns: a view that was shown must never be forgotten, or
// its number would be used twice and the tracker believed no more.
func replace(file string, b []byte) error {
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
