// Package tor runs a private Tor network on this machine, for comparison: three
// authorities, six relays, a client and an onion service, each a process of the
// distribution's own tor, on 127.0.0.1 alone.
// Not here: what is sent through it (package peer).
package tor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-p2p/shoal/integration/process"
)

const (
	authorities = 3
	relays      = 6
)

// Config says which network to start.
type Config struct {
	Dir    string // for keys, logs and caches; made if missing
	Target string // HOST:PORT that the onion service leads to

	// Tuned sets what made Tor fastest of all that was tried: cells are written
	// at once instead of at the scheduler's tick, and the congestion window is
	// wide from the start. Not for a real network: both serve its fairness.
	Tuned bool
}

// Net is a running network.
type Net struct {
	SOCKS string // of the client
	Onion string // the service as the client dials it, HOST:PORT

	dir   string
	procs []*process.Process
}

// ErrMissing is what Start returns where tor is not installed.
var ErrMissing = errors.New("tor is not installed")

// program finds an executable, also where daemons live.
func program(name string) (string, error) {
	for _, name := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrMissing
}

// Version returns which tor is installed.
func Version() (string, error) {
	tor, err := program("tor")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(tor, "--version").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSuffix(line, "."), err
}

// Start starts a network and returns once its client has bootstrapped. When the
// service can be reached, whoever dials it has to find out. On an error nothing
// is left.
func Start(ctx context.Context, c Config) (n *Net, err error) {
	n = &Net{dir: c.Dir}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("tor: %w", err), n.Close())
		}
	}()
	members, err := plan(ctx, c, n)
	if err != nil {
		return n, err
	}
	if err := awaitVote(ctx); err != nil {
		return n, err
	}
	for _, m := range members {
		if err := n.start(m); err != nil {
			return n, err
		}
	}
	err = process.Until(ctx, 200*time.Millisecond, func() (bool, error) {
		log, err := os.ReadFile(n.path("client", "log"))
		return strings.Contains(string(log), "Bootstrapped 100%"), err
	}, n.procs...)
	if err != nil {
		return n, fmt.Errorf("bootstrap: %w", err)
	}
	name, err := os.ReadFile(n.path("service", "onion", "hostname"))
	n.Onion = net.JoinHostPort(strings.TrimSpace(string(name)), onionPort)
	return n, err
}

// awaitVote returns when there is time enough before the authorities' next vote
// for all relays to be in it: who misses the first waits for a minute.
func awaitVote(ctx context.Context) error {
	now := time.Now()
	last := now.Truncate(firstVote)
	if now.Sub(last) < firstVote/5 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(last.Add(firstVote).Sub(now)):
		return nil
	}
}

// PIDs returns the process ids of all: which of them are on a path, none tells.
func (n *Net) PIDs() (pids []int) {
	for _, p := range n.procs {
		pids = append(pids, p.PID())
	}
	return pids
}

// Close stops everything and returns when it is gone.
func (n *Net) Close() error { return process.StopAll(n.procs) }

func (n *Net) path(name ...string) string {
	return filepath.Join(append([]string{n.dir}, name...)...)
}

// start starts a member with its torrc.
func (n *Net) start(m member) error {
	torrc := n.path(m.name, "torrc")
	if err := os.WriteFile(torrc, []byte(strings.Join(m.lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	tor, err := program("tor")
	if err != nil {
		return err
	}
	cmd := exec.Command(tor, "-f", torrc, "--defaults-torrc", n.path("none"))
	p, err := process.Start("tor "+m.name, cmd, n.path(m.name, "log"))
	if err != nil {
		return err
	}
	n.procs = append(n.procs, p)
	return nil
}
