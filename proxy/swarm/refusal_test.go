package swarm

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/status"
)

func TestWhatFailsCountsAsWhatItWas(t *testing.T) {
	for _, c := range []struct {
		err  error
		want status.Reason
	}{
		{ErrUnknownPeer, status.UnknownStandIn},
		{ErrUnreachable, status.Unreachable},
		{fmt.Errorf("%w: %w", ErrNotReady, ErrUnreachable), status.NotReady},
		{fmt.Errorf("%w: %w", ErrUnreachable, ErrLimit), status.Full},
		{fmt.Errorf("%w: %w", ErrNoTracker, errors.New("timeout")), status.NoTracker},
		{context.DeadlineExceeded, status.Unreachable},
		{errors.New("odd"), status.Unreachable},
	} {
		if got, ok := Refusal(t.Context(), c.err); !ok || got != c.want {
			t.Errorf("%v counts as %v (%v), want %v", c.err, got, ok, c.want)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx context.Context
		err error
	}{
		{t.Context(), nil},
		{gone, ErrUnreachable}, // the client has hung up
		{t.Context(), context.Canceled},
		{t.Context(), fmt.Errorf("%w: %w", ErrConnected, ErrUnreachable)},
	} {
		if got, ok := Refusal(c.ctx, c.err); ok {
			t.Errorf("%v counts as %v", c.err, got)
		}
	}
}
