package integration

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/proxy"
	"github.com/shoal-p2p/shoal/relay"
	"github.com/shoal-p2p/shoal/tracker"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// TestNoDamagedFileStopsAProgram but a relay's or tracker's identity, which
// makes it somebody: its error says that. The folders are those that a sidecar
// with a client, a relay and a tracker of a real network leave.
func TestNoDamagedFileStopsAProgram(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 6, Sidecars: 1, Block: 9})
	tor := noise(t, 1<<16, httpTracker)
	seeder := client(t, ctx, net.Sidecars[0], nil)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	remembered(t, ctx, net.Sidecars[0], tor)
	if err := net.Close(); err != nil {
		t.Fatal(err)
	}
	network, err := directory.LoadNetwork(net.Network)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		state string
		open  func(dir string) error
		want  []string // files that must have been tried
	}{
		"sidecar": {net.Sidecars[0].State, func(dir string) error { return openSidecar(network, dir) },
			[]string{"guards", "secret", "authority/authority.key", "clients/", "views/view-", "views/chain-"}},
		"relay": {net.Relays[0].State, func(dir string) error {
			r, err := relay.New(relay.Config{Network: network, State: dir, Listen: "127.0.0.1:0"})
			if err != nil {
				return err
			}
			return r.Close()
		}, []string{"identity", "onion-keys", "replays", "views/view-", "views/chain-"}},
		"tracker": {net.Trackers[0].State, func(dir string) error {
			r, err := tracker.New(tracker.Config{Network: network, State: dir, Listen: "127.0.0.1:0"})
			if err != nil {
				return err
			}
			return r.Close()
		}, []string{"identity", "onion-keys", "replays", "view", "swarms"}},
	} {
		t.Run(name, func(t *testing.T) {
			tried := damageEach(t, c.state, c.open)
			for _, w := range c.want {
				if !slices.ContainsFunc(tried, func(file string) bool { return strings.HasPrefix(file, w) }) {
					t.Errorf("there was no %s among %v", w, tried)
				}
			}
		})
	}
}

func openSidecar(network directory.Network, dir string) error {
	p, err := proxy.New(proxy.Config{Network: network, State: dir, SOCKS: "127.0.0.1:0", Status: "127.0.0.1:0", Hops: 2})
	if err != nil {
		return err
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	err = p.Run(over)
	if memory, e := state.Volatile(dir); e == nil {
		os.RemoveAll(memory)
	}
	return err
}

// damageEach opens a copy of a state folder with one file damaged, for each
// file and many damages, and returns the files.
func damageEach(t *testing.T, from string, open func(dir string) error) (files []string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && entry.Name() != "log" {
			name, _ := filepath.Rel(from, path)
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	starts := 0
	for _, name := range files {
		good, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		for what, damage := range damagesOf(good) {
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
			os.Chmod(dir, 0o700)
			private(t, dir)
			path := filepath.Join(dir, name)
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			starts++
			err := open(dir)
			switch {
			case name == "identity", name == "lock" && what == "folder":
				if e, ok := errors.AsType[*state.Error](err); !ok || !strings.Contains(err.Error(), path) || name == "identity" && !strings.Contains(e.Lost, "another ID") {
					t.Errorf("%s, %s: %v", name, what, err)
				}
			case err != nil:
				t.Errorf("%s, %s: %v", name, what, err)
			default:
				if err := open(dir); err != nil {
					t.Errorf("%s, %s, the second start: %v", name, what, err)
				}
			}
			os.RemoveAll(dir)
		}
	}
	t.Logf("%d starts with one of %d files damaged", starts, len(files))
	return files
}

// private takes from others what CopyFS gave them.
func private(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, ".pem") {
			return err
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// damagesOf returns ways to damage a file that holds good: cut at some lengths,
// one bit changed at some places, more at its end, a folder instead.
func damagesOf(good []byte) map[string]func(path string) error {
	replace := func(b []byte) func(string) error {
		return func(path string) error { return os.WriteFile(path, b, 0o600) }
	}
	all := map[string]func(string) error{
		"longer": replace(append(bytes.Clone(good), 0)),
		"zeros":  replace(make([]byte, len(good))),
		"folder": func(path string) error {
			return errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "inside"), 0o700))
		},
	}
	for i := 0; i < len(good); i += 1 + len(good)/12 {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		all["cut at "+string(rune('a'+len(all)))] = replace(good[:i])
		all["changed at "+string(rune('a'+len(all)))] = replace(flipped)
	}
	return all
}
