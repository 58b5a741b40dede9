package setup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
)

// Read returns what the client's settings mean: from its API where it runs and
// answers (live), else from its file.
func (i Instance) Read(ctx context.Context) (p Profile, live bool, err error) {
	c, ok := i.Client.(configurable)
	if !ok {
		return p, false, nil
	}
	var s seen
	var fileErr error
	if s.file, fileErr = i.settings(); fileErr != nil && !i.runs() {
		return p, false, fileErr
	}
	if i.runs() {
		if s.api, err = i.ask(ctx, c, s.file); err == nil {
			return c.profile(s), true, nil
		}
	}
	if s.file == nil {
		return p, false, errors.Join(err, fileErr)
	}
	return c.profile(s), false, nil
}

func (i Instance) ask(ctx context.Context, c configurable, file settings) (settings, error) {
	a, err := i.api(c, file)
	if err != nil {
		return nil, err
	}
	return a.read(ctx)
}

var (
	errNoAPI   = errors.New("setup: it runs, and has no interface open by which settings can be changed (qBittorrent has its Web UI)")
	errNetwork = errors.New("setup: it runs in a network of its own")
)

// api returns the way to change the client while it runs. On Linux it is made
// sure that it is the client that listens there.
func (i Instance) api(c configurable, file settings) (api, error) {
	at := i.access.URL
	if at == "" {
		if at = c.address(i, file); at == "" {
			return nil, errNoAPI
		}
		if err := i.listensAt(at); err != nil {
			return nil, err
		}
	}
	return c.open(at, i)
}

// listensAt returns nil unless the client can be seen not to listen there.
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

// runs reports whether the client runs, as far as is known.
func (i Instance) runs() bool { return i.Process != nil || i.access.URL != "" }

func (i Instance) mustClose(err error) error {
	if errors.Is(err, ErrLogin) {
		return &HintError{err, "Give --login NAME and the password; or close " + i.Client.Title() + " and run this again."}
	}
	return &HintError{err, "Close " + i.Client.Title() + " and run this again: while it runs it would overwrite its file."}
}
