package proxy

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/proxy/memory"
	"github.com/shoal-p2p/shoal/proxy/socks"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

const (
	// confirmSlack is how much later than it was told to a client may announce.
	confirmSlack = time.Minute

	// reconnect is how long a client may take to open its UDP association again
	// after a restart of the sidecar. Libtorrent takes five seconds, and seven
	// more when the sidecar was not there by then.
	reconnect = 15 * time.Second

	restoreAtOnce = 32 // swarms that are joined at the same time
)

// openMemory opens what is remembered of clients, and returns those of an
// earlier run that are to be taken back, and those that are gone.
func (p *Sidecar) openMemory() (back, gone []memory.Client, err error) {
	file := ""
	if !p.cfg.NoSOCKS { // a command ends with its sidecar
		dir, err := state.Volatile(p.cfg.State)
		if err != nil {
			p.cfg.Log.Debug("a restart of the sidecar will not remember its clients", "err", err)
		} else {
			file = filepath.Join(dir, "memory")
		}
	}
	var earlier memory.Earlier
	if p.memory, earlier, err = memory.Open(file, time.Now()); err != nil {
		return nil, nil, err
	}
	if earlier.Away > memory.MaxAway {
		return nil, earlier.Clients, nil
	}
	back, gone = present(earlier.Clients)
	for _, c := range back { // announces that failed meanwhile are tried again ever later
		for i, s := range c.Swarms {
			c.Swarms[i].Again = max(s.Again, earlier.Away)
		}
	}
	return back, gone, nil
}

// present tells those clients that may still run, and can be told apart, from
// those that are gone: the process is there, or it is not known and no other
// client could be meant.
func present(earlier []memory.Client) (back, gone []memory.Client) {
	unnamed := 0
	for _, c := range earlier {
		if socks.IsUnnamed(c.Name) {
			unnamed++
		}
	}
	for _, c := range earlier {
		switch {
		case c.Owner.Known() && !c.Owner.Runs(),
			!c.Owner.Known() && socks.IsUnnamed(c.Name) && unnamed > 1:
			gone = append(gone, c)
		default:
			back = append(back, c)
		}
	}
	return back, gone
}

// known returns where clients with UDP associations were.
func known(earlier []memory.Client) (all []socks.Known) {
	for _, c := range earlier {
		if c.UDP.IsValid() {
			all = append(all, socks.Known{Client: c.Name, UDP: c.UDP, Owner: c.Owner})
		}
	}
	return all
}

func (p *Sidecar) learned(k socks.Known) { p.memory.Heard(k.Client, k.UDP, k.Owner) }

// earlier makes the clients of an earlier run known, in no order. It is called
// before any of them can ask.
func (p *Sidecar) earlier() (all []restored) {
	began := time.Now()
	for _, e := range p.back {
		c := p.client(e.Name)
		c.back(e, began.Add(reconnect))
		for _, s := range e.Swarms {
			all = append(all, restored{c, s, c.unheard(swarm.Hash(s.Hash)), began.Add(s.Again + confirmSlack)})
		}
	}
	for _, e := range p.gone {
		c := p.client(e.Name)
		for _, s := range e.Swarms {
			all = append(all, restored{c, s, c.unheard(swarm.Hash(s.Hash)), began})
		}
	}
	if len(all) > 0 {
		p.cfg.Log.Info("clients of the earlier run", "back", len(p.back), "gone", len(p.gone), "swarms", len(all))
	}
	p.back, p.gone = nil, nil // they name torrents
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// restore takes clients back into their swarms, and out of them those that are
// gone or do not announce again in time.
func (p *Sidecar) restore(ctx context.Context, all []restored) {
	for len(all) > 0 && ctx.Err() == nil && p.up.Why() != nil {
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
		})
	}
}

// restored is a client in a swarm that it was in before the sidecar was
// started again.
type restored struct {
	c     *client
	swarm memory.Swarm
	heard chan struct{} // closed when the client asks for the swarm, or stops it
	until time.Time     // when that must have happened
}

// back makes c what was remembered of it.
func (c *client) back(e memory.Client, returns time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addr = e.Addr
	if e.UDP.IsValid() {
		c.returns = returns
	}
	c.p.memory.Met(e.Name, e.Addr)
	c.p.memory.Heard(e.Name, e.UDP, e.Owner)
	for _, s := range e.Swarms {
		h := swarm.Hash(s.Hash)
		if s.Port != 0 {
			c.listens[h] = s.Port
		}
		c.p.memory.Join(e.Name, h, func(now *memory.Swarm) { *now = s })
	}
}

// unheard returns a channel that is closed when the client asks for h, or stops it.
func (c *client) unheard(h swarm.Hash) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	heard := make(chan struct{})
	c.silent[h] = heard
	return heard
}

// returning reports whether the client may still be about to open its UDP
// association again.
func (c *client) returning() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.returns)
}

// awaitReturn waits until the client has its UDP association again, if there
// was a restart of the sidecar: a stream that comes before finds no way in.
func (c *client) awaitReturn(ctx context.Context) {
	c.mu.Lock()
	ctx, cancel := context.WithDeadline(ctx, c.returns)
	c.mu.Unlock()
	defer cancel()
	c.p.socks.Await(ctx, c.name)
}

// confirmed notes that the client itself asked for h, or is out of it, and
// reports whether that was not known.
func (c *client) confirmed(h swarm.Hash) bool {
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
		if s != nil && r.wasHeard() && !r.c.p.memory.Has(r.c.name, h) {
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
			r.c.p.memory.Leave(r.c.name, h)
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
