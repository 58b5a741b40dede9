package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strconv"
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
	var was settings
	if i.runs() {
		if p.api, err = i.api(file); err == nil {
			was, err = p.api.read(ctx)
		}
		if err != nil {
			return nil, i.mustClose(err)
		}
		p.Changes = i.changesAPI(was, w)
	} else {
		if p.before, err = readFile(i.File); err != nil {
			return nil, fmt.Errorf("setup: %w", err)
		}
		p.Changes = i.changesFile(file, w)
		if err := p.edit(); err != nil {
			return nil, err
		}
		was = file
	}
	p.Notes = i.notes(was, w)
	if len(p.Changes) == 0 {
		return p, nil
	}
	return p, p.remember(file)
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
		r, err = &record{Version: recordVersion, Client: i.Client, File: i.File, API: p.API()}, nil
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

// runs says if the client runs, as far as is known.
func (i Instance) runs() bool { return i.Process != nil || i.access.URL != "" }

func (i Instance) mustClose(err error) error {
	if errors.Is(err, errLogin) {
		return &HintError{err, "Give --login and --login-password-file; or close " + i.Client.Title() + " and say this again."}
	}
	return &HintError{err, "Close " + i.Client.Title() + " and say this again: while it runs it would overwrite its file."}
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
			"Transmission has no SOCKS for its peers: start it with shoal run, as in: shoal run -- transmission-daemon --foreground",
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

// profileOf says what settings mean that came from the API (then file are the
// file's) or from the file (then file is nil).
func (i Instance) profileOf(s, file settings) Profile {
	switch i.Client {
	case QBittorrent:
		if file == nil && !s.has("proxy_type") {
			return qbProfile(qbAsAPI(s), s)
		}
		return qbProfile(s, file)
	case Deluge:
		return delugeProfile(s)
	}
	return transmissionProfile(s)
}

// Read returns what the client's settings mean: from its API where it runs and
// answers (live), else from its file.
func (i Instance) Read(ctx context.Context) (p Profile, live bool, err error) {
	file, err := i.settings()
	if err != nil && !i.runs() {
		return p, false, err
	}
	fileErr := err
	if i.runs() {
		var a api
		if a, err = i.api(file); err == nil {
			var s settings
			if s, err = a.read(ctx); err == nil {
				if file == nil {
					file = make(settings)
				}
				return i.profileOf(s, file), true, nil
			}
		}
	}
	if file == nil {
		return p, false, errors.Join(err, fileErr)
	}
	return i.profileOf(file, nil), false, nil
}

var (
	errNoAPI   = errors.New("setup: it runs and listens nowhere to be told settings (qBittorrent does with its web interface on)")
	errNetwork = errors.New("setup: it runs in a network of its own")
)

// api returns the way to tell the client while it runs. On Linux it is made
// sure that it is the client who listens there.
func (i Instance) api(file settings) (api, error) {
	at := i.access.URL
	if at == "" {
		switch i.Client {
		case QBittorrent:
			at = qbURL(file)
		case Transmission:
			at = transmissionURL(file)
		case Deluge:
			at = delugeAddr(file, i.neighbour("deluged.pid"))
		}
		if at == "" {
			return nil, errNoAPI
		}
		if err := i.listensAt(at); err != nil {
			return nil, err
		}
	}
	user, password := i.access.User, i.access.Password
	switch i.Client {
	case QBittorrent:
		return &qbAPI{base: trimSlash(at), user: user, password: password, http: newHTTP(at)}, nil
	case Transmission:
		return &transmissionAPI{url: at, user: user, password: password, http: newHTTP(at)}, nil
	}
	if user == "" {
		var ok bool
		if user, password, ok = delugeLogin(i.neighbour("auth")); !ok {
			return nil, errLogin
		}
	}
	return &delugeAPI{addr: at, user: user, password: password}, nil
}

// listensAt returns nil unless somebody else than the client listens there.
func (i Instance) listensAt(at string) error {
	if !i.Process.SameNetwork() {
		return errNetwork
	}
	_, port, err := net.SplitHostPort(at)
	if u, e := url.Parse(at); e == nil && u.Host != "" {
		port, err = u.Port(), nil
	}
	if err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	sockets, err := i.Process.Sockets()
	if err != nil {
		return nil // it can't be seen
	}
	for _, s := range sockets {
		if s.Listening && strconv.Itoa(int(s.Local.Port())) == port {
			return nil
		}
	}
	return errNoAPI
}

func trimSlash(s string) string {
	for len(s) > 0 && s[len(s)-1] == '/' {
		s = s[:len(s)-1]
	}
	return s
}
