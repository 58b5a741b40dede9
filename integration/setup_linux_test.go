package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/proxy/setup"
)

// untouched is a client as its package installs it, in a folder of its own.
type untouched struct {
	client   setup.Client
	file     string            // its settings, below its folder
	settings map[string]string // what its user has said before the first start
	args     func(dir string) []string

	closed bool   // it has no interface by which it could be changed while it runs
	udp    uint16 // the port by which it looks around in the network

	leaks []string // of doctor, with a network that has an address of the internet's
	after []string // of those, what shoal setup can't close
}

func untouchedClients(web netip.AddrPort) []untouched {
	return []untouched{
		{
			client: setup.QBittorrent,
			file:   "qBittorrent/config/qBittorrent.conf",
			settings: map[string]string{"qBittorrent/config/qBittorrent.conf": fmt.Sprintf("[LegalNotice]\nAccepted=true\n\n"+
				"[Preferences]\nWebUI\\Address=127.0.0.1\nWebUI\\LocalHostAuth=false\nWebUI\\Port=%d\n", web.Port())},
			args:  func(dir string) []string { return []string{"qbittorrent-nox", "--profile=" + dir} },
			udp:   portLSD,
			leaks: []string{"dns", "geoip", "ipv6", "listen", "lsd", "nat-pmp", "peers", "upnp"},
		},
		{
			client: setup.Deluge,
			file:   "core.conf",
			args:   func(dir string) []string { return []string{"deluged", "--do-not-daemonize", "--config", dir} },
			udp:    portLSD,
			leaks:  []string{"dns", "ipv6", "listen", "lsd", "nat-pmp", "peers", "start", "upnp"},
			after:  []string{"start"},
		},
		{
			client: setup.Transmission,
			file:   "settings.json",
			args:   func(dir string) []string { return []string{"transmission-daemon", "--foreground", "--config-dir", dir} },
			leaks:  []string{"dns", "ipv6", "listen", "nat-pmp", "peers", "upnp"},
			after:  []string{"dns", "ipv6", "listen", "peers"},
		},
		{
			client: setup.BiglyBT,
			file:   "biglybt.config",
			args:   func(dir string) []string { return clients.BiglyBTCommand(dir, "--ui=telnet") },
			closed: true,
			udp:    16680,
			leaks:  []string{"dns", "ipv6", "listen", "lsd", "peers", "upnp"},
			after:  []string{"dns", "ipv6", "listen", "lsd", "peers"},
		},
	}
}

// portLSD is local service discovery's (BEP 14).
const portLSD = 6771

// TestSetupClosesWhatDoctorFinds with each client: as it was installed, after
// it was told while it ran, after that was undone, after its file was changed
// while it did not run, and after that was undone.
func TestSetupClosesWhatDoctorFinds(t *testing.T) {
	net := network(t)
	internet(t)
	web, err := process.FreePort(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range untouchedClients(web) {
		t.Run(u.client.Name(), func(t *testing.T) {
			ctx := deadline(t)
			h := home{untouched: u, dir: t.TempDir(), state: filepath.Join(t.TempDir(), "state"), sidecar: net.Sidecars[2]}
			for name, text := range u.settings {
				write(t, filepath.Join(h.dir, name), text)
			}
			p := h.start(t, ctx)
			h.doctor(t, ctx, "as installed", u.leaks)
			if !u.closed {
				h.setup(t, ctx)
				h.doctor(t, ctx, "after setup", u.after)
				h.unchanged(t, ctx)
				h.setup(t, ctx, "--undo")
				h.doctor(t, ctx, "after undo", u.leaks)
			}
			stop(t, p)

			before, mode := h.settings(t)
			h.setup(t, ctx)
			h.setup(t, ctx, "--undo")
			if after, now := h.settings(t); after != before || now != mode {
				t.Errorf("after setup and undo, %v was %v:\n%s\nwant\n%s", now, mode, after, before)
			}

			h.setup(t, ctx)
			p = h.start(t, ctx)
			h.doctor(t, ctx, "after setup while it did not run", u.after)
			if got := h.run(ctx, t, "setup", u.client.Name(), "--undo", "--yes", "--state", h.state); got.code != 1 || !strings.Contains(got.stderr, "Close ") {
				t.Errorf("undo of a file while its client runs: %+v", got)
			}
			stop(t, p)
			h.unchanged(t, ctx)
			h.setup(t, ctx, "--undo") // the client has written its file since
			if u.closed {
				return // its start is slow, and shows nothing new
			}
			p = h.start(t, ctx)
			h.doctor(t, ctx, "after undo while it did not run", u.leaks)
			stop(t, p)
		})
	}
}

// home is a client's folder, and the state of shoal setup for it.
type home struct {
	untouched
	dir, state string
	sidecar    *testnet.Sidecar
}

func (h home) path() string { return filepath.Join(h.dir, h.file) }

// start returns when the client can be told things, and has looked around.
func (h home) start(t *testing.T, ctx context.Context) *process.Process {
	t.Helper()
	args := h.args(h.dir)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+h.dir, "XDG_CONFIG_HOME="+h.dir, "XDG_CACHE_HOME="+h.dir)
	p, err := process.Start(h.client.Name(), cmd, filepath.Join(h.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	err = process.Until(ctx, 100*time.Millisecond, func() (bool, error) {
		i, err := setup.Find(h.client, setup.Access{})
		if err != nil || i.Process == nil || i.Process.PID != p.PID() {
			return false, err
		}
		profile, live, err := i.Read(ctx)
		if err != nil || live == h.closed {
			return false, fmt.Errorf("live: %v, %v", live, err)
		}
		return !profile.LSD || profile.PeersProxied || h.holds(i, h.udp), nil
	}, p)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// holds says if the client holds a UDP port.
func (h home) holds(i setup.Instance, port uint16) bool {
	sockets, err := i.Process.Sockets()
	if err != nil {
		return false
	}
	for _, s := range sockets {
		if s.UDP && s.Local.Port() == port {
			return true
		}
	}
	return false
}

// run runs shoal.
func (h home) run(ctx context.Context, t *testing.T, args ...string) outcome {
	t.Helper()
	return command(t, ctx, shoal(), args...)
}

// setup runs shoal setup, or what args make of it, which changes something.
func (h home) setup(t *testing.T, ctx context.Context, args ...string) {
	t.Helper()
	if got := h.try(t, ctx, args...); got.code != 0 || !strings.Contains(got.out, " → ") {
		t.Fatalf("%q: exit code %d\n%s%s", args, got.code, got.out, got.stderr)
	}
}

// unchanged runs shoal setup once more.
func (h home) unchanged(t *testing.T, ctx context.Context) {
	t.Helper()
	if got := h.try(t, ctx); got.code != 0 || !strings.Contains(got.out, "nothing to change") || strings.Contains(got.out, "Done") {
		t.Errorf("a second time: exit code %d\n%s%s", got.code, got.out, got.stderr)
	}
}

func (h home) try(t *testing.T, ctx context.Context, args ...string) outcome {
	t.Helper()
	all := []string{"setup", h.client.Name(), "--yes", "--state", h.state}
	if h.client.NoSOCKS() == "" {
		all = append(all, "--socks", h.sidecar.SOCKS)
	}
	running, err := setup.Running(h.client)
	if err != nil {
		t.Fatal(err)
	}
	if len(running) == 0 {
		all = append(all, "--config", h.path())
	}
	return h.run(ctx, t, append(all, args...)...)
}

func (h home) settings(t *testing.T) (text string, mode os.FileMode) {
	t.Helper()
	b, err := os.ReadFile(h.path())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(h.path())
	if err != nil {
		t.Fatal(err)
	}
	return string(b), info.Mode()
}

// doctor runs shoal doctor until it finds just these leaks: a client takes a
// moment to open or close its sockets.
func (h home) doctor(t *testing.T, ctx context.Context, when string, want []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var got outcome
	err := process.Until(ctx, 300*time.Millisecond, func() (bool, error) {
		got = h.run(ctx, t, "doctor", "--socks", h.sidecar.SOCKS, "--status", h.sidecar.Status)
		found := leaks(got.out)
		code := 0
		if len(want) > 0 {
			code = 1
		}
		return slices.Equal(found, want) && got.code == code, fmt.Errorf("exit code %d, leaks %q, want %q", got.code, found, want)
	})
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", when, err, got.out, got.stderr)
	}
	if strings.Contains(got.out, "unknown") || len(want) == 0 && !strings.Contains(got.out, "Clean.") {
		t.Errorf("%s: %s", when, got.out)
	}
}

// leaks returns the words of the leaks in a report, sorted.
func leaks(report string) (all []string) {
	for l := range strings.Lines(report) {
		if f := strings.Fields(l); len(f) > 1 && f[0] == "leak" {
			all = append(all, f[1])
		}
	}
	slices.Sort(all)
	return all
}

// TestNothingIsWrittenWhileOnlyTheFileCouldBe: the client would overwrite it.
func TestNothingIsWrittenWhileOnlyTheFileCouldBe(t *testing.T) {
	ctx := deadline(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "settings.json")
	write(t, file, `{"rpc-enabled": false, "dht-enabled": false}`)
	p, err := process.Start("transmission", exec.Command("transmission-daemon", "--foreground", "--config-dir", dir), filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	err = process.Until(ctx, 50*time.Millisecond, func() (bool, error) {
		running, err := setup.Running(setup.Transmission)
		return len(running) == 1 && running[0].File == file, err
	}, p)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	got := command(t, ctx, shoal(), "setup", "transmission", "--yes", "--state", state)
	if got.code != 1 || !strings.Contains(got.stderr, "Close Transmission") {
		t.Errorf("got %+v", got)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("the file is now %s, %v", after, err)
	}
	if left, err := os.ReadDir(state); err != nil || len(left) > 0 {
		t.Errorf("left in the state folder: %v, %v", left, err)
	}
	stop(t, p)
}

// TestAFileMovesBetweenClientsThatWereSetUp, and doctor has no more to say
// while it does than how Deluge started.
func TestAFileMovesBetweenClientsThatWereSetUp(t *testing.T) {
	net := network(t)
	internet(t)
	ctx := deadline(t)
	seeder := startClient(t, ctx, clients.QBittorrent, clients.Config{Dir: t.TempDir()})
	leecher := startClient(t, ctx, clients.Deluge, clients.Config{Dir: t.TempDir()})
	for i, c := range []struct{ name, file string }{
		{"qbittorrent", filepath.Join(seeder.Config().Dir, "qBittorrent/config/qBittorrent.conf")},
		{"deluge", filepath.Join(leecher.Config().Dir, "deluge/core.conf")},
	} {
		got := command(t, ctx, shoal(), "setup", c.name, "--yes", "--state", t.TempDir(), "--socks", net.Sidecars[i].SOCKS, "--config", c.file)
		if got.code != 0 {
			t.Fatalf("setup %s: %+v", c.name, got)
		}
	}
	tor := noise(t, 1<<20, httpTracker)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	add(t, ctx, leecher, tor)
	arrives(t, ctx, leecher, tor)
	for i, c := range []struct {
		name  string
		leaks []string
	}{{"qbittorrent", nil}, {"deluge", []string{"start"}}} {
		got := command(t, ctx, shoal(), "doctor", "--client", c.name, "--socks", net.Sidecars[i].SOCKS, "--status", net.Sidecars[i].Status)
		if got.code != min(1, len(c.leaks)) || !slices.Equal(leaks(got.out), c.leaks) {
			t.Errorf("doctor, %s: %+v, want leaks %q", c.name, got, c.leaks)
		}
	}
	// Each is set to its own sidecar, and not to the other's.
	got := command(t, ctx, shoal(), "doctor", "--client", "deluge", "--socks", net.Sidecars[0].SOCKS, "--status", net.Sidecars[0].Status)
	if got.code != 1 || !strings.Contains(got.out, "its proxy is another sidecar, at "+net.Sidecars[1].SOCKS) {
		t.Errorf("doctor with another sidecar: %+v", got)
	}
}

// TestDoctorFindsNothingInsideShoalRun: whatever the client's settings are.
func TestDoctorFindsNothingInsideShoalRun(t *testing.T) {
	net := network(t)
	internet(t)
	ctx := deadline(t)
	e := end{clients.Transmission, true}
	e.start(t, ctx, net, net.Sidecars[0])
	got := command(t, ctx, shoal(), "doctor")
	if got.code != 0 || len(leaks(got.out)) > 0 || !strings.Contains(got.out, "Clean.") {
		t.Errorf("got %+v", got)
	}
}

// TestSetupAsksAndDoctorSaysWhatItCannotDo, as the manual has it.
func TestSetupAsksAndDoctorSaysWhatItCannotDo(t *testing.T) {
	ctx := deadline(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "core.conf")
	proxy := map[string]any{"type": 0, "hostname": "", "port": 8080}
	b, err := json.Marshal(map[string]any{"dht": true, "proxy": proxy})
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, `{"file": 1, "format": 1}`+string(b))
	for _, c := range []struct {
		answer string
		code   int
		wrote  bool
	}{{"", 1, false}, {"n\n", 1, false}, {"y\n", 0, true}} {
		cmd := exec.CommandContext(ctx, shoal(), "setup", "deluge", "--config", file, "--state", t.TempDir())
		cmd.Stdin = strings.NewReader(c.answer)
		out, _ := cmd.CombinedOutput()
		now, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		wrote := strings.Contains(string(now), "127.0.0.1")
		if cmd.ProcessState.ExitCode() != c.code || wrote != c.wrote || !strings.Contains(string(out), "dht: true → false\n") {
			t.Errorf("answer %q: exit code %d, written %v: %s", c.answer, cmd.ProcessState.ExitCode(), wrote, out)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"setup"}, 2, "specify a client"},
		{[]string{"setup", "utorrent"}, 2, "utorrent"},
		{[]string{"setup", "deluge", "now"}, 2, "now"},
		{[]string{"setup", "deluge", "--frobnicate"}, 2, "frobnicate"},
		{[]string{"setup", "deluge", "--socks", "1080"}, 2, "--socks"},
		{[]string{"setup", "deluge", "--socks", "0.0.0.0:1080"}, 2, "--socks"},
		{[]string{"setup", "transmission", "--socks", "127.0.0.1:1080"}, 2, "socks"},
		{[]string{"setup", "deluge", "--config", file, "--undo", "--yes", "--state", t.TempDir()}, 1, "nothing to undo"},
		{[]string{"setup", "deluge", "--config", filepath.Join(dir, "none")}, 1, "none"},
		{[]string{"doctor", "now"}, 2, "now"},
		{[]string{"doctor", "--frobnicate"}, 2, "frobnicate"},
		{[]string{"doctor", "--client", "utorrent"}, 2, "utorrent"},
		{[]string{"doctor", "--config", file}, 2, "--client"},
		{[]string{"doctor"}, 1, "--client"},
		{[]string{"doctor", "--client", "deluge", "--config", file}, 1, ""}, // how it starts no setting changes
	} {
		got := command(t, ctx, shoal(), c.args...)
		if got.code != c.code || !strings.Contains(got.stderr, c.says) {
			t.Errorf("%q: %+v, want exit code %d and %q", c.args, got, c.code, c.says)
		}
	}
}

// internet gives the loopback interface addresses as a computer on the internet
// has them, for a test's time. Nothing is behind them.
func internet(t *testing.T) {
	t.Helper()
	for _, a := range []string{"192.0.2.77/32", "2001:db8::77/128"} {
		if out, err := exec.Command("ip", "address", "add", a, "dev", "lo").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("ip", "address", "delete", a, "dev", "lo").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T, p *process.Process) {
	t.Helper()
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}
