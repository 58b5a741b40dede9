// Package setup finds the torrent clients on this computer, reads their
// settings, and writes those that make them fit for Shoal: through the client's
// own API while it runs, into its file while it doesn't. What was there before
// is kept for Undo.
// Not here: whether a client gives somebody away (package doctor).
//
// What decides (what is wanted, how a file changes, which file is a client's)
// is pure: qbittorrent.go, deluge.go, transmission.go, settings.go, ini.go,
// object.go, where.go. The I/O is beside it: find.go finds a client, reach.go
// chooses between its API (webui.go, rpc.go, daemon.go) and its file (file.go);
// plan.go, apply.go, undo.go and record.go change it.
package setup

import (
	"errors"
	"fmt"
	"net/netip"
)

// Client is a torrent client that this package knows.
type Client string

// The clients.
const (
	QBittorrent  Client = "qbittorrent"
	Deluge       Client = "deluge"
	Transmission Client = "transmission"
)

// Clients are all of them.
var Clients = []Client{QBittorrent, Deluge, Transmission}

// Title returns the name that the client has for its users.
func (c Client) Title() string {
	switch c {
	case QBittorrent:
		return "qBittorrent"
	case Deluge:
		return "Deluge"
	}
	return "Transmission"
}

// Want is what a client is to be set to.
type Want struct {
	SOCKS          netip.AddrPort // the sidecar's; not used for Transmission, which has no SOCKS for its peers
	User, Password string         // for it; mostly empty

	// KeepDHT leaves the DHT of qBittorrent and Deluge as it is. Without it
	// the DHT goes off, because they look up its first nodes in the system's
	// DNS. Transmission's is never touched: shoal run answers it.
	KeepDHT bool
}

func (w Want) check() error {
	if !w.SOCKS.IsValid() || w.SOCKS.Port() == 0 || w.SOCKS.Addr().IsUnspecified() {
		return fmt.Errorf("setup: %v is no address of a SOCKS proxy", w.SOCKS)
	}
	if w.User == "" && w.Password != "" {
		return errors.New("setup: a SOCKS password without a user name")
	}
	return nil
}

// HintError is an error with what the user can do about it.
type HintError struct {
	Err  error
	Hint string // one sentence
}

func (e *HintError) Error() string { return e.Err.Error() + "\n  " + e.Hint }

// Unwrap returns the error without the hint.
func (e *HintError) Unwrap() error { return e.Err }

func hint(h string, format string, args ...any) error {
	return &HintError{fmt.Errorf(format, args...), h}
}
