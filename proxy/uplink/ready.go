package uplink

import (
	"context"
	"errors"
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

// Why returns why the sidecar can carry no traffic; nil when it can.
func (u *Uplink) Why() *fault.Fault { return u.ready.why() }

// keepWarm keeps a link to a guard, and finds out whether circuits can be built.
func (u *Uplink) keepWarm(ctx context.Context) {
	var tries sync.WaitGroup
	defer tries.Wait()
	back := guardsBack{u: u, tried: make(map[onion.ID]retry)}
	var l *link.Link
	for {
		now := u.rewarm(ctx, l, &tries)
		if l = now.link; ctx.Err() != nil {
			return
		}
		u.judge(now.err)
		wait, lost := warmRetry, (<-chan struct{})(nil)
		if l != nil {
			wait, lost = warmEvery, l.Done()
			back.try(ctx, &tries)
		}
		select {
		case <-ctx.Done():
			return
		case <-lost:
		case <-u.Keeper.Changed():
		case <-u.trackers.news():
		case <-time.After(wait):
		}
	}
}

// rewarm is warm. When that takes long and the link before is over, the sidecar
// is not ready meanwhile.
func (u *Uplink) rewarm(ctx context.Context, before *link.Link, tries *sync.WaitGroup) warmth {
	var lost *fault.Fault
	grace := (<-chan time.Time)(nil)
	if before != nil && over(before) {
		if lost = fault.About(before.Err(), "the guard"); lost.Cause == fault.Silent {
			u.Chooser.GuardDown(time.Now(), before.Peer()) // the other one goes first from now on
		}
		grace = time.After(guardGrace)
	}
	found := make(chan warmth, 1)
	tries.Go(func() {
		l, err := u.warm(ctx)
		found <- warmth{l, err}
	})
	select {
	case now := <-found:
		return now
	case <-grace:
		u.judge(lost)
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
func (u *Uplink) judge(err error) {
	f, n := fault.Of(err), u.Tally()
	if f == nil {
		f = n.fault()
	}
	u.ready.set(f)
	u.journal.ready(f)
	u.journal.trackers(n)
}

// warm returns the link to the guard that circuits are built through, or why
// none can be built.
func (u *Uplink) warm(ctx context.Context) (*link.Link, error) {
	if err := u.Keeper.Ready(); err != nil {
		return nil, fault.About(err, u.lastAsked())
	}
	way, err := u.choose()
	if few, ok := errors.AsType[*path.NoRelaysError](err); ok {
		u.Keeper.Lack()
		return nil, fault.New(fault.NoRelays, few.What(), fault.Sentence(few.Do), err)
	}
	if err != nil {
		return nil, err
	}
	u.saveGuards()
	ctx, cancel := context.WithTimeout(ctx, 2*guardDial)
	defer cancel()
	l, err := u.links.Get(ctx, way[0].ID, way[0].Addr)
	if err != nil {
		u.Chooser.GuardDown(time.Now(), way[0].ID)
		return nil, fault.About(err, "the guard")
	}
	u.Chooser.GuardUp(way[0].ID)
	if l.ClockAhead().Abs() > circuit.ClockSlack && (l.ClockAhead()+u.Keeper.ClockError()).Abs() > circuit.ClockSlack {
		return l, fault.About(fault.ClockOff(l.ClockAhead(), nil), "the guard")
	}
	return l, nil
}

// meetings bounds the relays that are tried as one to meet at.
const meetings = 16

// choose returns the way to the guard, where there also is a way on to some relay
// where peers meet.
func (u *Uplink) choose() (way []path.Relay, err error) {
	own, relays := max(u.cfg.Hops, 1), u.Keeper.Relays()
	for _, last := range relays[:min(len(relays), meetings)] {
		if u.cfg.Hops == 0 { // circuits have no own relays, only a link to a guard
			break
		}
		if _, err = u.Chooser.Choose(time.Now(), relays, path.Key{}, own, last); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return u.Chooser.Choose(time.Now(), relays, path.Key{}, own, path.Relay{})
}

// saveGuards writes the guards if they changed. A disk that is full stops
// nobody: the guards are good until the sidecar ends, and are written as soon as
// there is room. Until then the status page warns.
func (u *Uplink) saveGuards() {
	err := u.Chooser.SaveGuards(u.guardsFile())
	u.mu.Lock()
	first := err != nil && u.unsaved == nil
	u.unsaved = err
	u.mu.Unlock()
	if first {
		u.cfg.Log.Warn("the guards are not saved", "err", err)
	}
}

// linkChanged is told of every link to a guard or an entry relay.
func (u *Uplink) linkChanged(id onion.ID, up bool, err error) {
	if up {
		u.cfg.Log.Debug("link up")
		err = nil
	}
	f := fault.Of(err)
	if f != nil && f.Cause == fault.Silent {
		u.Chooser.GuardDown(time.Now(), id)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if text := f.Text(); text != u.linkFault {
		u.linkFault = text
		if f != nil {
			u.cfg.Log.Debug("no link", "why", text)
		}
	}
}
