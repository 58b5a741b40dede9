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
	news, err = k.AddAnswer(answer)
	ahead := one.ClockAhead()
	k.mu.Lock()
	k.ahead = ahead
	k.mu.Unlock()
	switch {
	case (errors.Is(err, ErrStale) || errors.Is(err, errFuture)) && ahead.Abs() > circuit.ClockSlack:
		err = fault.ClockOff(ahead, err)
	case err == nil && len(answer) == 0 && k.Merged().Views == 0:
		err = fault.New(fault.NoViews, "{who} has no list of relays from the trackers itself", adviceTrackers, nil)
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
	wait := firstWait
	for {
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
				break
			}
		}
		if len(asked) > 0 && ctx.Err() == nil {
			k.mu.Lock()
			k.failed = failed
			k.mu.Unlock()
		}
		every := k.Network().ViewEvery
		if every == 0 {
			every = ViewEvery
		}
		if k.Merged().Ready() == nil {
			wait = time.Duration(float64(every) * (0.3 + 0.4*rand.Float64()))
		} else {
			wait = min(wait*3/2, 10*time.Second, max(every/2, 500*time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

const (
	firstWait    = 200 * time.Millisecond
	fetchTimeout = time.Minute
)
