package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// NewUndo plans what brings back what was there before the first Apply whose
// record is in the folder state.
func NewUndo(ctx context.Context, i Instance, state string) (*Plan, error) {
	p := &Plan{instance: i, store: store{state}, undo: true}
	c, ok := i.Client.(configurable)
	if !ok {
		return nil, fmt.Errorf("setup: there is nothing to undo for %s: setup never changes it", i.Client.Title())
	}
	r, err := p.store.load(i)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("setup: there is nothing to undo for this %s", i.Client.Title())
	}
	if err != nil {
		return nil, err
	}
	file, err := i.settings()
	if err != nil {
		return nil, err
	}
	if !i.runs() {
		return p, p.undoFile(c, r, file)
	}
	if !r.API {
		return nil, i.mustClose(errors.New("setup: its file was changed while it did not run"))
	}
	var now settings
	if p.api, err = i.api(c, file); err == nil {
		now, err = p.api.read(ctx)
	}
	if err != nil {
		return nil, i.mustClose(err)
	}
	for _, change := range r.Changes {
		if change.Old != nil && !same(now[change.Name], change.Old) {
			p.Changes = append(p.Changes, Change{change.Name, now[change.Name], change.Old})
		}
	}
	return p, nil
}

// undoFile plans to write the file as it was, or if the client has written it
// since, those lines of it that were changed.
func (p *Plan) undoFile(c configurable, r *record, now settings) (err error) {
	if len(r.Lines) == 0 {
		return hint("Start it, and undo then.", "setup: %s was set up while it ran, and its file was not known", c.Title())
	}
	if p.before, err = readFile(p.instance.File); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	p.after = p.before
	f := c.format()
	for _, l := range r.Lines {
		if text, ok := f.get(p.before, l.Name); text == l.Text && ok == l.Set {
			continue
		}
		change := Change{Name: l.Name, Old: now[l.Name]}
		if l.Set {
			change.New = f.value(l.Text)
			p.after, err = f.set(p.after, l.Name, l.Text)
		} else {
			p.after, err = f.unset(p.after, l.Name)
		}
		if err != nil {
			return err
		}
		p.Changes = append(p.Changes, change)
	}
	if r.Before != nil && r.After == digest(p.before) {
		p.after = r.Before
	}
	return nil
}
