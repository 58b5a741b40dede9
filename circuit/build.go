package circuit

import (
	"context"
	"fmt"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// plan is one circuit to build, once its path is chosen.
type plan struct {
	use     Use
	hops    []onion.Hop
	step    uint32
	early   []byte
	visit   func(*Circuit, Visitor)
	budget  *link.Budget
	prepare func(*Circuit) // before CREATE goes: makes room for what early asks
}

// build sends CREATE over l and waits until the circuit stands.
func (p plan) build(ctx context.Context, l *link.Link) (*Circuit, error) {
	create, wrapped, err := onion.Wrap(p.hops, p.step, p.early)
	if err != nil {
		return nil, fmt.Errorf("circuit: %w", err)
	}
	c := &Circuit{
		use: p.use, hops: len(p.hops), intake: link.NewIntake(p.budget), visit: p.visit, born: time.Now(),
		wrapped: wrapped, stands: make(chan error, 1), done: make(chan struct{}),
		streams: make(map[uint32]*entry), next: 1, usedAt: time.Now(),
	}
	if p.prepare != nil {
		p.prepare(c)
	}
	if c.slot, err = l.Open(handler{c}, c); err != nil {
		return nil, err
	}
	c.slot.Create(create)
	select {
	case err = <-c.stands:
	case <-c.done:
		select {
		case err = <-c.stands: // CREATED with the reason came first
		default:
			err = &onion.HopError{Hop: 0, Reason: cell.Reason(c.reason.Load())}
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("circuit: %w", err)
	}
	return c, nil
}
