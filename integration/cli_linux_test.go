package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/testnet"
)

// outcome is how a command ended.
type outcome struct {
	code        int
	out, stderr string
}

// command runs a program to its end, or until ctx ends.
func command(t *testing.T, ctx context.Context, program string, args ...string) outcome {
	t.Helper()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited && ctx.Err() == nil {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), stderr.String()}
}

// TestTheNetworkCommandPrintsOneLineAndLeavesNothing, with each way to end it.
func TestTheNetworkCommandPrintsOneLineAndLeavesNothing(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			before := processes()
			state := t.TempDir()
			cmd := exec.Command(shoal(), "testnet", "--trackers", "2", "--relays", "4", "--sidecars", "2",
				"--hops", "1,2", "--state", state, "--json")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			lines := bufio.NewReader(out)
			line, err := lines.ReadBytes('\n')
			if err != nil {
				cmd.Wait()
				t.Fatalf("no line: %v: %s", err, &stderr)
			}
			var net testnet.Net
			if err := json.Unmarshal(line, &net); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if len(net.Trackers) != 2 || len(net.Relays) != 4 || len(net.Sidecars) != 2 || net.Network == "" {
				t.Fatalf("described: %s", line)
			}
			for i, s := range net.Sidecars {
				status, err := s.ReadStatus(t.Context())
				if err != nil || !status.Ready || status.Hops != i+1 {
					t.Errorf("sidecar %d says %+v, %v, want that it is ready with %d hops", i+1, status, err, i+1)
				}
			}
			began := time.Now()
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if rest, _ := lines.ReadString(0); rest != "" {
				t.Errorf("after its line it printed %q", rest)
			}
			err = cmd.Wait()
			if signal != syscall.SIGKILL && (err != nil || stderr.Len() > 0) {
				t.Errorf("it ended with %v and said %q, want nothing", err, &stderr)
			}
			t.Logf("left after %v", time.Since(began).Round(time.Millisecond))
			for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				left := slices.DeleteFunc(processes(), func(p string) bool { return slices.Contains(before, p) })
				if len(left) == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("processes are left: %q", left)
				}
			}
		})
	}
}

func TestWhatANetworkCannotBeIsAUsageError(t *testing.T) {
	for name, args := range map[string][]string{
		"too few relays for the default hops": {"--trackers", "1", "--relays", "3", "--sidecars", "1"},
		"too few relays for the hops":         {"--trackers", "1", "--relays", "4", "--sidecars", "2", "--hops", "2,4"},
		"no tracker":                          {"--trackers", "0", "--relays", "4", "--sidecars", "1"},
		"hops that are no number":             {"--trackers", "1", "--relays", "4", "--sidecars", "1", "--hops", "two"},
		"an unknown flag":                     {"--unheard-of"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"testnet", "--json", "--state", t.TempDir()}, args...)
			got := command(t, deadline(t, 10*time.Second), shoal(), args...)
			if got.code != 2 || got.out != "" || got.stderr == "" {
				t.Errorf("%+v, want exit code 2 and a word on stderr", got)
			}
		})
	}
}

// TestMistakesAreExplained: each is an error in one line that says what to do,
// and never a panic.
func TestMistakesAreExplained(t *testing.T) {
	network := network(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	garbage := filepath.Join(t.TempDir(), "garbage.json")
	if err := os.WriteFile(garbage, []byte("{\"trackers\": 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := []string{"--network", network.Network}
	for name, tt := range map[string]struct {
		program string
		args    []string
		code    int
		want    string // a regular expression
	}{
		"a proxy without a network":          {shoal(), []string{"proxy"}, 1, `(?s)no public.*testnet`},
		"a relay without a network":          {shoal(), []string{"relay", "--listen", "127.2.99.1:9001"}, 1, `(?s)no public.*testnet`},
		"a network file that isn't there":    {shoal(), []string{"proxy", "--network", garbage + ".not"}, 1, `no such file`},
		"a network file that is none":        {shoal(), []string{"proxy", "--network", garbage}, 1, `garbage\.json`},
		"a link that is none":                {shoal(), []string{"proxy", "--tracker", "shoal://nonsense"}, 2, `tracker link`},
		"SOCKS for everybody, no password":   {shoal(), append(file, "--socks", "0.0.0.0:0"), 2, `password`},
		"a SOCKS port in use":                {shoal(), append(file, "--socks", busy.Addr().String()), 1, `in use`},
		"a status port in use":               {shoal(), append(file, "--status", busy.Addr().String(), "--socks", "127.0.0.1:0"), 1, `in use`},
		"a status page for everybody":        {shoal(), append(file, "--status", "0.0.0.0:0", "--socks", "127.0.0.1:0"), 2, `loopback`},
		"a relay's port in use":              {shoal(), append([]string{"relay", "--listen", busy.Addr().String()}, file...), 1, `in use`},
		"a tracker's port in use":            {shoalTracker(), []string{"--listen", busy.Addr().String()}, 1, `in use`},
		"five hops":                          {shoal(), append(file, "--hops", "5"), 2, `hops`},
		"a flag that nobody knows":           {shoal(), []string{"relay", "--unheard-of"}, 2, `unheard-of`},
		"a tracker's flag that nobody knows": {shoalTracker(), []string{"--unheard-of"}, 2, `unheard-of`},
		"a command that nobody knows":        {shoal(), []string{"swim"}, 2, `swim`},
	} {
		t.Run(name, func(t *testing.T) {
			args := tt.args
			if len(args) > 0 && args[0] == "--network" {
				args = append([]string{"proxy"}, args...)
			}
			if tt.code == 1 {
				args = append(slices.Clip(args), "--state", t.TempDir())
			}
			got := command(t, deadline(t, 10*time.Second), tt.program, args...)
			if got.code != tt.code || !regexp.MustCompile(tt.want).MatchString(got.stderr) {
				t.Errorf("%s: exit code %d and %q, want %d and %q", strings.Join(args, " "), got.code, got.stderr, tt.code, tt.want)
			}
			if strings.Contains(got.stderr, "goroutine") {
				t.Error("it panicked")
			}
		})
	}
}

// TestHelpIsForNewcomers: every command has it, on stdout, and exits with 0.
func TestHelpIsForNewcomers(t *testing.T) {
	ctx := deadline(t, 20*time.Second)
	for _, args := range [][]string{{"--help"}, {"proxy", "--help"}, {"relay", "--help"}, {"testnet", "--help"}, {"demo", "--help"}} {
		got := command(t, ctx, shoal(), args...)
		if got.code != 0 || !strings.Contains(got.out, "USAGE") {
			t.Errorf("shoal %s: %+v", strings.Join(args, " "), got)
		}
	}
	if got := command(t, ctx, shoalTracker(), "--help"); got.code != 0 || !strings.Contains(got.out, "USAGE") {
		t.Errorf("shoal-tracker --help: %+v", got)
	}
}

// TestTheDemoMovesAPicture as a user runs it.
func TestTheDemoMovesAPicture(t *testing.T) {
	picture := filepath.Join(t.TempDir(), "holiday.jpg")
	if err := os.WriteFile(picture, noise(t, 300_000).Data, 0o600); err != nil {
		t.Fatal(err)
	}
	got := command(t, deadline(t, 2*time.Minute), shoal(), "demo", picture)
	if got.code != 0 || !strings.Contains(got.out, "holiday.jpg went from one qBittorrent to another") {
		t.Errorf("%d: %s%s", got.code, got.out, got.stderr)
	}
	t.Log(got.out)
}
