package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/capture"
	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// underRun returns `shoal run` with a state of its own, and what is added.
func underRun(t *testing.T, net *testnet.Net, add ...string) []string {
	t.Helper()
	return append([]string{shoal(), "run", "--network", net.Network, "--state", t.TempDir()}, add...)
}

// TestACommandUnderRunIsAsByItself: several at once, none knows of the others.
func TestACommandUnderRunIsAsByItself(t *testing.T) {
	net := network(t)
	ctx := deadline(t)
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			dir := t.TempDir()
			args := append(underRun(t, net, "--publish", "0:8080", "--"),
				"sh", "-c", `pwd; echo "$HOME"; id -u; cat; echo trouble >&2; exit 1$0`, fmt.Sprint(i))
			cmd := exec.CommandContext(ctx, args[0], args[1:]...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "HOME=/nonexistent/home")
			cmd.Stdin = strings.NewReader("said to it\n")
			var out, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &stderr
			cmd.Run()
			want := fmt.Sprintf("%s\n/nonexistent/home\n%d\nsaid to it\n", dir, os.Getuid())
			if code := cmd.ProcessState.ExitCode(); code != 10+i || out.String() != want {
				t.Errorf("exit code %d, stdout %q, want %d and %q; stderr: %s", code, &out, 10+i, want, &stderr)
			}
			for line := range strings.Lines(stderr.String()) {
				if line != "trouble\n" && !strings.HasPrefix(line, "shoal: ") {
					t.Errorf("stderr has %q", line)
				}
			}
		})
	}
	all.Wait()
}

// TestRunSaysWhatCouldNotStart in one line, with a shell's exit code.
func TestRunSaysWhatCouldNotStart(t *testing.T) {
	net := network(t)
	ctx := deadline(t)
	busy := net.Sidecars[0].SOCKS
	for name, c := range map[string]struct {
		code int
		want string
		args []string
	}{
		"no command":          {2, "no command", nil},
		"an unknown command":  {127, "no-such-client", []string{"--", "no-such-client"}},
		"a folder":            {126, "not an executable program", []string{"--", "/etc"}},
		"a port in use":       {125, "in use", []string{"--publish", busy + ":80", "--", "true"}},
		"a taken status port": {1, "--status", []string{"--status", net.Sidecars[0].SOCKS, "--", "true"}},
		"no interface":        {2, "--interface", []string{"--interface", "wg0=host", "--", "true"}},
		"a peer's address":    {2, "--interface", []string{"--interface", "wg0=198.18.0.1", "--", "true"}},
		"no port":             {2, "--publish", []string{"--publish", "web", "--", "true"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := underRun(t, net, c.args...)
			got := command(t, ctx, args[0], args[1:]...)
			if got.code != c.code || got.out != "" || !strings.Contains(got.stderr, c.want) {
				t.Errorf("%+v, want exit code %d and %q", got, c.code, c.want)
			}
		})
	}
}

// TestRunTellsWhatItWaitsFor when no relay answers, where its status page is,
// and that it can be interrupted.
func TestRunTellsWhatItWaitsFor(t *testing.T) {
	net := network(t)
	b, err := os.ReadFile(net.Network)
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(t.TempDir(), "network.json") // the same keys, where nobody listens
	b = regexp.MustCompile(`:[0-9]{2,5}"`).ReplaceAll(b, []byte(`:1"`))
	if err := os.WriteFile(dead, b, 0o600); err != nil {
		t.Fatal(err)
	}
	at, err := process.FreePort(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(deadline(t), shoal(), "run", "--network", dead, "--state", t.TempDir(), "--status", at.String(), "--", "echo", "started")
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		if why, found := strings.CutPrefix(lines.Text(), "shoal: waiting for the network. "); found {
			t.Logf("after %v: %s", time.Since(began).Round(time.Millisecond), why)
			cmd.Process.Signal(os.Interrupt)
		}
	}
	cmd.Wait()
	for _, want := range []string{"shoal: status page: http://" + at.String(), "shoal: waiting for the network. ", "The command starts without it in 2"} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("it says %s, want %q", &all, want)
		}
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 || out.Len() != 0 {
		t.Errorf("after ^C: exit code %d, %q, want 130 and no command", code, &out)
	}
}

// TestRunIsForEveryUser: one who may not open the TUN, and by no flag or
// capability more.
func TestRunIsForEveryUser(t *testing.T) {
	net := network(t)
	dir := everybodys(t)
	file := filepath.Join(dir, "network.json")
	b, err := os.ReadFile(net.Network)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(shoal())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{file: b, filepath.Join(dir, "shoal"): program} {
		if err := os.WriteFile(name, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(deadline(t), filepath.Join(dir, "shoal"), "run", "--network", file, "--state", filepath.Join(dir, "state"),
		"--", "sh", "-c", "id -u; getent hosts tracker.invalid; cat /proc/net/dev")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	user := os.Getuid()
	if user == 0 {
		user = 65534 // nobody
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("%d\n", user)) || !strings.Contains(string(out), "10.65.") {
		t.Errorf("%v: %s", err, out)
	}
}

// everybodys is a folder that every user may write to.
func everybodys(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "shoal-run-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestABoundClientCanHaveItsInterface: a client that is set to use a VPN's keeps
// that setting.
func TestABoundClientCanHaveItsInterface(t *testing.T) {
	net := network(t)
	ctx := deadline(t)
	bound := clients.Config{Dir: t.TempDir(), Interface: "wg0", Address: "10.2.0.2", Under: func(port uint16) []string {
		return underRun(t, net, "--interface", "wg0=10.2.0.2", "--publish", fmt.Sprint(port), "--")
	}}
	seeder := startClient(t, ctx, clients.QBittorrent, bound)
	leecher := end{clients.RTorrent, true}.start(t, ctx, net, net.Sidecars[0])
	tor := noise(t, 1<<20, udpTracker)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	add(t, ctx, leecher, tor)
	arrives(t, ctx, leecher, tor)
}

// TestNothingOfACommandUnderRunIsOnTheHost records the host's interface while
// two clients under `shoal run` find each other and move a file: it shows the
// links of their sidecars to a few relays, and what the test itself says to the
// clients' control ports.
func TestNothingOfACommandUnderRunIsOnTheHost(t *testing.T) {
	net := network(t)
	ctx := deadline(t)
	recorder := record(t)
	var all [2]clients.Client
	sources := make(map[netip.Addr]bool)
	control := make(map[uint16]bool)
	for i := range all {
		source := netip.AddrFrom4([4]byte{127, 77, byte(i + 1), 1})
		sources[source] = true
		c := clients.Config{Dir: t.TempDir(), Under: func(port uint16) []string {
			control[port] = true
			return append(underRun(t, net, "--source", source.String(), "--publish", fmt.Sprint(port)), "--")
		}}
		all[i] = startClient(t, ctx, clients.QBittorrent, c)
	}
	tor := noise(t, 1<<20, httpTracker, udpTracker)
	seed(t, ctx, all[0], tor)
	announced(t, ctx, all[0], tor)
	add(t, ctx, all[1], tor)
	arrives(t, ctx, all[1], tor)
	for _, c := range all {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}
	trace := recorded(t, recorder)

	for source := range sources {
		if n := len(trace.Contacts(source)); n == 0 || n > maxContacts {
			t.Errorf("a sidecar talked to %d addresses, want 1 to %d", n, maxContacts)
		}
	}
	for _, f := range trace.Flows(func(f capture.Flow) bool {
		return f.Protocol != capture.TCP || !f.From.Addr().IsLoopback() || !f.To.Addr().IsLoopback()
	}) {
		t.Errorf("the host has %v", f)
	}
	found := capture.NewFinder(tor.Data)
	for f, b := range trace.Payload {
		own := control[f.From.Port()] || control[f.To.Port()] // qBittorrent is given the file's description there
		if !own && (bytes.Contains(b, tor.Hash[:]) || bytes.Contains(b, []byte("BitTorrent")) || bytes.Contains(b, []byte("tracker.invalid"))) || found.Find(b) >= 0 {
			t.Errorf("%v holds what the clients say", f)
		}
	}
	for kind, n := range trace.Other {
		t.Errorf("the host has %d packets of type %04x", n, kind)
	}
}
