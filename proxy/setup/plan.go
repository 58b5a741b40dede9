package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Plan is what Apply would do. It has changed nothing yet.
type Plan struct {
	Changes []Change
	Notes   []string // what the user should know of it, one sentence each

	instance Instance
	api      api // nil: the file is written
	before   []byte
	after    []byte
	store    store
	record   *record // what Apply keeps, nil for nothing
	had      bool    // there was a record before
	undo     bool
}

// API reports whether the running client is changed; else its file is.
func (p *Plan) API() bool { return p.api != nil }

// NewPlan plans what makes the client fit for Shoal. Apply keeps what was there
// in the folder state, for Undo.
func NewPlan(ctx context.Context, i Instance, w Want, state string) (*Plan, error) {
	p := &Plan{instance: i, store: store{state}}
	c, ok := i.Client.(configurable)
	if !ok {
		p.Notes = []string{runOnly(i.Client) + " No setting has to change for that."}
		return p, nil
	}
	if err := w.check(); err != nil && c.NoSOCKS() == "" {
		return nil, err
	}
	var s seen
	var err error
	if s.file, err = i.settings(); err != nil {
		return nil, err
	}
	if i.runs() {
		s.api, err = p.planAPI(ctx, c, s.file, w)
	} else {
		err = p.planFile(c, s.file, w)
	}
	if err != nil {
		return nil, err
	}
	p.Notes = c.notes(s, w)
	if len(p.Changes) == 0 {
		return p, nil
	}
	return p, p.remember(c, s.file)
}

// planAPI plans to change a running client, and returns its settings.
func (p *Plan) planAPI(ctx context.Context, c configurable, file settings, w Want) (now settings, err error) {
	if p.api, err = p.instance.api(c, file); err == nil {
		now, err = p.api.read(ctx)
	}
	if err != nil {
		return nil, p.instance.mustClose(err)
	}
	p.Changes = c.changes(seen{now, file}, w)
	return now, nil
}

// planFile plans to write the file of one that doesn't run.
func (p *Plan) planFile(c configurable, file settings, w Want) (err error) {
	if p.before, err = readFile(p.instance.File); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	p.Changes = c.changes(seen{file: file}, w)
	return p.edit(c.format())
}

// edit makes after of before, and drops changes that change no byte.
func (p *Plan) edit(f format) error {
	p.after = p.before
	var real []Change
	for _, c := range p.Changes {
		text, err := f.text(c.New)
		if err != nil {
			return err
		}
		after, err := f.set(p.after, c.Name, text)
		if err != nil {
			return err
		}
		if !bytes.Equal(after, p.after) {
			real = append(real, c)
		}
		p.after = after
	}
	p.Changes = real
	return nil
}

// remember makes the record that Apply writes: what was there before the first
// of several plans.
func (p *Plan) remember(c configurable, file settings) error {
	i := p.instance
	r, err := p.store.load(i)
	p.had = err == nil
	if errors.Is(err, fs.ErrNotExist) {
		r, err = &record{Client: c.Name(), File: i.File, API: p.API()}, nil
	}
	if err != nil {
		return err
	}
	if r.API != p.API() {
		return hint("Undo that first, with --undo.", "setup: %s was set up before while it %s", c.Title(), map[bool]string{true: "ran", false: "did not run"}[r.API])
	}
	bytesNow := p.before
	if p.API() && i.File != "" {
		if bytesNow, err = readFile(i.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("setup: %w", err)
		}
	}
	for _, change := range p.Changes {
		r.keep(change)
		if bytesNow == nil {
			continue
		}
		for _, name := range c.fileNames(change.Name, file) {
			text, ok := c.format().get(bytesNow, name)
			r.keepLine(written{name, text, ok})
		}
	}
	if !p.API() {
		switch {
		case !p.had:
			r.Before = p.before
		case r.After != digest(p.before): // the client has written it since
			r.Before = nil
		}
		r.After = digest(p.after)
	}
	p.record = r
	return nil
}
