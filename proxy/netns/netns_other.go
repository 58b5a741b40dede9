//go:build !linux

package netns

import (
	"context"
	"net/netip"
)

// Init does nothing here.
func Init() {}

// Run returns ErrUnsupported.
func Run(context.Context, Config) (exitCode int, err error) { return ExitNotStarted, ErrUnsupported }

// Network never exists here.
type Network struct{}

// DialTCP returns ErrUnsupported.
func (*Network) DialTCP(context.Context, netip.AddrPort, uint16) (Conn, error) {
	return nil, ErrUnsupported
}

// WriteUDP returns ErrUnsupported.
func (*Network) WriteUDP([]byte, netip.AddrPort, netip.AddrPort) error { return ErrUnsupported }

// Published returns nothing.
func (*Network) Published() []netip.AddrPort { return nil }
