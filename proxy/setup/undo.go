package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// NewUndo plans what brings back what was there before the first Apply whose
// record is in the folder state.
func NewUndo(ctx context.Context, i Instance, state string) (*Plan, error) {
	p := &Plan{instance: i, store: store{state}, undo: true}
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
		return p, p.undoFile(r, file)
	}
	if !r.API {
		return nil, i.mustClose(errors.New("setup: its file was changed while it did not run"))
	}
	var now settings
	if p.api, err = i.api(file); err == nil {
		now, err = p.api.read(ctx)
	}
	if err != nil {
		return nil, i.mustClose(err)
	}
	for _, c := range r.Changes {
		if c.Old != nil && !same(now[c.Name], c.Old) {
			p.Changes = append(p.Changes, Change{c.Name, now[c.Name], c.Old})
		}
	}
	return p, nil
}

// undoFile plans to write the file as it was, or if the client has written it
// since, those lines of it that were changed.
func (p *Plan) undoFile(r *record, now settings) (err error) {
	i := p.instance
	if len(r.Lines) == 0 {
		return hint("Start it, and undo then.", "setup: %s was set up while it ran, and its file was not known", i.Client.Title())
	}
	if p.before, err = readFile(i.File); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	p.after = p.before
	for _, l := range r.Lines {
		if text, ok := raw(i.Client, p.before, l.Name); text == l.Text && ok == l.Set {
			continue
		}
		if p.after, err = write(i.Client, p.after, l.Name, l.Text, l.Set); err != nil {
			return err
		}
		c := Change{Name: l.Name, Old: now[l.Name]}
		if l.Set && i.Client == QBittorrent {
			c.New = iniValue(l.Text)
		} else if l.Set {
			c.New = json.RawMessage(l.Text)
		}
		p.Changes = append(p.Changes, c)
	}
	if r.Before != nil && r.After == digest(p.before) {
		p.after = r.Before
	}
	return nil
}
