package tracker

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// book is what this tracker knows of relays, and the views that it signs of it.
// Its newest view, on disk, is all its state.
type book struct {
	t   *Tracker
	now func() time.Time

	reached int // owned by run: relays, as last logged

	mu      sync.Mutex
	relays  map[onion.ID]*known // guarded by mu
	current *directory.View     // guarded by mu: the newest signed
	answer  []byte              // guarded by mu: current, as who asks for views gets it; not changed
	signed  bool                // guarded by mu: current is of this run
	changed bool                // guarded by mu: since current, maybe by much
	wake    chan struct{}       // cap 1: a relay is to be tried, or a view made
}

// known is one relay.
type known struct {
	d *directory.Descriptor // the newest published

	// listed is what views say of the relay: it has been reached there. Nil
	// until it was: a name and an address that anybody may make up is listed
	// nowhere, since whoever reads a view may dial what is in it.
	listed *directory.Descriptor
	first  time.Time // when it was first reached; before that, when it was first heard of

	weight    uint64
	base      uint64    // the weight from which it may double until a day has passed since baseAt
	baseAt    time.Time // zero: it has no weight yet
	best      uint64    // the greatest weight since baseAt
	reachable bool
	untested  bool // d says what no try has shown yet
	fails     int  // tries in a row
	tried     time.Time
	next      time.Time // of the next try
	trying    bool
}

const (
	retryEvery   = 20 * time.Minute // a relay that answered
	retryFailed  = time.Minute      // one that did not, doubled each time
	maxDoubled   = 5                // times
	testRetry    = 10 * time.Second // either, in a test network
	retrySoonest = 10 * time.Second // after it published another address or key
	forgetAfter  = time.Hour        // one that was never reached
	dropAfter    = 48 * time.Hour   // one that says nothing any more
	tryAtOnce    = 64               // relays tried at the same time
	soonest      = 10 * time.Second // between views made early
	earlyPercent = 5                // of the relays must have changed for one
	lookForRoom  = 64               // relays looked at for one to give way
)

var ownViewFile = &state.Kind{
	Name: "own-view", Version: 1, Limit: directory.MaxView, Policy: state.Cache, What: "the tracker's last view",
	Lost: "relays make themselves known again within the hour; until then the view lists none, and how long each was seen is forgotten",
}

func openBook(t *Tracker) (*book, error) {
	b := &book{t: t, now: time.Now, relays: make(map[onion.ID]*known), wake: make(chan struct{}, 1)}
	_, err := ownViewFile.Load(t.path("view"), b.restore)
	return b, err
}

// restore takes up what the tracker's last view says of its relays.
func (b *book) restore(raw []byte) error {
	v, err := directory.ParseView(raw)
	if err == nil {
		err = v.Verify([32]byte(b.t.server.ID()), time.Unix(v.Time, 0), nil)
	}
	if err != nil {
		return err
	}
	made := time.Unix(v.Time, 0)
	for _, e := range v.Entries {
		if e.Descriptor.CheckAddrs(&b.t.cfg.Network) != nil {
			continue // the network was of another kind then
		}
		k := &known{d: e.Descriptor, listed: e.Descriptor, first: time.Unix(e.FirstSeen, 0), reachable: e.Reachable, untested: !e.Reachable}
		if e.Weight > 0 {
			k.weight, k.base, k.best, k.baseAt = e.Weight, e.Weight, e.Weight, made
		}
		b.relays[e.Descriptor.ID] = k
	}
	b.current, b.answer = v, directory.AppendView(nil, raw)
	return nil
}

// view returns the newest view, and the answer that holds it; nil when there is none yet.
func (b *book) view() (*directory.View, []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current, b.answer
}

func (b *book) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take notes a descriptor that a relay published and says how it stands.
func (b *book) take(d *directory.Descriptor) directory.Standing {
	now := b.now()
	switch {
	case d.Verify() != nil, d.ID == b.t.server.ID():
		return directory.Invalid
	case d.CheckAddrs(&b.t.cfg.Network) != nil:
		return directory.WrongAddress
	case d.CheckTime(now) != nil:
		return directory.WrongTime
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.relays[d.ID]
	if k == nil {
		if len(b.relays) >= directory.MaxRelays && !b.makeRoom() {
			return directory.Full
		}
		k = &known{first: now, untested: true}
		b.relays[d.ID] = k
	} else if d.Published < k.d.Published {
		return directory.Outdated
	}
	if k.d == nil || !same(k.d, d) {
		k.untested = true
		k.next = now
		if soonest := k.tried.Add(retrySoonest); now.Before(soonest) { // nobody has us dial about for him
			k.next = soonest
		}
		b.poke()
	}
	k.d = d
	if k.listed != nil && same(k.listed, d) {
		k.listed = d
	}
	switch {
	case k.untested:
		return directory.Untested
	case k.reachable:
		return directory.Reachable
	}
	return directory.Unreachable
}

// same reports whether two descriptors of a relay differ in nothing that a try tells.
func same(x, y *directory.Descriptor) bool {
	return slices.Equal(x.Addrs, y.Addrs) && slices.Equal(x.Keys, y.Keys) && x.Suite == y.Suite
}

// makeRoom forgets a relay that was tried and never reached. Whoever makes up
// many must not keep real ones out. Caller holds mu.
func (b *book) makeRoom() bool {
	looked := 0
	for id, k := range b.relays { // in random order
		if k.listed == nil && k.fails > 0 && !k.trying {
			delete(b.relays, id)
			return true
		}
		if looked++; looked == lookForRoom {
			break
		}
	}
	return false
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
	var last, failed time.Time
	for {
		for _, id := range b.due(cap(slots) - len(slots)) {
			slots <- struct{}{}
			tries.Go(func() {
				b.try(ctx, id)
				<-slots
				b.poke()
			})
		}
		age := time.Since(last)
		if (age >= every || age >= quiet && b.muchChanged()) && time.Since(failed) >= quiet {
			if err := b.sign(); err != nil {
				b.t.often.Note("view", func(uint64) {
					b.t.cfg.Log.Error("no list of relays could be signed; relays and sidecars do without this tracker after some hours", "err", err)
				})
				failed = time.Now()
			} else {
				last = time.Now()
				b.t.relink() // its entry relays are in the view now
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

// due returns at most n relays that are to be tried now, and takes them for it.
func (b *book) due(n int) (out []onion.ID) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, k := range b.relays { // in random order: none waits behind all the others
		if len(out) == n {
			break
		}
		if !k.trying && !now.Before(k.next) {
			k.trying = true
			out = append(out, id)
		}
	}
	return out
}

func (b *book) try(ctx context.Context, id onion.ID) {
	b.mu.Lock()
	k := b.relays[id] // not removed while it is being tried
	d := k.d
	b.mu.Unlock()
	rate, err := b.t.try(ctx, d)
	b.mu.Lock()
	defer b.mu.Unlock()
	k.trying = false
	if ctx.Err() != nil {
		return
	}
	b.t.cfg.Log.Debug("a relay was tried", "relay", id, "rate", rate, "err", err)
	b.tried(k, d, rate, err == nil)
	if k.listed == nil && b.now().Sub(k.first) > forgetAfter {
		delete(b.relays, id)
	}
}

// tried notes how a try of k at d ended. Caller holds mu.
func (b *book) tried(k *known, d *directory.Descriptor, rate uint64, ok bool) {
	now := b.now()
	was := k.reachable
	again := retryEvery
	switch {
	case ok:
		if k.listed == nil {
			k.first = now
		}
		k.listed, k.reachable, k.fails = d, true, 0
		if same(d, k.d) {
			k.listed = k.d
		}
		k.measured(min(rate, d.Rate), now)
	default:
		k.reachable = k.reachable && k.fails == 0 // one failure may be ours
		again = retryFailed << min(k.fails, maxDoubled)
		k.fails++
	}
	if b.t.cfg.Network.Test {
		again = min(again, testRetry)
	}
	k.tried, k.next = now, now.Add(again)
	switch {
	case !same(d, k.d): // it published anew meanwhile
		k.next = now.Add(min(again, retrySoonest))
	case ok, !k.reachable:
		k.untested = false
	}
	if k.reachable != was {
		b.changed = true
	}
}

// measured takes what a try showed of k's speed, bytes per second.
func (k *known) measured(rate uint64, now time.Time) {
	if k.baseAt.IsZero() {
		k.base, k.baseAt = min(rate, directory.FirstWeight), now
	}
	k.weight = directory.Grow(k.base, rate, now.Sub(k.baseAt))
	k.best = max(k.best, k.weight)
	if now.Sub(k.baseAt) >= 24*time.Hour {
		k.base, k.baseAt, k.best = k.best, now, k.weight
	}
}

// muchChanged reports whether so much changed that a view should not wait.
func (b *book) muchChanged() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current == nil || !b.changed {
		return b.changed
	}
	listed := make(map[onion.ID]bool)
	for _, e := range b.current.Entries {
		listed[e.Descriptor.ID] = e.Reachable
	}
	n := 0
	for id, k := range b.relays {
		if k.reachable != listed[id] {
			n++
		}
	}
	return 100*n >= earlyPercent*max(len(listed), 1)
}

// self returns the tracker's own descriptor, of now.
func (b *book) self() (*directory.Descriptor, error) {
	t := b.t
	d := &directory.Descriptor{
		ID: t.server.ID(), Published: b.now().Unix(), Addrs: []netip.AddrPort{t.found.Addr},
		Keys: []onion.PublicKey{t.keys.Current()}, Program: t.cfg.Program,
	}
	return d, d.Sign(t.keys.Identity)
}

// report logs how many relays are reached, when that has changed. Called by run alone.
func (b *book) report(v *directory.View) {
	reached := 0
	for _, e := range v.Entries {
		if e.Reachable {
			reached++
		}
	}
	if reached != b.reached {
		b.t.cfg.Log.Info("relays reached", "now", reached, "before", b.reached, "known", len(v.Entries))
		b.reached = reached
	}
}

// sign makes the next view. The key that signs it is the pinned one, certified
// by itself: an operator who keeps that one offline certifies another.
func (b *book) sign() error {
	t := b.t
	if _, err := t.keys.Rotate(b.now()); err != nil {
		return err
	}
	self, err := b.self()
	if err != nil {
		return err
	}
	now := b.now()
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
	if !b.signed { // prev may be an old copy of the state folder: no number is used twice for that
		v.Number = max(v.Number, directory.NextNumber(nil, now))
	}
	if prev != nil {
		v.Previous = prev.Hash()
	}
	for id, k := range b.relays {
		silent := now.Sub(time.Unix(k.d.Published, 0))
		if silent > dropAfter && !k.trying {
			delete(b.relays, id)
			continue
		}
		if k.listed == nil {
			continue
		}
		e := directory.Entry{FirstSeen: k.first.Unix(), Descriptor: k.listed}
		if k.reachable && silent <= directory.DescriptorFor {
			e.Reachable, e.Weight = true, k.weight
		}
		v.Entries = append(v.Entries, e)
	}
	b.changed = false
	b.mu.Unlock()
	b.report(v)
	slices.SortFunc(v.Entries, func(x, y directory.Entry) int { return bytes.Compare(x.Descriptor.ID[:], y.Descriptor.ID[:]) })
	if err := v.Sign(t.keys.Identity); err != nil {
		return err
	}
	// On the disk before anyone sees it: a view that was shown must never be
	// forgotten, or its number is used twice and the tracker believed no more.
	if err := ownViewFile.Save(t.path("view"), v.Raw()); err != nil {
		return err
	}
	answer := directory.AppendView(nil, v.Raw())
	b.mu.Lock()
	b.current, b.answer, b.signed = v, answer, true
	b.mu.Unlock()
	return nil
}
