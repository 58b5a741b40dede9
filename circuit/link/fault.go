package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
)

// dialFault returns why no connection could be made. What the system says of
// it may hold an address, and is below the fault only.
func dialFault(err error, addr netip.AddrPort) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if _, ok := errors.AsType[*fault.Fault](err); ok {
		return err
	}
	c, why := fault.Other, err.Error()
	if op, ok := errors.AsType[*net.OpError](err); ok {
		why = op.Err.Error()
	}
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		c, why = errnos[no], no.Error()
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		c = fault.Timeout
	}
	if c == fault.NoNetwork && addr.Addr().Is6() {
		c = fault.NoIPv6
	}
	return dialled(c, why, err)
}

const (
	adviceWait    = "Shoal keeps trying. If this stays, check this computer's network and firewall, and ask whoever gave you the network file for a new one."
	adviceNetwork = "Check this computer's cable, Wi-Fi or VPN. Shoal goes on by itself."
	adviceFile    = "The address in the network file is old or wrong: ask whoever gave it to you for a new one."
)

func dialled(c fault.Cause, why string, err error) error {
	switch c {
	case fault.NoNetwork:
		return fault.New(c, "this computer has no network: there is no route to {who}", adviceNetwork, err)
	case fault.NoIPv6:
		return fault.New(c, "this computer has no IPv6 network, and {who} has an IPv6 address", "Relays with IPv4 addresses are tried, too. Check this computer's network.", err)
	case fault.Unreachable:
		return fault.New(c, "the network reports no way to {who}", adviceWait, err)
	case fault.Source:
		return wrongSource("is none of this computer's", err)
	case fault.Blocked:
		return fault.New(c, "this system forbids connections to {who}", "Allow this program to connect in the system's firewall or sandbox.", err)
	case fault.NoSockets:
		return fault.New(c, "this system gives the program no more sockets ("+why+")", "Raise its limit of open files: ulimit -n in a shell, LimitNOFILE= in a systemd unit.", err)
	case fault.Refused:
		return fault.New(c, "{who} refuses connections: nothing listens at its address", "It may be restarting; Shoal keeps trying. If this stays: "+lower(adviceFile), err)
	case fault.Timeout:
		return fault.New(c, "{who} does not answer: it is down, or something on the way blocks the connection", adviceWait, err)
	}
	return fault.New(fault.Other, "no connection to {who}: "+why, adviceWait, err)
}

// wrongSource is an address to dial from that can't be dialled from.
func wrongSource(why string, err error) error {
	return fault.New(fault.Source, "the address to dial from, --source, "+why, "Give --source another of this computer's addresses, or leave it out.", err)
}

func lower(s string) string { return string(s[0]+'a'-'A') + s[1:] }

// handshakeFault returns why a connection became no link.
func handshakeFault(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if _, ok := errors.AsType[*fault.Fault](err); ok {
		return err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.Timeout, "{who} takes the connection and then does not answer", adviceWait, err)
	case hungUp(err):
		return fault.New(fault.Closed, "{who} closes the connection at once: it is full or stopping, or is no relay or tracker", adviceWait, err)
	}
	return foreign(err.Error(), err)
}

// hungUp reports whether err is the connection's end. On Windows the error
// numbers have other names.
func hungUp(err error) bool {
	no, _ := errors.AsType[syscall.Errno](err)
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed) || errnos[no] == fault.Closed
}

func foreign(why string, err error) error {
	return fault.New(fault.Foreign, "something other than Shoal answers at the address of {who} ("+why+")",
		"If this network has a login page, as hotels do, log in. Otherwise: "+lower(adviceFile), err)
}

// wrongKey is another relay or tracker where one was expected.
func wrongKey() error {
	return fault.New(fault.WrongKey, "{who} shows another key than the network file or the trackers name",
		"It was set up anew, or something on the way poses as it. Ask whoever gave you the network file for a new one.", nil)
}

// wrongVersion is a side that speaks another version of the protocol.
func wrongVersion(theirs byte) error {
	text := fmt.Sprintf("{who} speaks version %d of the protocol, this program version %d", theirs, version)
	if theirs > version {
		return fault.New(fault.Version, text, "This program is the older one: update it.", nil)
	}
	return fault.New(fault.Version, text, "The other side is the older one: it has to be updated by whoever runs it. Until then use a release of this program from the same time.", nil)
}

// endFault returns why a link is over that stood.
func endFault(err error) error {
	no, _ := errors.AsType[syscall.Errno](err)
	switch {
	case err == nil:
		return nil
	case hungUp(err):
		return fault.New(fault.Closed, "{who} closed the link", adviceWait, err)
	case errnos[no] != "":
		return dialled(errnos[no], no.Error(), err)
	}
	return err
}

// silence is a link on which nothing came for holdTime.
func silence() error {
	return fault.New(fault.Silent, fmt.Sprintf("nothing has come from {who} for %d s", holdTime/time.Second), adviceNetwork, nil)
}
