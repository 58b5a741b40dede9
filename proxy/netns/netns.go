// Package netns runs a command in a user, mount and network namespace of its
// own whose only way out is a TCP/IP stack inside this process: what the
// command sends meets a Handler or nobody. Linux only.
// Not here: what the traffic means (the Handler's business), flags (cmd/shoal).
//
// Three processes of this one program take part:
//
//	Run     the caller's. It serves the namespace's one interface (stack_linux.go)
//	        and never enters the namespace.
//	inside  Run's child, the first process in the namespaces. It makes the
//	        interface, hides what resolves names over Unix sockets, passes the
//	        interface's file descriptor to Run, starts the command and waits for
//	        all that the command leaves behind.
//	command inside's child. It gives up every capability over the namespaces,
//	        then becomes the command.
//
// The two children are this executable started again with another name, which
// is what Init at the top of main is for.
//
// The interface is a TUN. Where the user may not open /dev/net/tun it is one
// end of a veth pair whose other end, in the same namespace, has no address;
// a packet socket there reads and writes what the TUN's file would have. Both
// ways nothing else than loopback exists in the namespace, and the command
// can't add anything: there is no route to leak by, whatever it does.
//
// Unix sockets don't belong to a network namespace, so those behind which some
// daemon would resolve a name for the command are not there for it: /run holds
// what was in it at the start except for these.
package netns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Conn is a TCP connection of the command's, as the process outside holds it.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// Handler is what a namespace's traffic meets. Its methods are called
// concurrently. DNS doesn't reach it, only the names do.
type Handler interface {
	// TCP decides about a connection that the command opens from src to dst,
	// any address and port. It may take its time: the command's connect waits
	// so long. An error refuses the connection; else serve is called with it
	// once it stands, owns it, and returns when done with it. ctx ends with
	// the namespace. TCP's port 53 does not come here.
	//
	// Each Write to the connection is at least one packet, which costs the
	// same whatever it holds: pieces of 64 KiB go four times as fast as pieces
	// of 4 KiB (BenchmarkBulk).
	TCP(ctx context.Context, src, dst netip.AddrPort) (serve func(Conn), err error)

	// UDP takes a datagram that the command sent from src to dst, and owns
	// payload. It must not block: it is called by the reader of the interface.
	// Network.WriteUDP sends whatever there is to answer.
	UDP(payload []byte, src, dst netip.AddrPort)

	// Name returns the IPv4 address that name (lower case, without the last
	// dot) has inside the namespace, or the zero Addr for no such name. It
	// must not block for long: clients stall on a slow resolver.
	Name(name string) netip.Addr
}

// Config is what Run needs. Command and Handler must be set.
type Config struct {
	// Command is the program, looked up in PATH, and its arguments.
	Command []string

	// Dir is where it starts. Empty means the working folder of this process.
	Dir string

	// Env is its environment; nil means this process's. Variables that name a
	// proxy (http_proxy, ALL_PROXY …) are left out: nothing at such an address
	// could be reached.
	Env []string

	// Stdin, Stdout and Stderr are the command's; nil means those of this
	// process. A terminal stays one when they are files.
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	// Publish lists ports of the host that lead to the command. Say is told
	// the URL of each when the command listens there.
	Publish []Publish

	// Trust is the certificate, in PEM, of the one authority that the command
	// is to trust. It lies over those that the system trusts. Nil leaves them.
	Trust []byte

	// Interface and Addr are the name and the address of the command's only
	// interface, for a command whose own settings bind it to one. The zero
	// values are DefaultInterface and ClientAddr.
	Interface string
	Addr      netip.Addr

	// Handler meets the traffic.
	Handler Handler

	// Ready, if set, is called when the namespace stands, and the command
	// starts once it has returned. The Network may be used from then until Run
	// returns. ctx ends when the command is not to start any more.
	Ready func(ctx context.Context, n *Network)

	// Grace is how long the command has between being asked to end and being
	// killed. Zero means DefaultGrace.
	Grace time.Duration

	// Say prints what the user should know, one line without its end. Nil
	// means stderr, as "shoal: …".
	Say func(line string)

	noTUN bool // tests: take the veth pair although there is a TUN
}

// Supervisor is the name of the process that confines a command, and is in the
// command's network.
const Supervisor = "shoal-run-inside"

// DefaultInterface is the name of the command's interface.
const DefaultInterface = "shoal0"

// DefaultGrace leaves a second of the promised eight for the rest.
const DefaultGrace = 7 * time.Second

// Exit codes of Run when the command never ran, as shells have them.
const (
	ExitNotStarted = 125 // no namespace, no command
	ExitNotRunable = 126 // found, but it can't be executed
	ExitNotFound   = 127 // no such command
)

var (
	// ErrNotAllowed is inside the error of a Run that this system's settings
	// forbid; its text says which setting. Tests skip on it.
	ErrNotAllowed = errors.New("this system doesn't let you make namespaces")

	// ErrUnsupported is what Run returns where there are no namespaces.
	ErrUnsupported = errors.New("netns: shoal run needs Linux")

	// ErrClosed is what a Network's methods return once its command ended.
	ErrClosed = errors.New("netns: the namespace is gone")
)

// The addresses that mean something inside; all others are the Handler's.
var (
	// ClientAddr is the command's own address on its interface, unless
	// Config.Addr is another.
	ClientAddr = netip.AddrFrom4([4]byte{10, 64, 0, 2})

	// ResolverAddr is the nameserver of the namespace's resolv.conf. Port 53
	// is answered at every address, this one is only where to look first.
	ResolverAddr = netip.AddrFrom4([4]byte{10, 64, 0, 1})
)

// Publish is one port of the host that leads to 127.0.0.1 inside a namespace.
type Publish struct {
	Host netip.AddrPort // where this process listens; port 0 means a free one
	Port uint16         // the command's port
}

// ParsePublish reads [HOST:]PORT[:CLIENTPORT]. HOST is an address, brackets
// around IPv6, or "localhost", which it is when left out; CLIENTPORT is PORT
// when left out. Names aren't resolved.
func ParsePublish(s string) (Publish, error) {
	bad := func(why string) (Publish, error) {
		return Publish{}, fmt.Errorf("publish %q: %s; want [HOST:]PORT[:CLIENTPORT]", s, why)
	}
	host, rest := netip.AddrFrom4([4]byte{127, 0, 0, 1}), s
	if first, after, more := cutHost(s); more {
		if first != "localhost" {
			a, err := netip.ParseAddr(strings.Trim(first, "[]"))
			if err != nil || a.Zone() != "" || (a.Is6() != strings.HasPrefix(first, "[")) {
				return bad("HOST must be an address")
			}
			host = a
		}
		rest = after
	}
	port, client, both := strings.Cut(rest, ":")
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return bad("PORT must be a number up to 65535")
	}
	c := p
	if both {
		if c, err = strconv.ParseUint(client, 10, 16); err != nil {
			return bad("CLIENTPORT must be a number up to 65535")
		}
	}
	if c == 0 {
		return bad("CLIENTPORT can't be 0")
	}
	return Publish{Host: netip.AddrPortFrom(host, uint16(p)), Port: uint16(c)}, nil
}

// ParseInterface reads NAME[=ADDRESS], for Config.Interface and Config.Addr.
func ParseInterface(s string) (name string, addr netip.Addr, err error) {
	name, address, both := strings.Cut(s, "=")
	if both {
		if addr, err = netip.ParseAddr(address); err != nil {
			return "", addr, fmt.Errorf("%q is no address; want NAME[=ADDRESS], e.g. wg0=10.2.0.2", address)
		}
	}
	return name, addr, checkInterface(name, addr)
}

// checkInterface returns an error unless the command's interface can have that
// name and that address, or be left to the defaults.
func checkInterface(name string, addr netip.Addr) error {
	switch {
	case !isInterface(name):
		return fmt.Errorf("%q can't be an interface's name: want up to 15 letters, digits, dots, dashes and underscores, and not lo", name)
	case addr.IsValid() && (!addr.Is4() || !addr.IsGlobalUnicast() || addr == ResolverAddr):
		return fmt.Errorf("%v can't be an interface's address: want an IPv4 address of one machine, and not %v", addr, ResolverAddr)
	}
	return nil
}

// isInterface reports whether a network interface of the command can have a name.
func isInterface(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	return name != "" && name != "lo" && name != peerName && strings.Trim(name, ".") != "" &&
		len(name) <= 15 && strings.Trim(name, letters) == ""
}

// cutHost splits HOST off s. A first part of digits is a port.
func cutHost(s string) (host, rest string, found bool) {
	if strings.HasPrefix(s, "[") {
		if end := strings.Index(s, "]:"); end > 0 {
			return s[:end+1], s[end+2:], true
		}
		return s, "", true
	}
	host, rest, found = strings.Cut(s, ":")
	if !found || strings.Trim(host, "0123456789") == "" {
		return "", s, false
	}
	return host, rest, true
}

// String is the form that ParsePublish reads.
func (p Publish) String() string { return fmt.Sprintf("%v:%d", p.Host, p.Port) }

func (c *Config) check() error {
	switch {
	case len(c.Command) == 0 || c.Command[0] == "":
		return errors.New("netns: no command")
	case c.Handler == nil:
		return errors.New("netns: no handler")
	}
	if err := checkInterface(cmp.Or(c.Interface, DefaultInterface), c.Addr); err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	for _, p := range c.Publish {
		if !p.Host.Addr().IsValid() || p.Port == 0 {
			return fmt.Errorf("netns: publish %v: no address, or no port of the command", p)
		}
	}
	return nil
}

// peerName is the name of the veth pair's other end.
const peerName = "shoal1"
