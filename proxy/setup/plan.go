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

// API says if the client is told while it runs; else its file is written.
func (p *Plan) API() bool { return p.api != nil }

// NewPlan plans what makes the client fit for Shoal. Apply keeps what was there
// in the folder state, for Undo.
func NewPlan(ctx context.Context, i Instance, w Want, state string) (*Plan, error) {
	if err := w.check(); err != nil && i.Client != Transmission {
		return nil, err
	}
	file, err := i.settings()
	if err != nil {
		return nil, err
	}
	p := &Plan{instance: i, store: store{state}}
	was := file
	if i.runs() {
		was, err = p.planAPI(ctx, file, w)
	} else {
		err = p.planFile(file, w)
	}
	if err != nil {
		return nil, err
	}
	p.Notes = i.notes(was, w)
	if len(p.Changes) == 0 {
		return p, nil
	}
	return p, p.remember(file)
}

// planAPI plans to tell a client that runs, and returns its settings.
func (p *Plan) planAPI(ctx context.Context, file settings, w Want) (was settings, err error) {
	if p.api, err = p.instance.api(file); err == nil {
		was, err = p.api.read(ctx)
	}
	if err != nil {
		return nil, p.instance.mustClose(err)
	}
	p.Changes = p.instance.changesAPI(was, w)
	return was, nil
}

// planFile plans to write the file of one that doesn't.
func (p *Plan) planFile(file settings, w Want) (err error) {
	if p.before, err = readFile(p.instance.File); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	p.Changes = p.instance.changesFile(file, w)
	return p.edit()
}

// edit makes after of before, and drops changes that change no byte.
func (p *Plan) edit() error {
	p.after = p.before
	var real []Change
	for _, c := range p.Changes {
		text, err := asText(p.instance.Client, c.New)
		if err != nil {
			return err
		}
		after, err := write(p.instance.Client, p.after, c.Name, text, true)
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
func (p *Plan) remember(file settings) error {
	i := p.instance
	r, err := p.store.load(i)
	p.had = err == nil
	if errors.Is(err, fs.ErrNotExist) {
		r, err = &record{Client: i.Client, File: i.File, API: p.API()}, nil
	}
	if err != nil {
		return err
	}
	if r.API != p.API() {
		return hint("Undo that first, with --undo.", "setup: %s was set up before while it %s", i.Client.Title(), map[bool]string{true: "ran", false: "did not run"}[r.API])
	}
	bytesNow := p.before
	if p.API() && i.File != "" {
		if bytesNow, err = readFile(i.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("setup: %w", err)
		}
	}
	for _, c := range p.Changes {
		r.keep(c)
		if bytesNow == nil {
			continue
		}
		for _, name := range i.fileNames(c.Name, file) {
			text, ok := raw(i.Client, bytesNow, name)
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

// changesAPI returns what has to change in what the API says.
func (i Instance) changesAPI(s settings, w Want) []Change {
	switch i.Client {
	case QBittorrent:
		return qbChangesAPI(s, w)
	case Deluge:
		return delugeChanges(s, w)
	}
	return transmissionChanges(s)
}

// changesFile returns what has to change in what the file says.
func (i Instance) changesFile(s settings, w Want) []Change {
	if i.Client == QBittorrent {
		return qbChangesFile(s, w)
	}
	return i.changesAPI(s, w)
}

// fileNames returns the names that a changed setting has in the file.
func (i Instance) fileNames(name string, file settings) []string {
	switch i.Client {
	case QBittorrent:
		if all := qbFileNames(name, file); all != nil {
			return all
		}
	case Transmission:
		return []string{transmissionName(file, name)}
	}
	return []string{name}
}

// notes returns what the user should know.
func (i Instance) notes(s settings, w Want) []string {
	if i.Client == Transmission {
		return []string{
			"Transmission has no SOCKS for its peers: start it with shoal run, as in: shoal run --network FILE -- transmission-daemon --foreground",
			"Its DHT stays as it is: shoal run answers it, and without shoal run Transmission must not run at all.",
		}
	}
	p := i.profileOf(s, nil)
	switch {
	case !w.KeepDHT:
		return []string{"The DHT is off, because the client asks the system's DNS for the DHT's first nodes: add a tracker to magnets that have none; or use shoal run."}
	case p.DHT && i.Client == QBittorrent && (s.has("dht_bootstrap_nodes") || s.new()):
		return []string{"The DHT stays on, and starts from addresses that only Shoal answers at."}
	case p.DHT:
		return []string{"The DHT stays on: the client asks the system's DNS for the DHT's first nodes, which shows that a torrent client runs here, though not what it shares."}
	}
	return nil
}
