package circuit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/stream"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// Config is what a Client is made of; all fields must be set but the last two.
type Config struct {
	Links   *link.Pool
	Chooser *path.Chooser
	Relays  func() []path.Relay // the directory as it is now
	Step    func() uint32       // the network's time step
	Own     int                 // own relays before the last hop
	Budget  *window.Budget      // what the windows of all circuits may promise

	// Lost is called for each circuit that stood and was ended by another hop. It must
	// not block. Nil: nobody is told.
	Lost func(Want)

	// Hello reads what a neighbour says of itself at the start of a link, for a
	// Want whose Last has no onion key.
	Hello func(hello []byte, id onion.ID) (path.Relay, error)
}

// Client builds circuits, and knows which stand.
type Client struct {
	cfg Config

	work work // of its circuits: what Want.Visit does, and what streams do at their end

	mu  sync.Mutex
	all map[*Circuit]struct{} // guarded by mu
}

// New returns a client.
func New(cfg Config) *Client {
	return &Client{cfg: cfg, all: make(map[*Circuit]struct{})}
}

// Want says which circuit to build.
type Want struct {
	Use  Use
	Key  path.Key   // circuits of different keys share nothing but guards
	Last path.Relay // the last hop: a meeting relay or a tracker

	// Direct dials Last itself. Only entry relays and guards may be Last then.
	Direct bool

	// Visit is told of streams that others open, each in a goroutine of its own.
	// It may take its time, but returns soon once the circuit is done.
	Visit func(*Circuit, Visitor)
}

// ErrFirstHop is inside the error of a circuit whose first hop could not be
// dialled: it says nothing of the hops behind it.
var ErrFirstHop = errors.New("circuit: first hop")

const (
	attempts     = 3 // paths tried for one circuit
	buildTimeout = 12 * time.Second
)

// Build builds a circuit, over another path when one fails. The error says how
// the last attempt ended.
func (c *Client) Build(ctx context.Context, w Want) (*Circuit, error) {
	return c.build(ctx, w, nil, nil)
}

// Dial is Build and then Circuit.Dial, in one round trip.
func (c *Client) Dial(ctx context.Context, w Want, k Call) (*Circuit, *stream.Conn, error) {
	call, err := k.start()
	if err != nil {
		return nil, nil, err
	}
	var id uint32
	var e *entry
	early := cell.Message{Stream: 1, Verb: cell.Open, Body: call.message}.Append(nil)
	circuit, err := c.build(ctx, w, early, func(c *Circuit) { id, e, _ = c.add(cell.Opened, 0) })
	if err != nil {
		return nil, nil, err
	}
	conn, err := circuit.finish(ctx, id, e, call)
	return circuit, conn, err
}

// Request is Build and then Circuit.Request, in one round trip where the
// request is short enough to ride in CREATE.
func (c *Client) Request(ctx context.Context, w Want, kind byte, body []byte, most int) (*Circuit, []byte, error) {
	var id uint32
	var e *entry
	m := cell.Message{Stream: 1, Verb: cell.Request, Body: append([]byte{kind}, body...)}
	early := m.Append(nil)
	fits := len(early) <= cell.EarlySize
	prepare := func(c *Circuit) { id, e, _ = c.add(cell.Answer, most) }
	if !fits {
		early, prepare = nil, nil
	}
	circuit, err := c.build(ctx, w, early, prepare)
	if err != nil {
		return nil, nil, err
	}
	if !fits {
		reply, err := circuit.Request(ctx, kind, body, most)
		return circuit, reply, err
	}
	answer, err := circuit.await(ctx, id, e)
	return circuit, answer.Body, err
}

func (c *Client) build(ctx context.Context, w Want, early []byte, prepare func(*Circuit)) (*Circuit, error) {
	var last error
	for range attempts {
		var own []path.Relay
		if !w.Direct {
			var err error
			own, err = c.cfg.Chooser.Choose(time.Now(), c.cfg.Relays(), w.Key, c.cfg.Own, w.Last)
			if err != nil {
				return nil, fmt.Errorf("circuit: %w", err)
			}
		}
		circuit, err := c.attempt(ctx, w, append(own, w.Last), early, prepare)
		if err == nil {
			c.keep(circuit, w)
			return circuit, nil
		}
		last = err
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, ErrFirstHop) { // which the link's owner hears of
			if w.Direct {
				break
			}
			continue
		}
		slog.Debug("a circuit could not be built", "for", w.Use, "hops", len(own)+1, "err", err)
	}
	return nil, last
}

// attempt builds one circuit along way, and tells the chooser how it went.
func (c *Client) attempt(ctx context.Context, w Want, way []path.Relay, early []byte, prepare func(*Circuit)) (*Circuit, error) {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	first := way[0]
	l, err := c.cfg.Links.Get(ctx, first.ID, first.Addr)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			c.cfg.Chooser.GuardDown(time.Now(), first.ID)
		}
		return nil, fmt.Errorf("%w: %w", ErrFirstHop, err)
	}
	c.cfg.Chooser.GuardUp(first.ID)
	if last := &way[len(way)-1]; last.Key.IsZero() && w.Direct && c.cfg.Hello != nil {
		if *last, err = c.cfg.Hello(l.Hello(), last.ID); err != nil {
			return nil, fmt.Errorf("circuit: %w", err)
		}
	}
	hops := make([]onion.Hop, len(way))
	for i, r := range way {
		hops[i] = onion.Hop{ID: r.ID, Key: r.Key, Suite: r.Suite}
	}
	step := c.cfg.Step()
	if w.Direct { // the one who judges it has told its time
		step = onion.Step(l.Time())
	}
	p := plan{use: w.Use, hops: hops, step: step, early: early, visit: w.Visit, work: &c.work, budget: c.cfg.Budget, prepare: prepare}
	circuit, err := p.build(ctx, l)
	if err == nil {
		c.cfg.Chooser.GuardResult(first.ID, true)
		return circuit, nil
	}
	c.blame(ctx, way, err)
	return nil, circuitFault(ctx, l, way, err)
}

// blame tells the chooser whose fault a failed attempt was, as far as one can
// know. A hop that can't be reached doesn't cost the guard.
func (c *Client) blame(ctx context.Context, way []path.Relay, err error) {
	var failed *onion.HopError
	switch {
	case errors.As(err, &failed):
		if failed.Hop+1 < len(way) {
			c.cfg.Chooser.EdgeFailed(time.Now(), way[failed.Hop].ID, way[failed.Hop+1].ID)
		}
	case errors.Is(ctx.Err(), context.Canceled):
	default:
		c.cfg.Chooser.GuardResult(way[0].ID, false)
	}
}

// keep lists a circuit until it is over.
func (c *Client) keep(circuit *Circuit, w Want) {
	c.mu.Lock()
	c.all[circuit] = struct{}{}
	c.mu.Unlock()
	circuit.onEnd(func() {
		c.mu.Lock()
		delete(c.all, circuit)
		c.mu.Unlock()
		if lost := c.cfg.Lost; lost != nil && cell.Reason(circuit.reason.Load()) != cell.Done {
			lost(w)
		}
	})
}

// Circuits returns the circuits that stand.
func (c *Client) Circuits() []*Circuit {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*Circuit, 0, len(c.all))
	for circuit := range c.all {
		out = append(out, circuit)
	}
	return out
}

// Close ends all circuits and waits for the goroutines of their streams and for
// what Want.Visit does. Nothing may be built after it.
func (c *Client) Close() {
	for _, circuit := range c.Circuits() {
		circuit.Close()
	}
	c.work.wait()
}
