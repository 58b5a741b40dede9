package setup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/shoal-p2p/shoal/proxy/setup/deluge"
)

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
		return &qbAPI{base: strings.TrimRight(at, "/"), user: user, password: password, http: newHTTP(at)}, nil
	case Transmission:
		return &transmissionAPI{url: at, user: user, password: password, http: newHTTP(at)}, nil
	}
	if user == "" {
		var ok bool
		if user, password, ok = delugeLogin(i.neighbour("auth")); !ok {
			return nil, errLogin
		}
	}
	return &delugeAPI{deluge.Daemon{Addr: at, User: user, Password: password}}, nil
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

// runs says if the client runs, as far as is known.
func (i Instance) runs() bool { return i.Process != nil || i.access.URL != "" }

func (i Instance) mustClose(err error) error {
	if errors.Is(err, errLogin) {
		return &HintError{err, "Give --login and --login-password-file; or close " + i.Client.Title() + " and say this again."}
	}
	return &HintError{err, "Close " + i.Client.Title() + " and say this again: while it runs it would overwrite its file."}
}
