package relay

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// descriptor returns what the relay says of itself now.
func (r *Relay) descriptor() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hello
}

func (r *Relay) describe() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := &directory.Descriptor{
		ID: r.ID(), Published: time.Now().Add(r.keeper.ClockError()).Unix(), Addrs: []netip.AddrPort{r.found.Addr},
		Keys: []onion.PublicKey{r.keys.Current()}, Rate: r.cfg.Rate, Family: r.cfg.Family,
		Contact: r.cfg.Contact, Program: r.cfg.Program,
	}
	if err := d.Sign(r.keys.Identity); err != nil {
		return err
	}
	r.hello = d.Append(nil)
	return nil
}

const (
	lookEvery    = 15 * time.Second // between looks for another address, and whether an onion key has had its day
	describeTime = time.Hour        // how old the descriptor's time may become
)

// keepDescriptor rotates the onion keys, and keeps the descriptor of now.
func (r *Relay) keepDescriptor(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	described := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.look()
		fresh, err := r.keys.Rotate(time.Now())
		if fresh || err == nil && time.Since(described) >= describeTime {
			err = errors.Join(err, r.describe())
			described = time.Now()
		}
		if err != nil {
			r.cfg.Log.Error("onion keys", "err", err)
			continue
		}
		if fresh {
			r.cfg.Log.Info("a new onion key, as every day")
			r.mu.Lock()
			r.renewLocked()
			r.mu.Unlock()
		}
	}
}

const (
	publishEvery   = 10 * time.Minute // to a tracker that reaches this relay: after so long at most another address is noticed
	publishRetry   = 30 * time.Second // to one that does not, or can't be reached
	publishRefused = 10 * time.Minute // to one that does not take it
	publishSoon    = time.Second      // after a tracker took it, until it has tried the relay; then longer

	// addressTries is how often a tracker refuses the address before that is
	// said: in the first seconds too few trackers have told what they see.
	addressTries = 3
)

// publish tells one tracker of this relay, again when its onion key or address
// changes, and says whenever it changes whether the tracker reaches it.
func (r *Relay) publish(ctx context.Context, t path.Relay) {
	const silent directory.Standing = 255
	var said directory.Standing
	soon, misplaced := publishSoon, 0
	for {
		r.mu.Lock()
		renew := r.renew
		r.mu.Unlock()
		answer, ahead, err := r.tell(ctx, t)
		if ctx.Err() != nil {
			return
		}
		standing, next := answer.Standing, publishEvery
		r.saw(t.ID, answer.Seen)
		if standing == directory.WrongAddress {
			misplaced++
		} else {
			misplaced = 0
		}
		switch {
		case err != nil:
			standing, next = silent, publishRetry
			if said != silent {
				f := fault.About(err, "the tracker")
				r.cfg.Log.Warn("a tracker could not be told of this relay; trying again", "tracker", t.ID, "every", publishRetry, "why", f.Text(), "advice", f.Advice)
			}
		case standing == directory.Untested, 0 < misplaced && misplaced < addressTries:
			standing, next = directory.Untested, soon
			soon = min(2*soon, publishRetry)
		case standing == directory.Unreachable:
			next = publishRetry
		case !standing.Taken():
			next = publishRefused
		}
		if standing != directory.Untested {
			soon = publishSoon
			if said != standing && err == nil {
				r.report(t.ID, standing, ahead)
			}
			said = standing
		}
		select {
		case <-ctx.Done():
			return
		case <-renew:
		case <-time.After(next):
		}
	}
}

// report logs how this relay stands with a tracker, whose clock this computer's
// is ahead of by so much.
func (r *Relay) report(tracker onion.ID, s directory.Standing, ahead time.Duration) {
	at := r.Where().Addr
	switch s {
	case directory.Reachable:
		r.cfg.Log.Info("this relay is reachable from outside", "tracker", tracker)
	case directory.Unreachable:
		do := r.behindNAT()
		if do == "" {
			do = "open this TCP port in the firewall, or set --advertise to the address that others see"
		}
		r.cfg.Log.Warn("this relay is NOT reachable from outside", "tracker", tracker, "address", at, "do", do)
	case directory.WrongAddress:
		why, do := r.noAddress()
		r.cfg.Log.Error("the tracker does not take this relay: it has no address that others could reach", "tracker", tracker, "because", why, "do", do)
	case directory.WrongTime:
		f := fault.About(fault.ClockOff(ahead, nil), "the tracker")
		r.cfg.Log.Error("the tracker does not take this relay: a clock is wrong", "tracker", tracker, "why", f.Text(), "advice", f.Advice)
	case directory.Outdated:
		r.cfg.Log.Error("the tracker does not take this relay: it has had a newer descriptor of it: either the clock was ahead, or a second relay runs with a copy of this state folder", "tracker", tracker)
	default:
		r.cfg.Log.Error("the tracker does not take this relay", "tracker", tracker, "because", s)
	}
}

// tell tells a tracker of this relay. It also returns by how much this computer's
// clock is ahead of the tracker's.
func (r *Relay) tell(ctx context.Context, t path.Relay) (p directory.Published, ahead time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, answer, err := r.client.Request(ctx, circuit.Want{Use: circuit.ForTracker, Last: t, Direct: true},
		cell.RequestPublish, r.descriptor(), directory.MaxPublished)
	if c != nil {
		defer c.Close()
		ahead = c.ClockAhead()
	}
	if err != nil {
		return p, ahead, err
	}
	p, err = directory.ParsePublished(answer)
	return p, ahead, err
}
