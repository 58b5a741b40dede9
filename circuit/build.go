package circuit

import (
	"context"
	"fmt"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// plan is one circuit to build, once its path is chosen.
type plan struct {
	use     Use
	hops    []onion.Hop
	step    uint32
	early   []byte
	visit   func(*Circuit, Visitor)
	work    *work
	budget  *window.Budget
	prepare func(*Circuit) // before CREATE goes: makes room for what early asks
}

// build sends CREATE over l and waits until the circuit stands. A
// *RefusedError says that the first hop would not have it.
func (p plan) build(ctx context.Context, l *link.Link) (*Circuit, error) {
	create, wrapped, err := onion.Wrap(p.hops, p.step, p.early)
	if err != nil {
		return nil, fmt.Errorf("circuit: %w", err)
	}
	c := &Circuit{
		use: p.use, hops: len(p.hops), intake: link.NewIntake(p.budget), visit: p.visit, work: p.work, born: time.Now(),
		wrapped: wrapped, stands: make(chan error, 1), done: make(chan struct{}),
		streams: make(map[uint32]*entry), next: 1, usedAt: time.Now(),
	}
	if p.prepare != nil {
		p.prepare(c)
	}
	c.slot = l.NewCircuit(c)
	if err = c.slot.Open(handler{c}, create); err == nil {
		err = c.standing(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("circuit: %w", err)
	}
	return c, nil
}

// standing waits for CREATED.
func (c *Circuit) standing(ctx context.Context) error {
	select {
	case err := <-c.stands:
		return err
	case <-c.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.stands: // CREATED with the reason came first
		return err
	default:
		return &RefusedError{cell.Reason(c.reason.Load())}
	}
}
