package front

import (
	"context"
	"errors"

	"github.com/shoal-p2p/shoal/proxy/announce"
	"github.com/shoal-p2p/shoal/proxy/memory"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// join returns the membership in h of a client that asks for it.
func (c *Client) join(h swarm.Hash) (swarm.Swarm, error) {
	s, err := c.enter(h)
	if err != nil {
		return nil, err
	}
	c.f.cfg.Memory.Join(c.name, h, nil)
	c.confirmed(h)
	return s, nil
}

// enter returns the client's membership in h and takes its streams.
func (c *Client) enter(h swarm.Hash) (swarm.Swarm, error) {
	f := c.f
	s, err := f.cfg.Swarms.Join(c.name, h)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runs[h] == s {
		return s, nil
	}
	started := f.begin(func(ctx context.Context) {
		c.awaitReturn(ctx)
		f.desk.Run(ctx, c.name, s)
		c.over(h, s, ctx.Err() != nil)
	})
	if started {
		c.runs[h] = s
	}
	return s, nil
}

// over forgets what goes with membership s in h. One that the sidecar's own end
// is the end of stays remembered.
func (c *Client) over(h swarm.Hash, s swarm.Swarm, atExit bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runs[h] != s { // there is another already
		return
	}
	delete(c.runs, h)
	delete(c.rejoined, h)
	if !atExit {
		delete(c.listens, h)
		c.f.cfg.Memory.Leave(c.name, h)
	}
}

// member returns the membership that c has in h already.
func (c *Client) member(h swarm.Hash) (swarm.Swarm, bool) {
	for _, s := range c.f.cfg.Swarms.Members(c.name) {
		if s.Hash() == h {
			return s, true
		}
	}
	return nil, false
}

// announce announces c in h, which it joins; joined, which may be nil, is called
// when it has.
func (c *Client) announce(ctx context.Context, h swarm.Hash, a swarm.Announce, joined func()) (swarm.Answer, error) {
	for again := false; ; again = true {
		s, err := c.join(h)
		if err != nil {
			return swarm.Answer{}, err
		}
		if joined != nil {
			joined()
		}
		out, err := s.Announce(ctx, a)
		if !errors.Is(err, swarm.ErrLeft) || again {
			return out, err
		}
	}
}

// says notes what an announce says of the client itself.
func (c *Client) says(r announce.Request) {
	c.mu.Lock()
	if r.Port != 0 {
		c.listens[r.Hash] = r.Port
	} else {
		delete(c.listens, r.Hash)
	}
	c.mu.Unlock()
	c.f.cfg.Memory.Join(c.name, r.Hash, func(s *memory.Swarm) {
		s.Port = r.Port
		s.Say(r.Left)
	})
}
