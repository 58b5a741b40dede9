package circuit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
)

// ClockSlack is how far a clock may be off: hops refuse circuits that are made
// in another time step than the ones beside their own.
const ClockSlack = 10 * time.Minute

// circuitFault returns why no circuit could be built along way, whose first hop
// is at the other end of l.
func circuitFault(ctx context.Context, l *link.Link, way []path.Relay, err error) error {
	const advice = "Shoal tries other relays, and this one again later."
	ahead := l.ClockAhead()
	switch reason, at := refusal(err); {
	case errors.Is(ctx.Err(), context.Canceled):
		return err
	case reason == cell.Replayed && ahead.Abs() > ClockSlack:
		return fault.ClockOff(ahead, err)
	case reason == cell.Replayed:
		return fault.New(fault.Clock, "a relay refused a circuit as too old: its clock or this computer's is wrong", "Check this computer's clock.", err)
	case reason == cell.Gone && at == 0:
		return fault.New(fault.Closed, "the link to {who} ended", advice, err)
	case reason == cell.Busy && at == 0:
		return fault.New(fault.Busy, "{who} has no room for another circuit", advice, err)
	case reason == cell.Unreachable && at+2 == len(way):
		return fault.New(fault.LastHop, "the relay before it can't reach {who}", advice, err)
	case reason == cell.Unreachable:
		return fault.New(fault.Hop, fmt.Sprintf("relay %d of a circuit can't reach relay %d", at+1, at+2), advice, err)
	case reason != cell.OK:
		return fault.New(fault.Hop, fmt.Sprintf("relay %d of a circuit refused it: %v", at+1, reason), advice, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.Timeout, fmt.Sprintf("a circuit of %d relays did not stand within %d s", len(way), buildTimeout/time.Second), advice, err)
	}
	return err
}

// refusal returns which hop refused a circuit, and why; cell.OK for an error
// that is no refusal.
func refusal(err error) (r cell.Reason, hop int) {
	if failed, ok := errors.AsType[*onion.HopError](err); ok {
		return failed.Reason, failed.Hop
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return refused.Reason, 0
	}
	return cell.OK, 0
}
