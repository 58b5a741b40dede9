package directory

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
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
	if one != nil {
		defer one.Close()
	}
	if err != nil {
		return false, err
	}
	return k.AddAnswer(answer)
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
			_, err := k.Fetch(ctx, c, from)
			cancel()
			if err != nil {
				failed = err
			} else if one {
				failed = nil
				break
			}
		}
		if failed != nil && ctx.Err() == nil {
			slog.Debug("a view could not be fetched", "err", failed)
		}
		every := k.Network().ViewEvery
		if every == 0 {
			every = ViewEvery
		}
		if _, ready := k.Merged().Ready(); ready {
			wait = time.Duration(float64(every) * (0.3 + 0.4*rand.Float64()))
		} else {
			wait = min(wait*3/2, 30*time.Second, max(every/2, 500*time.Millisecond))
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
