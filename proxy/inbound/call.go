package inbound

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/proxy/scrub"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// Call is a peer that a client dials: reached, and waiting for the client's
// connection. Serve or Cancel is called, once.
type Call struct {
	desk *Desk
	swm  swarm.Swarm
	key  pairKey

	join *visit      // this visit is what was reached; nil: line is
	line *line       // guarded by Desk.mu until Dial returns
	move chan *visit // a visit to go over to while line is still being opened

	cancel context.CancelFunc // guarded by Desk.mu
	over   bool               // guarded by Desk.mu
	heard  bool               // the far client has answered; guarded by Desk.mu
	fate   chan struct{}      // closed when it has, or when the call is over
	once   sync.Once          // of end
}

// errBusy: the client has the peer by another way, or dialled it once more.
var errBusy = fmt.Errorf("inbound: %w: %w", swarm.ErrConnected, swarm.ErrUnreachable)

// Dial reaches peer for c, which is dialling it: by a stream of its own, or one
// that the peer has opened and that waits for c. Errors are those of s.Dial.
func (d *Desk) Dial(ctx context.Context, c swarm.Client, s swarm.Swarm, peer swarm.Key) (*Call, error) {
	call := &Call{
		desk:   d,
		swm:    s,
		key:    pairKey{c, s.Hash(), peer},
		move:   make(chan *visit, 1),
		cancel: func() {},
		fate:   make(chan struct{}),
	}
	d.mu.Lock()
	p := d.pair(call.key)
	v, old := p.visit, p.call
	carried := v != nil && v.state == live
	if carried && time.Since(v.since) < d.config.Tie {
		d.mu.Unlock()
		return nil, errBusy // the two have crossed
	}
	if v != nil && v.state == waits {
		call.join = v
	}
	p.call = call
	d.mu.Unlock()
	if old != nil { // a client that dials again has lost what it had
		old.end()
	}
	if call.join != nil {
		return call, nil
	}
	if carried {
		v.cancel()
	}
	stream, err := call.dial(ctx)
	if err == nil {
		err = call.use(stream)
	}
	if err != nil {
		call.end()
		return nil, err
	}
	return call, nil
}

// dial opens a stream, or returns one that the peer has opened meanwhile.
func (c *Call) dial(ctx context.Context) (swarm.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		stream swarm.Conn
		err    error
	}
	done := make(chan result, 1)
	go func() {
		s, err := c.swm.Dial(ctx, c.key.peer)
		done <- result{s, err}
	}()
	drop := func() {
		cancel()
		if r := <-done; r.err == nil {
			r.stream.Close()
		}
	}
	for {
		select {
		case r := <-done:
			if r.err != nil {
				if s := c.spare(); s != nil {
					return s, nil
				}
			}
			return r.stream, r.err
		case v := <-c.move:
			if s := v.hand(); s != nil {
				drop()
				return s, nil
			}
		case <-c.fate:
			drop()
			return nil, errBusy
		}
	}
}

// use makes stream the call's own.
func (c *Call) use(stream swarm.Conn) error {
	l := newLine(stream)
	l.onHeard = c.answered
	l.spare = c.spare
	if !less(c.swm.Self(), c.key.peer) {
		l.wait = c.desk.config.Tie
	}
	c.desk.mu.Lock()
	select {
	case <-c.fate: // ended by a newer call
		c.desk.mu.Unlock()
		stream.Close()
		return errBusy
	default:
	}
	c.line = l
	c.desk.mu.Unlock()
	select {
	case v := <-c.move: // came in between
		v.moveTo(l)
	default:
	}
	return nil
}

// Serve carries the client's connection until it is over. It owns conn.
func (c *Call) Serve(ctx context.Context, conn swarm.Conn) {
	defer c.end()
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.desk.mu.Lock()
	c.cancel = cancel
	over := c.over
	c.desk.mu.Unlock()
	if over { // the client has dialled once more
		return
	}
	hello, stop := context.WithTimeout(ctx, c.desk.config.Hello)
	leg, err := scrub.Accept(hello, conn, c.key.hash)
	stop()
	if err != nil {
		c.desk.refused(err)
		return
	}
	var far swarm.Conn = c.line
	if c.join != nil {
		if far = c.join.take(ctx); far == nil {
			return // the client was given the stream by another way
		}
		defer far.Close()
		c.answered() // it would not be a visit without a handshake
	}
	c.desk.splice(ctx, c.swm, c.key.peer, leg, far)
}

// Cancel says that the client is gone.
func (c *Call) Cancel() { c.end() }

// end ends the call, whatever it is at.
func (c *Call) end() {
	c.once.Do(func() {
		d := c.desk
		d.mu.Lock()
		if p := d.pairs[c.key]; p != nil && p.call == c {
			p.call = nil
			d.tidy(c.key)
		}
		c.over = true
		c.decide()
		line, cancel := c.line, c.cancel
		d.mu.Unlock()
		cancel()
		if line != nil {
			line.Close()
		}
	})
}

// answered notes that the far client has answered.
func (c *Call) answered() {
	c.desk.mu.Lock()
	defer c.desk.mu.Unlock()
	c.heard = true
	c.decide()
}

// decide ends the waiting for c's fate. Desk.mu is held.
func (c *Call) decide() {
	select {
	case <-c.fate:
	default:
		close(c.fate)
	}
}

// spare returns a stream that the peer has opened and that was held back for
// this call's sake, or nil.
func (c *Call) spare() swarm.Conn {
	c.desk.mu.Lock()
	var v *visit
	if p := c.desk.pairs[c.key]; p != nil {
		v = p.visit
	}
	c.desk.mu.Unlock()
	if v == nil {
		return nil
	}
	return v.hand()
}
