package proxy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
)

const (
	warmEvery = 2 * time.Second
	warmRetry = 250 * time.Millisecond

	// guardGrace is how long a lost link to a guard may take to be replaced
	// before the sidecar is not ready: a guard that restarts is no outage.
	guardGrace = time.Second

	guardDial      = 5 * time.Second // for a link to a guard
	guardRetry     = 5 * time.Second // between attempts to reach one that is lost, then doubled
	guardRetryMost = 10 * time.Minute

	entryPatience = 8 // some seconds
)

// readiness is whether the sidecar can carry traffic, and why not. The zero
// value says that it has just been started.
type readiness struct {
	mu    sync.Mutex
	ready bool         // guarded by mu
	fault *fault.Fault // guarded by mu: nil when ready, or before anything was tried
}

// why returns why the sidecar is not ready; nil when it is.
func (r *readiness) why() *fault.Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ready && r.fault == nil {
		return fault.New(fault.Starting, "Shoal has just been started", "", nil)
	}
	return r.fault
}

func (r *readiness) set(f *fault.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready, r.fault = f == nil, f
}

// warmth is what came of keeping a guard warm.
type warmth struct {
	link *link.Link
	err  error
}

// keepWarm keeps a link to a guard, and finds out whether circuits can be built.
func (p *Sidecar) keepWarm(ctx context.Context) {
	var tries sync.WaitGroup
	defer tries.Wait()
	back := guardsBack{p: p, tried: make(map[onion.ID]retry)}
	var l *link.Link
	for {
		now := p.rewarm(ctx, l, &tries)
		if l = now.link; ctx.Err() != nil {
			return
		}
		p.judge(now.err)
		wait, lost := warmRetry, (<-chan struct{})(nil)
		if l != nil {
			wait, lost = warmEvery, l.Done()
			back.try(ctx, &tries)
		}
		select {
		case <-ctx.Done():
			return
		case <-lost:
		case <-p.keeper.Changed():
		case <-p.trackers.news():
		case <-time.After(wait):
		}
	}
}

// rewarm is warm. When that takes long and the link before is over, the sidecar
// is not ready meanwhile.
func (p *Sidecar) rewarm(ctx context.Context, before *link.Link, tries *sync.WaitGroup) warmth {
	var lost *fault.Fault
	grace := (<-chan time.Time)(nil)
	if before != nil && over(before) {
		if lost = fault.About(before.Err(), "the guard"); lost.Cause == fault.Silent {
			p.chooser.GuardDown(time.Now(), before.Peer()) // the other one goes first from now on
		}
		grace = time.After(guardGrace)
	}
	found := make(chan warmth, 1)
	tries.Go(func() {
		l, err := p.warm(ctx)
		found <- warmth{l, err}
	})
	select {
	case now := <-found:
		return now
	case <-grace:
		p.judge(lost)
		return <-found
	}
}

func over(l *link.Link) bool {
	select {
	case <-l.Done():
		return true
	default:
		return false
	}
}

// judge makes err, or nil, what the sidecar is known to be.
func (p *Sidecar) judge(err error) {
	f, n := fault.Of(err), p.tally()
	if f == nil {
		f = n.fault()
	}
	p.ready.set(f)
	p.journal.ready(f)
	p.journal.trackers(n)
}

// warm returns the link to the guard that circuits are built through, or why
// none can be built.
func (p *Sidecar) warm(ctx context.Context) (*link.Link, error) {
	if err := p.keeper.Ready(); err != nil {
		return nil, fault.About(err, p.lastAsked())
	}
	own := max(p.cfg.Hops, 1)
	way, err := p.chooser.Choose(time.Now(), p.keeper.Relays(), path.Key{}, own, path.Relay{})
	if few, ok := errors.AsType[*path.NoRelaysError](err); ok {
		p.keeper.Lack()
		return nil, fault.New(fault.NoRelays, few.What(), fault.Sentence(few.Do), err)
	}
	if err != nil {
		return nil, err
	}
	p.saveGuards()
	ctx, cancel := context.WithTimeout(ctx, 2*guardDial)
	defer cancel()
	l, err := p.links.Get(ctx, way[0].ID, way[0].Addr)
	if err != nil {
		p.chooser.GuardDown(time.Now(), way[0].ID)
		return nil, fault.About(err, "the guard")
	}
	p.chooser.GuardUp(way[0].ID)
	if l.ClockAhead().Abs() > circuit.ClockSlack && (l.ClockAhead()+p.keeper.ClockError()).Abs() > circuit.ClockSlack {
		return l, fault.About(fault.ClockOff(l.ClockAhead(), nil), "the guard")
	}
	return l, nil
}

// linkChanged is told of every link to a guard or an entry relay.
func (p *Sidecar) linkChanged(id onion.ID, up bool, err error) {
	if up {
		p.cfg.Log.Debug("link up")
		err = nil
	}
	f := fault.Of(err)
	if f != nil && f.Cause == fault.Silent {
		p.chooser.GuardDown(time.Now(), id)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if text := f.Text(); text != p.linkFault {
		p.linkFault = text
		if f != nil {
			p.cfg.Log.Debug("no link", "why", text)
		}
	}
}

// guardsBack dials guards again that could not be reached, so that swarms that
// are at home with them return.
type guardsBack struct {
	p *Sidecar

	mu    sync.Mutex
	tried map[onion.ID]retry // guarded by mu
}

// retry is a guard that could not be reached.
type retry struct {
	at   time.Time     // of the next attempt
	wait time.Duration // after that one
	told bool          // the log says that it is lost
}

// try dials what is due. The link to another guard stands.
func (b *guardsBack) try(ctx context.Context, tries *sync.WaitGroup) {
	now := time.Now()
	guards := b.p.chooser.GuardStatus()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range guards[:min(len(guards), path.Primary)] {
		r, known := b.tried[g.ID]
		relay, listed := b.p.keeper.Relay(g.ID)
		switch {
		case !g.Down:
			if r.told {
				b.p.journal.guardBack()
			}
			delete(b.tried, g.ID)
		case !known || listed && !now.Before(r.at):
			r.wait = min(max(2*r.wait, guardRetry), guardRetryMost)
			r.at = now.Add(r.wait)
			b.tried[g.ID] = r
			if listed {
				tries.Go(func() { b.dial(ctx, relay) })
			}
		}
	}
}

func (b *guardsBack) dial(ctx context.Context, g path.Relay) {
	ctx, cancel := context.WithTimeout(ctx, 2*guardDial)
	defer cancel()
	_, err := b.p.links.Get(ctx, g.ID, g.Addr)
	if err == nil {
		b.p.chooser.GuardUp(g.ID)
		return
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	b.p.chooser.GuardDown(time.Now(), g.ID)
	b.mu.Lock()
	defer b.mu.Unlock()
	// Not the first time: that one began before the network was back.
	if r := b.tried[g.ID]; r.wait > guardRetry && !r.told && b.p.ready.why() == nil {
		b.p.journal.guardLost(fault.About(err, "it"))
		r.told = true
		b.tried[g.ID] = r
	}
}

// lastAsked returns what the relay is that was last asked for lists of relays.
func (p *Sidecar) lastAsked() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// nextSource returns whom to ask for views, but for those asked: a guard, or
// before there is any, one entry relay of the network and only if that fails
// another.
func (p *Sidecar) nextSource(asked []onion.ID) (path.Relay, bool) {
	r, what, ok := p.source(asked)
	if ok {
		p.mu.Lock()
		p.asked = what
		p.mu.Unlock()
	}
	return r, ok
}

func (p *Sidecar) source(asked []onion.ID) (r path.Relay, what string, ok bool) {
	guards := p.chooser.GuardStatus()
	for _, g := range guards {
		if r, ok := p.keeper.Relay(g.ID); ok && !slices.Contains(asked, g.ID) && len(asked) < path.Primary {
			return r, "the guard", true
		}
	}
	if p.keeper.Merged().Ready() == nil && len(asked) > 0 {
		return r, "", false
	}
	// Each entry relay that is dialled learns this computer's address: one that
	// does not answer may only be slow to start.
	if len(asked) > 0 && p.patience > 0 {
		p.patience--
		return r, "", false
	}
	var entries []path.Relay
	for _, e := range p.cfg.Network.Entries {
		entries = append(entries, path.Relay{ID: e.ID, Addr: e.Addr, Weight: 1})
	}
	if r, err := p.chooser.First(entries, asked...); err == nil {
		if slices.ContainsFunc(guards, func(g path.GuardStatus) bool { return g.ID == r.ID }) {
			return r, "the guard", true
		}
		return r, "the entry relay", true
	}
	if len(entries) > 0 || !p.cfg.BootstrapDirect {
		return r, "", false
	}
	for _, t := range p.cfg.Network.Trackers {
		if !slices.Contains(asked, onion.ID(t.Key)) {
			return path.Relay{ID: onion.ID(t.Key), Addr: t.Addr}, "the tracker", true
		}
	}
	return r, "", false
}
