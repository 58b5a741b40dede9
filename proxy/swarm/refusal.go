package swarm

import (
	"context"
	"errors"

	"github.com/shoal-p2p/shoal/proxy/status"
)

// Refusal returns what a stream or announce that failed with err under ctx counts
// as. It reports false for what nobody waits for any more, and for a peer that
// is connected already.
func Refusal(ctx context.Context, err error) (r status.Reason, ok bool) {
	switch {
	case err == nil, errors.Is(ctx.Err(), context.Canceled), errors.Is(err, context.Canceled), errors.Is(err, ErrConnected):
		return 0, false
	case errors.Is(err, ErrUnknownPeer):
		return status.UnknownStandIn, true
	case errors.Is(err, ErrNotReady):
		return status.NotReady, true
	case errors.Is(err, ErrNoTracker):
		return status.NoTracker, true
	case errors.Is(err, ErrLimit):
		return status.Full, true
	}
	return status.Unreachable, true
}
