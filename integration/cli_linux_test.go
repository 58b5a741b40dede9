package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
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
	cmd.WaitDelay = time.Minute
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
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
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

// TestTheDemoMovesAPicture as a user runs it.
func TestTheDemoMovesAPicture(t *testing.T) {
	picture := filepath.Join(t.TempDir(), "holiday.jpg")
	if err := os.WriteFile(picture, noise(t, 300_000).Data, 0o600); err != nil {
		t.Fatal(err)
	}
	got := command(t, deadline(t), shoal(), "demo", picture)
	if got.code != 0 || !strings.Contains(got.out, "holiday.jpg went from one qBittorrent to another") {
		t.Errorf("%d: %s%s", got.code, got.out, got.stderr)
	}
	t.Log(got.out)
}
