package tor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/shoal-p2p/shoal/integration/process"
)

// member is one process of the network.
type member struct {
	name  string // of its folder, too
	lines []string
}

const onionPort = "80"

// firstVote is how often authorities vote until they have a consensus.
const firstVote = 20 * time.Second

// authorityLines make a server an authority that takes every relay for a good one.
var authorityLines = []string{
	"AuthoritativeDirectory 1", "V3AuthoritativeDirectory 1", "ContactInfo bench",
	"TestingDirAuthVoteGuard *", "TestingDirAuthVoteHSDir *", "TestingMinExitFlagThreshold 0",
	"TestingV3AuthInitialVotingInterval 20", "TestingV3AuthInitialVoteDelay 4", "TestingV3AuthInitialDistDelay 4",
	"V3AuthVotingInterval 60", "V3AuthVoteDelay 4", "V3AuthDistDelay 4",
}

// plan gives every member its folder, its place and its torrc, those on whom the
// others depend first, and makes the authorities' keys.
func plan(ctx context.Context, c Config, n *Net) (all []member, err error) {
	var known []string // who the authorities are
	for i := range authorities {
		m := member{name: fmt.Sprintf("authority%d", i+1), lines: authorityLines}
		or, dir, err := n.server(&m)
		if err != nil {
			return nil, err
		}
		m.lines = append(m.lines, "DirPort "+dir.String())
		if c.Tuned {
			m.lines = append(m.lines, "ConsensusParams cc_cwnd_min=1000 cc_cwnd_init=1000")
		}
		line, err := n.makeKeys(ctx, m.name, or, dir)
		if err != nil {
			return nil, err
		}
		known = append(known, line)
		all = append(all, m)
	}
	for i := range relays {
		m := member{name: fmt.Sprintf("relay%d", i+1)}
		if _, _, err := n.server(&m); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	socks, err := freePort()
	if err != nil {
		return nil, err
	}
	n.SOCKS = socks.String()
	all = append(all,
		member{"service", []string{"SocksPort 0", "HiddenServiceDir " + n.path("service", "onion"), "HiddenServicePort " + onionPort + " " + c.Target}},
		member{"client", []string{"SocksPort " + n.SOCKS}})
	for i := range all {
		if err := n.common(&all[i], c, known); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// common adds what every torrc has.
func (n *Net) common(m *member, c Config, known []string) error {
	m.lines = append(append([]string{
		"TestingTorNetwork 1", "DataDirectory " + n.path(m.name), "ShutdownWaitLength 0", "Log notice stdout",
	}, known...), m.lines...)
	if c.Tuned {
		m.lines = append(m.lines, "Schedulers Vanilla")
	}
	return os.MkdirAll(n.path(m.name), 0o700)
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func freePort() (netip.AddrPort, error) { return process.FreePort(loopback) }

// server gives m the ports of a relay, and one for a directory.
func (n *Net) server(m *member) (or, dir netip.AddrPort, err error) {
	if or, err = freePort(); err != nil {
		return or, dir, err
	}
	if dir, err = freePort(); err != nil {
		return or, dir, err
	}
	m.lines = append([]string{"Nickname " + m.name, "ORPort " + or.String(), "SocksPort 0", "Address 127.0.0.1", "AssumeReachable 1", "ExitRelay 0"}, m.lines...)
	return or, dir, nil
}

// makeKeys makes an authority's keys and returns the line by which others know it.
func (n *Net) makeKeys(ctx context.Context, name string, or, dir netip.AddrPort) (string, error) {
	gencert, err := program("tor-gencert")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(n.path(name, "keys"), 0o700); err != nil {
		return "", err
	}
	certificate := n.path(name, "keys", "authority_certificate")
	cmd := exec.CommandContext(ctx, gencert, "--create-identity-key", "--passphrase-fd", "0", "-m", "12", "-a", dir.String(),
		"-i", n.path(name, "keys", "authority_identity_key"), "-s", n.path(name, "keys", "authority_signing_key"), "-c", certificate)
	cmd.Stdin = strings.NewReader("bench\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("tor-gencert: %w: %s", err, out)
	}
	text, err := os.ReadFile(certificate)
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(string(text), "\nfingerprint ")
	if !ok {
		return "", errors.New("tor-gencert made a certificate without a fingerprint")
	}
	ident, _, _ := strings.Cut(rest, "\n")
	fingerprint, err := n.fingerprint(ctx, name)
	return fmt.Sprintf("DirAuthority %s orport=%d v3ident=%s %v %s", name, or.Port(), ident, dir, fingerprint), err
}

// fingerprint makes a server's own keys and returns the hash of their oldest.
func (n *Net) fingerprint(ctx context.Context, name string) (string, error) {
	tor, err := program("tor")
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, tor, "--ignore-missing-torrc", "-f", n.path("none"), "--defaults-torrc", n.path("none"),
		"--quiet", "--list-fingerprint", "--ORPort", "1", "--DataDirectory", n.path(name), "--Nickname", name,
		"--DirAuthority", "x 127.0.0.1:1 ffffffffffffffffffffffffffffffffffffffff", // or it would name the public ones
	).Output()
	if err != nil {
		return "", fmt.Errorf("fingerprint of %s: %w: %s", name, err, out)
	}
	fields := strings.Fields(string(out))
	if len(fields) < 2 || fields[0] != name {
		return "", fmt.Errorf("fingerprint of %s: tor said %q", name, out)
	}
	return strings.Join(fields[1:], ""), nil
}
