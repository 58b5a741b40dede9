package relay

import (
	"context"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

const (
	// firstSummary and summaryEvery are when the log says what the relay carries.
	firstSummary = 10 * time.Minute
	summaryEvery = 6 * time.Hour
)

// totals are a hop's counters at one time.
type totals struct{ cells, created, refused, outdated uint64 }

func totalsOf(c *hop.Counters) totals {
	return totals{c.Cells(), c.Created.Load(), c.Refused.Load(), c.Outdated.Load()}
}

// summarise logs now and then what the relay has carried: sums alone.
func (r *Relay) summarise(ctx context.Context) {
	var before totals
	for wait := firstSummary; ; wait = summaryEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		now := totalsOf(r.Counters())
		r.cfg.Log.Info("carried", "in", fault.Span(wait),
			"megabytes", (now.cells-before.cells)*cell.FrameSize/1e6,
			"circuits", now.created-before.created, "refused", now.refused-before.refused,
			"open", r.Counters().Circuits.Load(), "links_in", r.server.Links(), "links_out", len(r.links.Links()))
		if n := now.outdated - before.outdated; n > 0 {
			r.cfg.Log.Warn("links of programs that speak another version of the protocol were refused: they or this relay have to be updated", "links", n)
		}
		before = now
	}
}

// linkChanged is told of every link that the relay dials.
func (r *Relay) linkChanged(id onion.ID, up bool, err error) {
	if up {
		r.cfg.Log.Debug("link up", "to", id)
		return
	}
	r.cfg.Log.Debug("link down", "to", id, "why", fault.Of(err).Text())
}
