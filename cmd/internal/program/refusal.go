package program

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/circuit/state"
)

// Several says how to run a second program of a kind beside the first.
type Several struct {
	What  string   // what one is called, e.g. "sidecar"
	Flags []string // the flags that need other values, with an example of each, e.g. "--socks 127.0.0.1:1082"
}

// Explain words, for the user, an error with which the system refused the start
// of c's command: a state folder in use, or an address on which it can't listen.
func Explain(c *cli.Context, err error, s Several) error {
	if errors.Is(err, state.ErrInUse) {
		return fmt.Errorf("another %s uses the state folder %s; to run a second one give it its own %s", s.What, c.String("state"), strings.Join(s.Flags, " "))
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "listen" && op.Addr != nil {
		flag := listener(c, op.Addr.String())
		if flag == "" {
			return err
		}
		err = fmt.Errorf("--%s: %w", flag, bindError(op.Addr.String(), op.Err))
		if errors.Is(err, errInUse) {
			err = fmt.Errorf("%w; choose another port, or to run a second %s give it its own %s", err, s.What, strings.Join(s.Flags, " "))
		}
		if errors.Is(err, errNotOurs) && hasFlag(c, "advertise") {
			err = fmt.Errorf("%w; if others reach this machine at that address, listen on 0.0.0.0 and set --advertise to it", err)
		}
		return err
	}
	return err
}

// listener returns the flag that named addr.
func listener(c *cli.Context, addr string) string {
	for _, name := range []string{"listen", "socks", "status"} {
		if s, err := Listen(c, name); err == nil && s == addr {
			return name
		}
	}
	if len(c.StringSlice("publish")) > 0 {
		return "publish"
	}
	return ""
}

func hasFlag(c *cli.Context, name string) bool {
	return slices.Contains(flagNames(c.Command.Flags), name)
}

// The reasons for which a socket can't be bound, on which Explain adds what to do.
var (
	errInUse   = errors.New("in use")
	errNotOurs = errors.New("not an address of this machine")
)

// bindError words why a socket can't be bound to addr.
func bindError(addr string, err error) error {
	switch {
	case errors.Is(err, addressInUse):
		return fmt.Errorf("%s is %w%s", addr, errInUse, holder(addr))
	case errors.Is(err, addressNotOurs):
		return fmt.Errorf("%s is %w, which has %s", hostOf(addr), errNotOurs, strings.Join(ownAddresses(), ", "))
	case errors.Is(err, notAllowed) && privileged(addr):
		return fmt.Errorf("%s: ports below 1024 are reserved for root: choose another one%s", addr, grant())
	}
	if sys, ok := errors.AsType[*os.SyscallError](err); ok {
		err = sys.Err
	}
	return fmt.Errorf("%s: %w", addr, err)
}

func hostOf(addr string) string {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		return a.Addr().String()
	}
	return addr
}

func privileged(addr string) bool {
	a, err := netip.ParseAddrPort(addr)
	return err == nil && a.Port() < 1024
}

// shown is how many addresses of the machine an error lists.
const shown = 6

// ownAddresses returns addresses of this machine.
func ownAddresses() (out []string) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return []string{"others"}
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Addr().String())
		}
	}
	if len(out) > shown {
		out = append(out[:shown], "…")
	}
	if len(out) == 0 {
		return []string{"none now"}
	}
	return out
}
