package main

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/shoal-p2p/shoal/cmd/internal/program"
	"github.com/shoal-p2p/shoal/proxy"
	"github.com/shoal-p2p/shoal/proxy/setup"
)

// askTimeout bounds the talk with a client that runs.
const askTimeout = 30 * time.Second

// The flags that say which client is meant, and how to reach it.
var accessFlags = []cli.Flag{
	&cli.IntFlag{Name: "pid", Usage: "process `ID` of the client, if several run", DefaultText: "the only one", Action: program.Between("pid", 1, 1<<22)},
	&cli.StringFlag{Name: "config", Usage: "settings `FILE` of the client, if not in its default place"},
	&cli.StringFlag{Name: "url", Usage: "`URL` of qBittorrent's Web UI or Transmission's RPC, or HOST:PORT of Deluge's daemon, e.g. http://127.0.0.1:8080 (default: read from its settings)"},
	&cli.StringFlag{Name: "login", Usage: "user `NAME` for the client's Web UI, RPC or daemon (default: asked for if needed)"},
	&cli.StringFlag{Name: "login-password-file", Usage: "`FILE` with the password for --login (default: asked for if needed)"},
}

func access(c *cli.Context) (setup.Access, error) {
	a := setup.Access{Config: c.String("config"), PID: c.Int("pid"), URL: c.String("url"), User: c.String("login")}
	var err error
	a.Password, err = program.PasswordFile(c, "login-password-file")
	return a, err
}

// socksAddr returns the sidecar's address.
func socksAddr(c *cli.Context) (netip.AddrPort, error) {
	s := c.String("socks")
	if port, ok := strings.CutPrefix(s, "localhost:"); ok {
		s = "127.0.0.1:" + port
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 || a.Addr().IsUnspecified() {
		return a, program.Usagef("--socks: %q is not an address with a port, e.g. %s", s, proxy.DefaultSOCKS)
	}
	return a, nil
}

// clientNames returns the names of all clients, in a sentence.
func clientNames(last string) string {
	var names []string
	for _, c := range setup.Clients() {
		names = append(names, c.Name())
	}
	n := len(names) - 1
	return strings.Join(names[:n], ", ") + " " + last + " " + names[n]
}

// terminal is the user, where one can be asked.
type terminal struct{ lines *bufio.Reader }

// user returns the terminal of this process; ok is false where there is none.
func user() (t terminal, ok bool) {
	return terminal{bufio.NewReader(os.Stdin)}, term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
}

// line asks for a line; "" is the answer of an input that ends.
func (t terminal) line(question string) string {
	fmt.Print(question)
	s, err := t.lines.ReadString('\n')
	if err != nil {
		fmt.Println()
	}
	return strings.TrimSpace(s)
}

// password asks for a password, which the terminal does not show.
func (t terminal) password(question string) (string, error) {
	fmt.Print(question)
	b, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Println()
	if err != nil {
		return "", fmt.Errorf("no password was read: %w", err)
	}
	return string(b), nil
}

// login asks for a user name, where it is not known, and a password.
func (t terminal) login(of, name string) (user, password string, err error) {
	fmt.Printf("%s asks for a login.\n", of)
	if user = name; user == "" {
		if user = t.line("User name: "); user == "" {
			return "", "", errors.New("no user name was given: nothing was changed")
		}
	}
	password, err = t.password("Password (not shown): ")
	return user, password, err
}

// find returns the client that is meant. Where several could be, it asks.
func find(client setup.Client, a setup.Access) (setup.Instance, error) {
	i, err := setup.Find(client, a)
	several, ok := errors.AsType[*setup.SeveralError](err)
	if !ok {
		return i, err
	}
	t, ok := user()
	if !ok {
		return i, err
	}
	fmt.Printf("Which %s?\n", client.Title())
	for n, i := range several.Of {
		fmt.Printf("  %d  %v\n", n+1, i)
	}
	n, err := strconv.Atoi(t.line(fmt.Sprintf("Number [1-%d]: ", len(several.Of))))
	if err != nil || n < 1 || n > len(several.Of) {
		return i, errors.New("none was chosen: nothing was changed")
	}
	return several.Of[n-1].Reached(a), nil
}
