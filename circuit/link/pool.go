package link

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Pool keeps one dialled link per neighbour and closes it when it has long
// carried nothing. Its fields are set before Run.
type Pool struct {
	// DialTCP reaches addr; nil means DialFrom the system's choice.
	DialTCP func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)

	// Certificate shows who dials; nil shows nobody.
	Certificate *tls.Certificate

	// DialTimeout bounds dialling and both handshakes; 0 means 10 s.
	DialTimeout time.Duration

	// Idle is how long a link without circuits is kept; 0 means 5 minutes.
	Idle time.Duration

	// Limit is what the links share; nil means none.
	Limit *Limit

	// Changed is called when a link came up, when one is over, with the reason,
	// and when dialling failed. It must not block. Nil: nobody is told.
	Changed func(id onion.ID, up bool, err error)

	once  sync.Once
	begun chan struct{} // closed when Run has begun; begin makes it

	mu     sync.Mutex
	ctx    context.Context // guarded by mu: Run's
	closed bool            // guarded by mu: Run waits for what there is
	links  map[onion.ID]*pooled
	wg     sync.WaitGroup
}

// failureHold is for how long all who want a link learn how the last attempt
// failed: others can have many circuits extended to a neighbour that is down.
const failureHold = time.Second

type pooled struct {
	ready chan struct{} // closed when link or err is set
	link  *Link
	err   error
	until time.Time // of err; guarded by Pool.mu
}

func (p *Pool) begin() chan struct{} {
	p.once.Do(func() { p.begun = make(chan struct{}) })
	return p.begun
}

// Run closes idle links until ctx ends, then all of them. It is called once.
func (p *Pool) Run(ctx context.Context) {
	p.mu.Lock()
	p.ctx = ctx
	p.mu.Unlock()
	close(p.begin())
	idle := p.Idle
	if idle == 0 {
		idle = 5 * time.Minute
	}
	tick := time.NewTicker(max(idle/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			p.mu.Lock()
			p.closed = true
			p.mu.Unlock()
			p.wg.Wait()
			return
		case <-tick.C:
			for _, l := range p.Links() {
				if l.Idle() > idle {
					l.Close()
				}
			}
		}
	}
}

// Links returns the links that stand.
func (p *Pool) Links() []*Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*Link
	for _, e := range p.links {
		if e.link != nil {
			all = append(all, e.link)
		}
	}
	return all
}

// Get returns the link to id, dialling addr when there is none. Many callers
// share one attempt, and for a second its failure. It waits for Run to begin.
// A link that is asked for again and again is kept without circuits, too.
func (p *Pool) Get(ctx context.Context, id onion.ID, addr netip.AddrPort) (*Link, error) {
	select {
	case <-p.begin():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.mu.Lock()
	if p.closed || p.ctx.Err() != nil {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	e := p.links[id]
	if e == nil || e.stale() {
		e = &pooled{ready: make(chan struct{})}
		if p.links == nil {
			p.links = make(map[onion.ID]*pooled)
		}
		p.links[id] = e
		p.wg.Go(func() { p.dial(p.ctx, e, id, addr) })
	}
	p.mu.Unlock()
	select {
	case <-e.ready:
		if e.link != nil {
			e.link.touch()
		}
		return e.link, e.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// stale reports whether e is no use any more. Caller holds Pool.mu.
func (e *pooled) stale() bool {
	switch {
	case e.link != nil:
		select {
		case <-e.link.Done():
			return true
		default:
			return false
		}
	case e.err != nil:
		return time.Now().After(e.until)
	}
	return false
}

// dial makes the link for e and carries it until it dies.
func (p *Pool) dial(ctx context.Context, e *pooled, id onion.ID, addr netip.AddrPort) {
	l, err := p.connect(ctx, id, addr)
	p.mu.Lock()
	e.link, e.err, e.until = l, err, time.Now().Add(failureHold)
	p.mu.Unlock()
	changed := p.Changed
	if changed == nil {
		changed = func(onion.ID, bool, error) {}
	}
	changed(id, err == nil, err)
	close(e.ready)
	if err == nil {
		l.Limit(p.Limit)
		changed(id, false, l.Run(ctx, nil))
	} else {
		select {
		case <-time.After(failureHold):
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	if p.links[id] == e {
		delete(p.links, id)
	}
	p.mu.Unlock()
}

func (p *Pool) connect(ctx context.Context, id onion.ID, addr netip.AddrPort) (*Link, error) {
	timeout := p.DialTimeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dial := p.DialTCP
	if dial == nil {
		dial = DialFrom(netip.Addr{})
	}
	conn, err := dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("link: %w", dialFault(err, addr))
	}
	return Dial(ctx, conn, id, p.Certificate)
}

// DialFrom returns a Pool's DialTCP that dials from source, or from where the
// system likes when source is zero.
func DialFrom(source netip.Addr) func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	d := &net.Dialer{KeepAlive: -1} // links have keepalives of their own
	if source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
	}
	return func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		if source.IsValid() && source.Unmap().Is4() != addr.Addr().Unmap().Is4() {
			return nil, wrongSource("is of another family, IPv4 or IPv6, than that of {who}", nil)
		}
		return d.DialContext(ctx, "tcp", addr.String())
	}
}
