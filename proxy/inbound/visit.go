package inbound

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/shoal-p2p/shoal/proxy/scrub"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// visit is a stream that a peer opened.
type visit struct {
	desk   *Desk
	swm    swarm.Swarm
	key    pairKey
	stream *peeked
	cancel context.CancelFunc

	ready chan struct{} // closed when far is set
	free  chan struct{} // closed when no road uses far any more
	far   *scrub.Leg    // the stream, its handshake read and to be read again
	gone  chan struct{} // closed when the client has got it, or it is over
	done  chan struct{} // closed when Arrive is

	state state     // guarded by Desk.mu
	since time.Time // of the state live; guarded by Desk.mu
}

// state is what became of a visit.
type state uint8

const (
	held  state = iota // for the sake of a call; nothing was read
	waits              // for the client to take it
	live               // the client has it, by a road
	ended              // it is a call's, or over
)

// Arrive gives a stream that peer has opened to c, and returns when the stream
// is over, or has become a Call's. It owns stream.
func (d *Desk) Arrive(ctx context.Context, c swarm.Client, s swarm.Swarm, peer swarm.Key, stream swarm.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := &visit{
		desk:   d,
		swm:    s,
		key:    pairKey{c, s.Hash(), peer},
		stream: &peeked{Conn: stream},
		cancel: cancel,
		ready:  make(chan struct{}),
		free:   make(chan struct{}),
		gone:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	defer close(v.done)
	old, ok := v.enter()
	if !ok {
		d.config.Count(status.Full)
		stream.Close()
		return
	}
	defer v.leave()
	if old != nil { // a client takes no second connection from one address
		old.cancel()
		<-old.done
	}
	if v.settle(ctx) && v.admit() {
		v.deliver(ctx)
	}
}

// enter makes v the pair's visit, in place of an older one, which it returns:
// that is over, or its peer would not have come again.
func (v *visit) enter() (old *visit, ok bool) {
	d := v.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.visits >= maxVisits || d.waiting >= maxWaiting {
		return nil, false
	}
	d.visits++
	d.waiting++
	p := d.pair(v.key)
	old, p.visit = p.visit, v
	return old, true
}

// leave forgets v.
func (v *visit) leave() {
	d := v.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	d.visits--
	if v.state != live {
		d.waiting--
	}
	if v.end() {
		v.stream.Close()
	}
}

// end makes v over. It is false if v was that, or a call's. Desk.mu is held.
func (v *visit) end() bool {
	if v.state == ended {
		return false
	}
	if v.state != live {
		close(v.gone)
	}
	v.state = ended
	if p := v.desk.pairs[v.key]; p != nil && p.visit == v {
		p.visit = nil
		v.desk.tidy(v.key)
	}
	return true
}

// hand gives the stream, of which nothing was read, to a call; nil if it is not
// held any more.
func (v *visit) hand() swarm.Conn {
	v.desk.mu.Lock()
	defer v.desk.mu.Unlock()
	if v.state != held || !v.end() {
		return nil
	}
	return v.stream
}

// moveTo lets a call's client go over to v's stream. It is false if that was
// answered just now, or v is somebody else's.
func (v *visit) moveTo(l *line) bool {
	s := v.hand()
	if s == nil {
		return true
	}
	if l.swap(s) {
		return true
	}
	s.Close()
	return false
}

// call returns the pair's call, its line and whether its far client has
// answered. A call without a line is told of v, if it is to give way to v.
func (v *visit) call(mine bool) (c *Call, l *line, heard bool) {
	v.desk.mu.Lock()
	defer v.desk.mu.Unlock()
	p := v.desk.pairs[v.key]
	if p == nil || p.call == nil {
		return nil, nil, false
	}
	c = p.call
	if c.line == nil && !c.heard && !mine {
		select {
		case c.move <- v:
		default:
		}
	}
	return c, c.line, c.heard
}

// settle decides between v and what the client has opened to the same peer. It
// is true when v is to be delivered.
func (v *visit) settle(ctx context.Context) bool {
	mine := less(v.swm.Self(), v.key.peer)
	for {
		c, l, heard := v.call(mine)
		switch {
		case c == nil:
			return ctx.Err() == nil
		case heard && mine && !v.stands(ctx): // the tie was decided long ago
			return false
		case heard:
			c.end()
			return ctx.Err() == nil
		case !mine && l != nil:
			v.moveTo(l)
			return false
		}
		select {
		case <-v.gone:
			return false
		case <-c.fate:
			if _, _, heard := v.call(mine); heard && mine {
				return false
			}
		case <-ctx.Done():
			return false
		}
	}
}

// stands says if the peer leaves the stream open for some seconds.
func (v *visit) stands(ctx context.Context) bool {
	defer context.AfterFunc(ctx, func() { v.stream.Close() })()
	return v.stream.open(v.desk.config.Tie)
}

// admit lets calls join v.
func (v *visit) admit() bool {
	v.desk.mu.Lock()
	defer v.desk.mu.Unlock()
	if v.state != held {
		return false
	}
	v.state = waits
	return true
}

// take gives v to a call, as soon as its handshake was read; nil if the client
// has got it by another way, or it is over.
func (v *visit) take(ctx context.Context) swarm.Conn {
	select {
	case <-v.ready:
	case <-v.gone:
		return nil
	case <-ctx.Done():
		return nil
	}
	v.desk.mu.Lock()
	mine := v.state == waits && v.end() // which calls the roads off
	v.desk.mu.Unlock()
	if !mine {
		return nil
	}
	<-v.free
	return v.far
}

// deliver finds a way into the client and carries the stream.
func (v *visit) deliver(ctx context.Context) {
	d := v.desk
	hello, stop := context.WithTimeout(ctx, d.config.Hello)
	far, err := scrub.Far(hello, v.stream, v.key.hash)
	stop()
	if err != nil {
		if ctx.Err() == nil {
			d.refused(err)
		}
		return
	}
	v.far = far
	close(v.ready)
	wait, stop := context.WithTimeout(ctx, d.config.Wait)
	defer stop()
	leg := v.roads(wait)
	close(v.free)
	if leg == nil {
		select {
		case <-v.gone:
		default:
			if ctx.Err() == nil {
				d.config.Count(status.NoWayIn)
			}
		}
		return
	}
	if !v.arrived() { // the client's own connection was faster
		leg.Close()
		return
	}
	d.splice(ctx, v.swm, v.key.peer, leg, far)
}

// roads tries the roads until one works, a call takes v or ctx ends. A client
// that is still looking at its files refuses everybody, and a moment later not.
func (v *visit) roads(ctx context.Context) *scrub.Leg {
	d := v.desk
	standIn, err := d.config.StandIn(v.key.client, v.key.hash, v.key.peer)
	if err != nil {
		d.config.Count(status.Full)
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-v.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	for pause := time.Second; ; pause *= 2 {
		for _, road := range d.config.Roads {
			if leg := v.try(ctx, road, standIn); leg != nil {
				return leg
			}
		}
		if pause == time.Second { // once
			v.ring(ctx, standIn)
		}
		if d.config.Last != nil {
			if leg := v.try(ctx, d.config.Last, standIn); leg != nil {
				return leg
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		sleep(ctx, pause)
	}
}

// try tries one road. It returns nil when that leads nowhere.
func (v *visit) try(ctx context.Context, road Road, standIn netip.AddrPort) *scrub.Leg {
	v.yield(ctx)
	if ctx.Err() != nil {
		return nil
	}
	leg, err := scrub.Dial(ctx, v.by(road, standIn), v.far, scrubbing(v.swm, v.key.peer), v.desk.taste(v.key.client))
	if err != nil {
		return nil
	}
	return leg
}

// by returns what dials the client by a road.
func (v *visit) by(road Road, standIn netip.AddrPort) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return road(ctx, v.key.client, v.key.hash, standIn) }
}

// sleep returns after d, or when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// yield leaves a client that is dialling this very peer a moment to do it: two
// connections at once would be one too many for it.
func (v *visit) yield(ctx context.Context) {
	if c, _, _ := v.call(true); c == nil || c.join != v {
		return
	}
	sleep(ctx, time.Second)
}

// arrived notes that the client has answered, by a road.
func (v *visit) arrived() bool {
	d := v.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	if v.state != waits {
		return false
	}
	close(v.gone)
	v.state, v.since = live, time.Now()
	d.waiting--
	return true
}

// peeked is a stream that can be looked at without reading it.
type peeked struct {
	swarm.Conn
	first []byte
}

// open says if the stream is not closed within d.
func (p *peeked) open(d time.Duration) bool {
	until := time.Now().Add(d)
	p.Conn.SetReadDeadline(until)
	defer p.Conn.SetReadDeadline(time.Time{})
	buf := make([]byte, maxSaid)
	for len(p.first) < maxSaid {
		n, err := p.Conn.Read(buf[:maxSaid-len(p.first)])
		p.first = append(p.first, buf[:n]...)
		if err != nil {
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
	return true
}

// Read implements net.Conn.
func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
