package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-p2p/shoal/proxy/proc"
)

// Answer is what a client gets from the address where a SOCKS5 proxy should be.
type Answer uint8

// The answers.
const (
	Silence       Answer = iota // it can't be reached
	Nobody                      // nothing listens there
	Foreign                     // what listens there speaks no SOCKS5, or hangs
	Served                      // it is a SOCKS5 proxy, and takes the client
	LoginMissing                // it wants a password, and the client offers none
	LoginRejected               // it wants another password
)

// SOCKS5 reports whether the answer is a SOCKS5 proxy's.
func (a Answer) SOCKS5() bool { return a >= Served }

const knockTimeout = 5 * time.Second

// Knock greets a proxy as a client with that login does; without a user name it
// offers none. It asks the proxy for nothing.
func Knock(ctx context.Context, at netip.AddrPort, user, password string) Answer {
	return knock(ctx, at, func(conn io.ReadWriter) Answer { return greet(conn, user, password) })
}

// Look greets a proxy only to see that it is one, and gives no login. Unlike an
// empty Knock it is no client without a password to a sidecar that wants one.
func Look(ctx context.Context, at netip.AddrPort) Answer {
	return knock(ctx, at, look)
}

func knock(ctx context.Context, at netip.AddrPort, greet func(io.ReadWriter) Answer) Answer {
	ctx, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
	if errors.Is(err, syscall.ECONNREFUSED) {
		return Nobody
	}
	if err != nil {
		return Silence
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return greet(conn)
}

// The parts of SOCKS5 that a greeting takes (RFC 1928, RFC 1929).
const (
	socksVersion  = 5
	methodNone    = 0
	methodLogin   = 2
	methodRefused = 0xff
	loginVersion  = 1
	maxLogin      = 255 // bytes of a name or password
)

// look returns Served for whatever is SOCKS5, and else Foreign.
func look(conn io.ReadWriter) Answer {
	answer, err := exchange(conn, []byte{socksVersion, 2, methodNone, methodLogin})
	if err != nil || answer[0] != socksVersion || answer[1] != methodNone && answer[1] != methodLogin && answer[1] != methodRefused {
		return Foreign
	}
	return Served
}

// greet returns Foreign for whatever is no SOCKS5.
func greet(conn io.ReadWriter, user, password string) Answer {
	method := byte(methodNone)
	if user != "" {
		method = methodLogin
	}
	switch answer, err := exchange(conn, []byte{socksVersion, 1, method}); {
	case err != nil || answer[0] != socksVersion:
		return Foreign
	case answer[1] == methodRefused && user == "":
		return LoginMissing
	case answer[1] == methodRefused:
		return Foreign // Shoal's takes any name when it wants no password
	case answer[1] != method:
		return Foreign
	case user == "":
		return Served
	}
	if len(user) > maxLogin || len(password) > maxLogin {
		return LoginRejected
	}
	login := append([]byte{loginVersion, byte(len(user))}, user...)
	login = append(append(login, byte(len(password))), password...)
	switch answer, err := exchange(conn, login); {
	case err != nil || answer[0] != loginVersion:
		return Foreign
	case answer[1] != 0:
		return LoginRejected
	}
	return Served
}

// exchange sends b and reads an answer of two bytes.
func exchange(conn io.ReadWriter, b []byte) (answer [2]byte, err error) {
	if _, err = conn.Write(b); err != nil {
		return answer, err
	}
	_, err = io.ReadFull(conn, answer[:])
	return answer, err
}

// Sidecar is a `shoal proxy` that runs on this computer.
type Sidecar struct {
	Process proc.Process
	Listens []netip.AddrPort // its SOCKS proxy and its status page, in any order
}

// Sidecars returns those that run here, as far as can be seen.
func Sidecars() []Sidecar {
	all, err := proc.List()
	if err != nil {
		return nil
	}
	var out []Sidecar
	for _, p := range all {
		if name := base(p.Args[0]); name != "shoal" && name != "shoal.exe" || len(p.Args) < 2 || p.Args[1] != "proxy" {
			continue
		}
		out = append(out, Sidecar{p, Listening(p)})
	}
	return out
}

// Listening returns where a process accepts TCP connections, as far as can be
// seen.
func Listening(p proc.Process) (all []netip.AddrPort) {
	sockets, err := p.Sockets()
	if err != nil {
		return nil
	}
	for _, s := range sockets {
		if s.Listening && !slices.Contains(all, s.Local) {
			all = append(all, s.Local)
		}
	}
	return all
}

// Holder returns the program that accepts connections at an address of this
// computer, as "nginx (pid 7)"; "" when that can't be seen.
func Holder(at netip.AddrPort) string {
	p, ok := proc.Listener(at)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s (pid %d)", base(p.Args[0]), p.PID)
}

// RunCommand returns the command that starts the client under shoal run: with
// the arguments that it runs with now, and with the network of a sidecar here,
// where these can be seen.
func (i Instance) RunCommand() string { return i.runCommand(network(Sidecars())) }

func (i Instance) runCommand(network string) string {
	command := []string{"shoal", "run", network}
	if c, ok := i.Client.(configurable); ok {
		if file, err := i.settings(); err == nil && file != nil {
			if port := c.profile(seen{file: file}).ControlPort; port != 0 {
				command = append(command, fmt.Sprintf("--publish %d", port))
			}
		}
	}
	command = append(command, "--")
	if i.Process == nil || !slices.Contains(i.Client.programs(), base(i.Process.Args[0])) {
		return strings.Join(append(command, i.Client.Command()), " ")
	}
	for _, a := range i.Process.Args {
		command = append(command, quote(a))
	}
	return strings.Join(command, " ")
}

// network returns the flags by which shoal run joins the network of the only
// sidecar that runs here.
func network(all []Sidecar) string {
	const unknown = "--network FILE"
	if len(all) != 1 {
		return unknown
	}
	p := all[0].Process
	if file := option(p.Args[2:], "--network", ""); file != "" {
		if !filepath.IsAbs(file) {
			file = p.Path(file)
		}
		return "--network " + quote(file)
	}
	var links []string
	for i := range p.Args {
		if link := option(p.Args[i:], "--tracker", ""); link != "" && !slices.Contains(links, "--tracker "+quote(link)) {
			links = append(links, "--tracker "+quote(link))
		}
	}
	return first(strings.Join(links, " "), unknown)
}

// quote returns an argument as a shell reads it.
func quote(s string) string {
	plain := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./=:,@+", r))
	}
	if s != "" && !strings.ContainsFunc(s, plain) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
