package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
)

// Hello reads the descriptor that a relay or tracker says of itself at the
// start of a link, for circuit.Config.
func Hello(hello []byte, id onion.ID) (path.Relay, error) {
	d, err := ParseDescriptor(hello)
	if err != nil {
		return path.Relay{}, err
	}
	if d.ID != id {
		return path.Relay{}, fmt.Errorf("directory: the descriptor is of another than the one dialled")
	}
	if err := d.Verify(); err != nil {
		return path.Relay{}, err
	}
	return path.Relay{ID: d.ID, Addr: d.Addrs[0], Key: d.Keys[0], Suite: d.Suite}, nil
}

// Fetch asks from, over a circuit of one hop, for views newer than k's.
func (k *Keeper) Fetch(ctx context.Context, c *circuit.Client, from path.Relay) (news bool, err error) {
	body := AppendHave(nil, k.Have())
	one, answer, err := c.Request(ctx, circuit.Want{Use: circuit.ForTracker, Last: from, Direct: true},
		cell.RequestViews, body, MaxViews(len(k.Network().Trackers)))
	if err != nil {
		if one != nil {
			one.Close()
		}
		return false, err
	}
	defer one.Close()
	ahead := one.ClockAhead()
	k.mu.Lock()
	k.ahead = ahead
	k.mu.Unlock()
	news, err = k.AddAnswer(answer)
	switch {
	case (errors.Is(err, ErrStale) || errors.Is(err, errFuture)) && ahead.Abs() > circuit.ClockSlack:
		err = fault.ClockOff(ahead, err)
	case err == nil && len(answer) == 0 && k.Merged().Views == 0:
		err = fault.New(fault.NoViews, "{who} has no list of relays from any tracker that the network file names",
			"Trackers are down, or the network file is wrong: ask whoever gave it to you. Shoal keeps asking.", nil)
	}
	return news, err
}

// Ready returns nil when paths can be chosen, else why they can't: what keeps
// lists of relays from coming, where that is known.
func (k *Keeper) Ready() error {
	err := k.Merged().Ready()
	if err == nil {
		return nil
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	switch {
	case k.failed != nil:
		return k.failed
	case fault.Of(err).Cause == fault.NoViews && k.ahead > circuit.ClockSlack:
		return fault.ClockOff(k.ahead, err)
	}
	return err
}

// Follow keeps k's views up to date until ctx ends. Each round it asks what next
// returns, given those that it has asked in this round, until there is no more;
// with one, until one has answered.
func (k *Keeper) Follow(ctx context.Context, c *circuit.Client, one bool, next func(asked []onion.ID) (path.Relay, bool)) {
	pace := pace{every: k.Network().ViewEvery, wait: firstWait}
	if pace.every == 0 {
		pace.every = ViewEvery
	}
	for {
		k.round(ctx, c, one, next)
		wait := pace.next(k.Merged(), rand.Float64())
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-k.lacking:
			select {
			case <-ctx.Done():
				return
			case <-time.After(min(wait, lackWait)):
			}
		}
	}
}

// round asks for views once, and notes why the last who was asked had none.
func (k *Keeper) round(ctx context.Context, c *circuit.Client, one bool, next func(asked []onion.ID) (path.Relay, bool)) {
	var failed error
	var asked []onion.ID
	for ctx.Err() == nil {
		from, ok := next(asked)
		if !ok {
			break
		}
		asked = append(asked, from.ID)
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		news, err := k.Fetch(ctx, c, from)
		cancel()
		slog.Debug("asked for lists of relays", "news", news, "err", err)
		if err != nil {
			failed = err
		} else if one {
			failed = nil
		}
		if fault.Here(err) || err == nil && one {
			break
		}
	}
	if len(asked) > 0 && ctx.Err() == nil {
		k.mu.Lock()
		k.failed = failed
		k.mu.Unlock()
	}
}

const (
	firstWait    = 200 * time.Millisecond
	maxFirstWait = 10 * time.Second
	changedWait  = 10 * time.Second // about how soon a tracker signs another view when much changes
	lackWait     = 15 * time.Second // when paths can't be chosen
	fetchTimeout = time.Minute

	// muchPercent of the relays are others than before: the network is young or
	// troubled, and the next view may say more.
	muchPercent = 5
)

// pace says when views are asked for next: in a network that stays as it is
// once between two views, in one that changes again soon.
type pace struct {
	every  time.Duration // between two views of a tracker
	wait   time.Duration // the last
	listed map[onion.ID]bool
}

// next returns how long to wait now that the list is m. chance is from 0 to 1.
func (p *pace) next(m *Merged, chance float64) time.Duration {
	if m.Ready() != nil {
		p.wait = min(p.wait*3/2, maxFirstWait, max(p.every/2, 500*time.Millisecond))
		return p.wait
	}
	p.wait *= 2
	if p.changed(m) {
		p.wait = changedWait
	}
	p.wait = min(p.wait, time.Duration(float64(p.every)*(0.3+0.4*chance)))
	return p.wait
}

// changed reports whether many relays come or go with m, which it remembers.
func (p *pace) changed(m *Merged) bool {
	others := len(p.listed)
	now := make(map[onion.ID]bool, len(m.Relays))
	for i := range m.Relays {
		id := m.Relays[i].ID
		now[id] = true
		if p.listed[id] {
			others--
		} else {
			others++
		}
	}
	p.listed = now
	return 100*others >= muchPercent*max(len(now), 1)
}

// Lack says that no path can be chosen from the list as it is: Follow then
// looks for news soon.
func (k *Keeper) Lack() {
	select {
	case k.lacking <- struct{}{}:
	default:
	}
}
