// Package tor runs a private Tor network on this machine, for comparison: three
// authorities, six relays, a client and an onion service, each a process of the
// distribution's own tor, on 127.0.0.1 alone.
// Not here: what is sent through it (package peer).
package tor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
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

	config  Config
	program string
	procs   []*process.Process
	client  *process.Process
	lines   []string // of every torrc: who the authorities are
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

// Version returns the first line of tor --version.
func Version() (string, error) {
	tor, err := program("tor")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(tor, "--version").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSuffix(line, "."), err
}

// Start starts a network and returns once its client has bootstrapped. That
// the service can be reached, whoever dials it has to see. On an error nothing
// is left.
func Start(ctx context.Context, c Config) (n *Net, err error) {
	n = &Net{config: c}
	if n.program, err = program("tor"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("tor: %w", err), n.Close())
			n = nil
		}
	}()
	if err := n.plan(ctx); err != nil {
		return n, err
	}
	for _, m := range n.members() {
		if err := m.start(); err != nil {
			return n, err
		}
	}
	err = process.Until(ctx, 200*time.Millisecond, func() (bool, error) {
		log, err := os.ReadFile(n.path("client", "notices"))
		return strings.Contains(string(log), "Bootstrapped 100%"), err
	}, n.procs...)
	if err != nil {
		return n, fmt.Errorf("bootstrap: %w", err)
	}
	err = process.Until(ctx, 200*time.Millisecond, func() (bool, error) {
		name, err := os.ReadFile(n.path("service", "onion", "hostname"))
		n.Onion = net.JoinHostPort(strings.TrimSpace(string(name)), "80")
		return err == nil, nil
	}, n.procs...)
	return n, err
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
	return filepath.Join(append([]string{n.config.Dir}, name...)...)
}

// member is one process of the network.
type member struct {
	n     *Net
	name  string
	lines []string // of its torrc, besides what all have
}

// members returns all, those on whom the others depend first.
func (n *Net) members() (all []member) {
	for i := range authorities {
		all = append(all, member{n, fmt.Sprintf("authority%d", i+1), append([]string{
			"AuthoritativeDirectory 1", "V3AuthoritativeDirectory 1", "ContactInfo bench",
			"TestingDirAuthVoteGuard *", "TestingDirAuthVoteHSDir *", "TestingMinExitFlagThreshold 0",
			// The first consensus soon, and then every minute.
			"TestingV3AuthInitialVotingInterval 20", "TestingV3AuthInitialVoteDelay 4", "TestingV3AuthInitialDistDelay 4",
			"V3AuthVotingInterval 60", "V3AuthVoteDelay 4", "V3AuthDistDelay 4",
		}, n.consensusParams()...)})
	}
	for i := range relays {
		all = append(all, member{n: n, name: fmt.Sprintf("relay%d", i+1)})
	}
	return append(all,
		member{n, "service", []string{"SocksPort 0", "HiddenServiceDir " + n.path("service", "onion"), "HiddenServicePort 80 " + n.config.Target}},
		member{n, "client", []string{"SocksPort " + n.SOCKS}},
	)
}

func (n *Net) consensusParams() []string {
	if !n.config.Tuned {
		return nil
	}
	return []string{"ConsensusParams cc_cwnd_min=1000 cc_cwnd_init=1000"}
}

// ports are where one member listens. Clients have none.
type ports struct{ or, dir netip.AddrPort }

// plan gives every server its place and makes the authorities' keys.
func (n *Net) plan(ctx context.Context) error {
	socks, err := freePort()
	if err != nil {
		return err
	}
	n.SOCKS = socks.String()
	for _, m := range n.members() {
		if err := os.MkdirAll(n.path(m.name, "keys"), 0o700); err != nil {
			return err
		}
		if !strings.HasPrefix(m.name, "authority") {
			continue
		}
		at, err := m.places()
		if err != nil {
			return err
		}
		line, err := m.makeKeys(ctx, at)
		if err != nil {
			return err
		}
		n.lines = append(n.lines, line)
	}
	return nil
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func freePort() (netip.AddrPort, error) { return process.FreePort(loopback) }

// places picks a server's ports and writes them to its torrc.
func (m member) places() (at ports, err error) {
	if at.or, err = freePort(); err != nil {
		return at, err
	}
	lines := []string{"ORPort " + at.or.String(), "SocksPort 0", "Nickname " + m.name, "Address 127.0.0.1", "ExitRelay 0"}
	if strings.HasPrefix(m.name, "authority") {
		if at.dir, err = freePort(); err != nil {
			return at, err
		}
		lines = append(lines, "DirPort "+at.dir.String())
	}
	return at, os.WriteFile(m.n.path(m.name, "places"), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// makeKeys makes an authority's keys and returns the line by which others know it.
func (m member) makeKeys(ctx context.Context, at ports) (string, error) {
	gencert, err := program("tor-gencert")
	if err != nil {
		return "", err
	}
	keys := m.n.path(m.name, "keys")
	cert := filepath.Join(keys, "authority_certificate")
	cmd := exec.CommandContext(ctx, gencert, "--create-identity-key", "--passphrase-fd", "0", "-m", "12", "-a", at.dir.String(),
		"-i", filepath.Join(keys, "authority_identity_key"), "-s", filepath.Join(keys, "authority_signing_key"), "-c", cert)
	cmd.Stdin = strings.NewReader("bench\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("tor-gencert: %w: %s", err, out)
	}
	text, err := os.ReadFile(cert)
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(string(text), "\nfingerprint ")
	if !ok {
		return "", errors.New("tor-gencert: a certificate without a fingerprint")
	}
	ident, _, _ := strings.Cut(rest, "\n")

	// Without a network file of its own tor wants some authority to be named.
	out, err := exec.CommandContext(ctx, m.n.program, "--ignore-missing-torrc", "-f", m.n.path("none"), "--defaults-torrc", m.n.path("none"),
		"--quiet", "--list-fingerprint", "--ORPort", "1", "--DataDirectory", m.n.path(m.name), "--Nickname", m.name,
		"--DirAuthority", "x 127.0.0.1:1 ffffffffffffffffffffffffffffffffffffffff").Output()
	if err != nil {
		return "", fmt.Errorf("fingerprint of %s: %w: %s", m.name, err, out)
	}
	fields := strings.Fields(string(out))
	if len(fields) < 2 || fields[0] != m.name {
		return "", fmt.Errorf("fingerprint of %s: %q", m.name, out)
	}
	return fmt.Sprintf("DirAuthority %s orport=%d v3ident=%s %v %s", m.name, at.or.Port(), ident, at.dir, strings.Join(fields[1:], "")), nil
}

// start writes the member's torrc and starts it.
func (m member) start() error {
	n := m.n
	lines := []string{
		"TestingTorNetwork 1", "DataDirectory " + n.path(m.name), "RunAsDaemon 0", "ShutdownWaitLength 0",
		"Log notice file " + n.path(m.name, "notices"), "Log notice stdout",
	}
	if n.config.Tuned {
		lines = append(lines, "Schedulers Vanilla")
	}
	lines = append(append(lines, n.lines...), m.lines...)
	if strings.HasPrefix(m.name, "relay") {
		if _, err := m.places(); err != nil {
			return err
		}
	}
	torrc := strings.Join(lines, "\n") + "\n"
	if places, err := os.ReadFile(n.path(m.name, "places")); err == nil {
		torrc += string(places)
	}
	file := n.path(m.name, "torrc")
	if err := os.WriteFile(file, []byte(torrc), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(n.program, "-f", file, "--defaults-torrc", n.path("none"))
	cmd.Stdin, cmd.Stdout = nil, io.Discard
	p, err := process.Start(m.name, cmd, n.path(m.name, "output"))
	if err != nil {
		return err
	}
	n.procs = append(n.procs, p)
	return nil
}
