package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/hosts"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// site is a test network whose trackers and relays run on one machine, and whose
// sidecars have machines of their own, with cables that can be pulled.
type site struct {
	net      *hosts.Net
	servers  *hosts.Host
	network  directory.Network
	trackers []*siteServer
	relays   []*siteServer

	mu    sync.Mutex // held while home adds a machine
	homes int
}

// siteServer is a tracker or relay. It can be stopped and started again.
type siteServer struct {
	*process.Process
	id   directory.EntryRelay
	args []string
	log  string
}

// household is a machine with a sidecar.
type household struct {
	*testnet.Sidecar
	host *hosts.Host
	log  string
	http *http.Client
}

var siteAddr = netip.MustParseAddr("5.9.17.3")

func newSite(t *testing.T, ctx context.Context, trackers, relays int) *site {
	t.Helper()
	net, err := hosts.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &site{net: net, network: directory.Network{Test: true, ViewEvery: time.Second}}
	if s.servers, err = net.Add("servers", siteAddr); err != nil {
		t.Fatal(err)
	}
	for range trackers {
		tr := s.server(t, shoalTracker())
		s.trackers = append(s.trackers, tr)
		s.network.Trackers = append(s.network.Trackers, directory.Tracker{Key: [32]byte(tr.id.ID), Addr: tr.id.Addr})
	}
	for range relays {
		r := s.server(t, shoal(), "relay")
		s.relays = append(s.relays, r)
		s.network.Entries = append(s.network.Entries, r.id)
	}
	file := s.file(t, s.network)
	for _, one := range append(s.trackers, s.relays...) {
		one.args = append(one.args, "--network", file)
		s.start(t, one)
	}
	return s
}

// server makes a server's keys and finds out its name.
func (s *site) server(t *testing.T, command ...string) *siteServer {
	t.Helper()
	listen := netip.AddrPortFrom(siteAddr, uint16(9001+len(s.trackers)+len(s.relays)))
	state := t.TempDir()
	one := &siteServer{args: append(command, "--state", state, "--listen", listen.String(), "--advertise", listen.String(), "--verbose"), log: filepath.Join(state, "log")}
	out, err := s.servers.Command(one.args[0], append(one.args[1:], "--print-id")...).Output()
	if err != nil {
		t.Fatalf("%v: %v", one.args, err)
	}
	name, _, _ := strings.Cut(string(out), "\n")
	if one.id, err = directory.ParseEntry(name); err != nil {
		t.Fatal(err)
	}
	return one
}

// start has a server run, until the end of the test.
func (s *site) start(t *testing.T, one *siteServer) {
	t.Helper()
	var err error
	if one.Process, err = process.Start(one.id.ID.Short(), s.servers.Command(one.args[0], one.args[1:]...), one.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Process.Kill() })
}

// file writes a network file.
func (s *site) file(t *testing.T, n directory.Network) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "network.json")
	if err := os.WriteFile(file, n.File(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// home adds a machine with a sidecar that has this network file and flags.
func (s *site) home(t *testing.T, n directory.Network, flags ...string) *household {
	t.Helper()
	s.mu.Lock()
	addr := s.nextHome()
	s.homes++
	host, err := s.net.Add(fmt.Sprint("home ", s.homes), addr)
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	return s.sidecar(t, host, n, flags...)
}

// nextHome returns the address of the next machine that home adds.
func (s *site) nextHome() netip.Addr { return netip.AddrFrom4([4]byte{176, byte(10 + s.homes), 40, 7}) }

// sidecar starts one on host.
func (s *site) sidecar(t *testing.T, host *hosts.Host, n directory.Network, flags ...string) *household {
	t.Helper()
	state := t.TempDir()
	h := &household{host: host, log: filepath.Join(state, "log"), http: host.HTTP(),
		Sidecar: &testnet.Sidecar{SOCKS: "127.0.0.1:1080", Status: "http://127.0.0.1:1081", State: state}}
	args := []string{shoal(), "proxy", "--verbose", "--state", filepath.Join(state, "state"), "--network", s.file(t, n)}
	var err error
	if h.Process, err = process.Start(host.Name, host.Command("env", append(args, flags...)...), h.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: %s", host.Name, h.Process.LastWords())
		}
		if err := h.Process.Stop(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// get returns what the sidecar answers at path.
func (h *household) get(ctx context.Context, path string) (code int, body string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Status+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := h.http.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(b), err
}

// ready waits until /readyz says whether it is, and returns after how long.
func (h *household) ready(t *testing.T, ctx context.Context, want bool) time.Duration {
	t.Helper()
	began := time.Now()
	err := process.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		code, body, err := h.get(ctx, "/readyz")
		if err == nil {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err != nil && code == map[bool]int{true: 200, false: 503}[want], err
	}, h.Process)
	if err != nil {
		t.Fatalf("ready %v: %v", want, err)
	}
	return time.Since(began)
}

// words returns the sidecar's log.
func (h *household) words(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(h.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
