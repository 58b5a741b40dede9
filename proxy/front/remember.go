package front

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/proxy/memory"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

const (
	// confirmSlack is how much later than it was told to a client may announce.
	confirmSlack = time.Minute

	// reconnect is how long a client may take to open its door again
	// after a restart of the sidecar. Libtorrent takes five seconds, and seven
	// more when the sidecar was not there by then.
	reconnect = 15 * time.Second

	restoreAtOnce = 32 // swarms that are joined at the same time
)

// earlier makes the clients of an earlier run known, in no order. It is called
// before any of them can ask.
func (f *Front) earlier(back, gone []memory.Client) (all []restored) {
	began := time.Now()
	for _, e := range back {
		c := f.Hold(e.Name)
		c.back(e, began.Add(reconnect))
		for _, s := range e.Swarms {
			c.hold()
			all = append(all, restored{c, s, c.unheard(swarm.Hash(s.Hash)), began.Add(s.Again + confirmSlack)})
		}
		c.Release()
	}
	for _, e := range gone {
		c := f.Hold(e.Name)
		for _, s := range e.Swarms {
			c.hold()
			all = append(all, restored{c, s, c.unheard(swarm.Hash(s.Hash)), began})
		}
		c.Release()
	}
	if len(all) > 0 {
		f.cfg.Log.Info("clients of the earlier run", "back", len(back), "gone", len(gone), "swarms", len(all))
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// restore takes clients back into their swarms, and out of them those that are
// gone or do not announce again in time.
func (f *Front) restore(ctx context.Context, all []restored) {
	for len(all) > 0 && ctx.Err() == nil && f.cfg.NotReady() != nil {
		pause(ctx, 50*time.Millisecond)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, restoreAtOnce)
	for _, r := range all {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			r.join(ctx)
			<-room
			r.confirm(ctx)
			r.c.Release()
		})
	}
}

// restored is a client in a swarm that it was in before the sidecar was
// started again.
type restored struct {
	c     *Client
	swarm memory.Swarm
	heard chan struct{} // closed when the client asks for the swarm, or stops it
	until time.Time     // when that must have happened
}

// back makes c what was remembered of it.
func (c *Client) back(e memory.Client, returns time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addr = e.Addr
	if e.UDP.IsValid() {
		c.returns = returns
	}
	c.f.cfg.Memory.Met(e.Name, e.Addr)
	c.f.cfg.Memory.Heard(e.Name, e.UDP, e.Owner)
	for _, s := range e.Swarms {
		h := swarm.Hash(s.Hash)
		if s.Port != 0 {
			c.listens[h] = s.Port
		}
		c.f.cfg.Memory.Join(e.Name, h, func(now *memory.Swarm) { *now = s })
	}
}

// unheard returns a channel that is closed when the client asks for h, or stops it.
func (c *Client) unheard(h swarm.Hash) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	heard := make(chan struct{})
	c.silent[h] = heard
	return heard
}

// returning reports whether the client may still be about to open its UDP
// association again.
func (c *Client) returning() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.returns)
}

// awaitReturn waits until the client has its door again, if there
// was a restart of the sidecar: a stream that comes before finds no way in.
func (c *Client) awaitReturn(ctx context.Context) {
	c.mu.Lock()
	ctx, cancel := context.WithDeadline(ctx, c.returns)
	c.mu.Unlock()
	defer cancel()
	c.f.cfg.Await(ctx, c.name)
}

// confirmed notes that the client itself asked for h, or is out of it, and
// reports whether that was not known.
func (c *Client) confirmed(h swarm.Hash) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	heard := c.silent[h]
	if heard != nil {
		close(heard)
		delete(c.silent, h)
	}
	return heard != nil
}

// join joins the swarm, and publishes what the client said before. The client is
// told of the peers that the trackers name as of those that its own announce
// came too early for. A client that is gone is not published.
func (r restored) join(ctx context.Context) {
	h := swarm.Hash(r.swarm.Hash)
	for ctx.Err() == nil && !r.wasHeard() {
		s, err := r.c.enter(h)
		if err == nil && time.Now().Before(r.until) {
			_, err = s.Announce(ctx, swarm.Announce{Left: r.swarm.Left.Announce()})
		}
		if s != nil && r.wasHeard() && !r.c.f.cfg.Memory.Has(r.c.name, h) {
			s.Leave() // the client has stopped the torrent meanwhile
		}
		if err == nil {
			return
		}
		pause(ctx, time.Second)
	}
}

func (r restored) wasHeard() bool {
	select {
	case <-r.heard:
		return true
	default:
		return false
	}
}

// confirm waits until the client has announced itself. One that does not in
// time is taken out of the swarm, where the trackers may still have the record
// that the earlier run published.
func (r restored) confirm(ctx context.Context) {
	late := time.NewTimer(time.Until(r.until))
	defer late.Stop()
	select {
	case <-ctx.Done():
	case <-r.heard:
	case <-late.C:
		h := swarm.Hash(r.swarm.Hash)
		if r.c.confirmed(h) {
			r.c.f.cfg.Memory.Leave(r.c.name, h)
			if s, ok := r.c.member(h); ok {
				s.Leave()
			}
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
