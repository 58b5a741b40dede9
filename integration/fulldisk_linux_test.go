package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// TestAFullDiskStopsNoSidecar that has been there before: not while it runs, and
// not when it starts again. A first start says what it needs, and works as soon
// as there is room.
func TestAFullDiskStopsNoSidecar(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 6, Sidecars: 1, Block: 10})
	tor := noise(t, 1<<20, httpTracker)
	seeder := client(t, ctx, net.Sidecars[0], nil)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)

	disk := smallDisk(t)
	fillDisk(t, disk)
	words := sidecarOn(t, net, disk).Err().Error()
	if !strings.Contains(words, "no space left on device") || !strings.Contains(words, "Free some space") {
		t.Errorf("a first start on a full disk: %s", words)
	}
	makeRoom(t, disk)
	p := sidecarOn(t, net, disk)
	readyAt(t, ctx, p)

	fillDisk(t, disk) // before the client is known: it has a secret of its own
	socks, _ := where(t, ctx, p)
	leecher := startClient(t, ctx, clients.QBittorrent, clients.Config{Dir: t.TempDir(), SOCKS: socks})
	add(t, ctx, leecher, tor)
	arrives(t, ctx, leecher, tor)
	readyAt(t, ctx, p)
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	p = sidecarOn(t, net, disk)
	readyAt(t, ctx, p)
	makeRoom(t, disk)
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(disk, "state", "*.damaged-*")); len(left) > 0 {
		t.Errorf("the full disk damaged %v", left)
	}
}

// smallDisk mounts a disk of half a megabyte.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func fillDisk(t *testing.T, disk string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(disk, "fill"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 1024 {
		if _, err = f.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
}

func makeRoom(t *testing.T, disk string) {
	t.Helper()
	if err := os.Remove(filepath.Join(disk, "fill")); err != nil {
		t.Fatal(err)
	}
}

// sidecarOn starts a sidecar whose state folder is on a disk.
func sidecarOn(t *testing.T, net *testnet.Net, disk string) *process.Process {
	t.Helper()
	cmd := exec.Command(shoal(), "proxy", "--network", net.Network, "--state", filepath.Join(disk, "state"),
		"--source", fmt.Sprintf("127.%d.9.1", sourceBlock(t, net)), "--socks", "127.0.0.1:0", "--status", "127.0.0.1:0")
	p, err := process.Start("sidecar", cmd, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	return p
}

// sourceBlock is the second byte of the addresses that a network's sidecars dial from.
func sourceBlock(t *testing.T, net *testnet.Net) byte {
	t.Helper()
	return net.Sidecars[0].Source.As4()[1]
}

var printed = regexp.MustCompile(`(?m)client: (\S+)\nstatus page: (\S+)$`)

// where waits until a sidecar has printed its addresses, and returns them.
func where(t *testing.T, ctx context.Context, p *process.Process) (socks, status string) {
	t.Helper()
	err := process.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		found := printed.FindStringSubmatch(p.LastWords())
		if found == nil {
			return false, errors.New("it has printed no addresses")
		}
		socks, status = found[1], found[2]
		return true, nil
	}, p)
	if err != nil {
		t.Fatal(err)
	}
	return socks, status
}

// readyAt waits until a sidecar is ready.
func readyAt(t *testing.T, ctx context.Context, p *process.Process) {
	t.Helper()
	_, page := where(t, ctx, p)
	s := testnet.Sidecar{Status: page}
	err := process.Until(ctx, 100*time.Millisecond, func() (bool, error) {
		status, err := s.ReadStatus(ctx)
		if err == nil && !status.Ready {
			err = errors.New(status.Why)
		}
		return err == nil, err
	}, p)
	if err != nil {
		t.Fatal(err)
	}
}
