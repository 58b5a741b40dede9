package program

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/circuit/hop"
)

// Listen returns the IP:PORT of a flag, for a listener. localhost becomes
// 127.0.0.1; without an IP it is every address of the machine.
func Listen(c *cli.Context, flag string) (string, error) {
	s := c.String(flag)
	host, port, found := strings.Cut(s, ":")
	if found && (host == "" || strings.EqualFold(host, "localhost")) {
		if _, err := parsePort(port); err != nil {
			return "", addressError(flag, s, err)
		}
		if host == "" {
			return "0.0.0.0:" + port, nil
		}
		return "127.0.0.1:" + port, nil
	}
	a, err := parseAddrPort(s)
	if err != nil {
		return "", addressError(flag, s, fmt.Errorf("%w; want IP:PORT, e.g. %s", err, example(c.Command, flag)))
	}
	return a.String(), nil
}

// Loopback returns the IP:PORT of a flag, for a listener on loopback.
func Loopback(c *cli.Context, flag string) (string, error) {
	s, err := Listen(c, flag)
	if err != nil {
		return "", err
	}
	if a, err := netip.ParseAddrPort(s); err != nil || !a.Addr().IsLoopback() {
		return "", addressError(flag, c.String(flag), errors.New("not a loopback address, and only this machine may reach this port; use 127.0.0.1"))
	}
	return s, nil
}

// Advertise returns what --advertise sets: IP, IP:PORT or PORT. What is left out
// is zero.
func Advertise(c *cli.Context) (a netip.AddrPort, err error) {
	s := c.String("advertise")
	if s == "" {
		return a, nil
	}
	if a, err = hop.ParseAdvertise(s); err != nil {
		return a, Usagef("--advertise: %w; want the address at which others reach this machine, e.g. 203.0.113.5", err)
	}
	return a, nil
}

// Source returns the IP address of --source, after a look whether it is one of
// this machine. The zero Addr means that the flag is not set.
func Source(c *cli.Context) (netip.Addr, error) {
	s := c.String("source")
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		if _, err := netip.ParseAddrPort(s); err == nil {
			return a, addressError("source", s, errors.New("want an IP address without a port"))
		}
		return a, addressError("source", s, errors.New("not an IP address, e.g. 192.168.1.20; names are not looked up"))
	}
	if a.IsUnspecified() {
		return a, addressError("source", s, errors.New("it stands for every address: leave the flag out to let the system choose"))
	}
	// Nobody is sent anything: the socket is only bound.
	ln, err := net.Listen("tcp", netip.AddrPortFrom(a, 0).String())
	if err != nil {
		return a, fmt.Errorf("--source: %w", bindError(a.String(), err))
	}
	return a, ln.Close()
}

// parseAddrPort reads IP:PORT. Its error says which of the two is wrong.
func parseAddrPort(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	if err == nil {
		return a, nil
	}
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		if strings.Contains(s, ":") {
			return a, fmt.Errorf("the port is missing: IPv6 with a port is [%s]:PORT", strings.Trim(s, "[]"))
		}
		return a, errors.New("the port is missing")
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return a, errors.New("not an address with a port")
	}
	if _, err := netip.ParseAddr(host); err != nil {
		if strings.ContainsFunc(host, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }) {
			return a, fmt.Errorf("%s is not an IP address, and names are not looked up", host)
		}
		return a, fmt.Errorf("%s is not an IP address", host)
	}
	if _, err := parsePort(port); err != nil {
		return a, err
	}
	return a, errors.New("not an address with a port")
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("port %q is not a number from 0 to 65535", s)
	}
	return uint16(n), nil
}

// example returns a flag's default, which is a good example of its value.
func example(c *cli.Command, name string) string {
	for _, f := range c.Flags {
		if s, ok := f.(*cli.StringFlag); ok && s.Name == name {
			return s.Value
		}
	}
	return "127.0.0.1:1080"
}

func addressError(flag, s string, err error) error {
	return Usagef("--%s: address %s: %w", flag, s, err)
}
