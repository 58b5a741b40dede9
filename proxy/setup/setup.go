// Package setup finds the torrent clients on this computer, reads their
// settings, and changes those that make a client fit for Shoal: through the
// client's own API while it runs, in its file while it doesn't. It keeps what
// was there before, for Undo.
// Not here: whether a client gives its user away (package doctor).
//
// client.go says what a client is, and each client has a file of its own.
// find.go finds clients, reach.go reads their settings, plan.go, apply.go,
// undo.go and record.go change them, sidecar.go asks what listens where the
// sidecar should.
package setup

import (
	"errors"
	"fmt"
	"net/netip"
)

// Want is what a client is to be set to.
type Want struct {
	SOCKS          netip.AddrPort // the sidecar's; not used for clients without SOCKS
	User, Password string         // for it; mostly empty

	// KeepDHT leaves the DHT as it is. Without it the DHT goes off in clients
	// that look up its first nodes in the system's DNS. The DHT of clients without
	// SOCKS is never changed: shoal run answers it.
	KeepDHT bool

	// KeepHTTPS leaves the check of HTTPS trackers' certificates as it is.
	KeepHTTPS bool

	// KeepBound leaves the network interface or address that the client is bound
	// to. Nothing is transferred then.
	KeepBound bool
}

func (w Want) check() error {
	if !w.SOCKS.IsValid() || w.SOCKS.Port() == 0 || w.SOCKS.Addr().IsUnspecified() {
		return fmt.Errorf("setup: %v is no address of a SOCKS proxy", w.SOCKS)
	}
	if w.SOCKS.Addr() == netip.IPv6Loopback() {
		return hint("Use 127.0.0.1.", "setup: %v: clients can't send UDP to a proxy at ::1", w.SOCKS)
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
