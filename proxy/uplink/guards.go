package uplink

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
)

// guardsBack dials guards again that could not be reached, so that swarms that
// are at home with them return.
type guardsBack struct {
	u *Uplink

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
	guards := b.u.Chooser.GuardStatus()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range guards[:min(len(guards), path.Primary)] {
		r, known := b.tried[g.ID]
		relay, listed := b.u.Keeper.Relay(g.ID)
		switch {
		case !g.Down:
			if r.told {
				b.u.journal.guardBack()
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
	_, err := b.u.links.Get(ctx, g.ID, g.Addr)
	if err == nil {
		b.u.Chooser.GuardUp(g.ID)
		return
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	b.u.Chooser.GuardDown(time.Now(), g.ID)
	b.mu.Lock()
	defer b.mu.Unlock()
	// Not the first time: that one began before the network was back.
	if r := b.tried[g.ID]; r.wait > guardRetry && !r.told && b.u.Why() == nil {
		b.u.journal.guardLost(fault.About(err, "it"))
		r.told = true
		b.tried[g.ID] = r
	}
}
