package setup

import (
	"context"
	"errors"
	"fmt"
)

// Apply does what the plan says. While a client runs that has no API to tell,
// it refuses.
func (p *Plan) Apply(ctx context.Context) error {
	if p.record != nil {
		if err := p.store.save(p.instance, p.record); err != nil {
			return err
		}
	}
	if err := p.apply(ctx); err != nil {
		if p.record != nil && !p.had && !p.API() {
			p.store.remove(p.instance)
		}
		return err
	}
	if p.undo {
		return p.store.remove(p.instance)
	}
	return nil
}

func (p *Plan) apply(ctx context.Context) error {
	if len(p.Changes) == 0 {
		return nil
	}
	if p.api == nil {
		// It may have been started while the user read the plan.
		again, err := Find(p.instance.Client, Access{Config: p.instance.File})
		if err != nil {
			return err
		}
		if again.Process != nil {
			return again.mustClose(errors.New("setup: it was started meanwhile"))
		}
		if err := replace(p.instance.File, p.before, p.after); err != nil {
			return fmt.Errorf("setup: %w", err)
		}
		return nil
	}
	if err := p.api.write(ctx, p.Changes); err != nil {
		return err
	}
	now, err := p.api.read(ctx)
	if err != nil {
		return err
	}
	for _, c := range p.Changes {
		if !same(now[c.Name], c.New) {
			return fmt.Errorf("setup: %s did not take %s", p.instance.Client.Title(), c.Name)
		}
	}
	return nil
}
