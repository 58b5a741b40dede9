package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/process"
)

// TestDoctorSaysWhyNothingWorks, with a qBittorrent that is set up for a
// sidecar, and one thing wrong at a time.
func TestDoctorSaysWhyNothingWorks(t *testing.T) {
	network := network(t)
	internet(t)
	ctx := deadline(t)
	s := network.Sidecars[0]
	host, port, err := net.SplitHostPort(s.SOCKS)
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, ctx, s, func(c *clients.Config) { c.NoDHT = true })
	sound := fmt.Sprintf(`"proxy_type":2,"proxy_ip":%q,"proxy_port":%s,"proxy_peer_connections":true,"current_interface_address":""`, host, port)
	nobody := freePort(t)
	web := webServer(t)
	at := []string{"--socks", s.SOCKS, "--status", s.Status}
	for _, f := range []struct {
		name   string
		prefs  string
		doctor []string
		code   int
		says   string // a regular expression
	}{
		{"nothing", ``, at, 0, `(?s)note +https .*shoal setup qbittorrent.*Clean\. Checked: qBittorrent \(pid \d+\); the sidecar at ` + s.SOCKS},
		{"the sidecar is not there", ``, []string{"--socks", nobody.String(), "--status", s.Status}, 1,
			`fault +sidecar .*nothing listens at ` + nobody.String() + `.*\n +to do: a sidecar listens at .*` + s.SOCKS},
		{"another program is there", ``, []string{"--socks", web.String(), "--status", s.Status}, 1,
			`fault +sidecar .*listens at ` + web.String() + ` and does not answer as a SOCKS5 proxy`},
		{"another port", fmt.Sprintf(`"proxy_port":%d`, nobody.Port()), at, 1, `fault +proxy .*its proxy is ` + nobody.String() + `, where nothing listens; Shoal's is ` + s.SOCKS},
		{"another sidecar", fmt.Sprintf(`"proxy_port":%s`, portOf(t, network.Sidecars[1].SOCKS)), at, 1, `unknown +proxy .*its proxy is another sidecar, at ` + network.Sidecars[1].SOCKS},
		{"another program's port", fmt.Sprintf(`"proxy_port":%d`, web.Port()), at, 1, `leak +proxy .*its proxy is at ` + web.String() + ` and not Shoal's`},
		{"kind HTTP", `"proxy_type":1`, at, 1, `leak +proxy .*is set to the kind http: the sidecar speaks SOCKS5 alone, so nothing works`},
		{"kind SOCKS4", `"proxy_type":5`, at, 1, `leak +proxy .*is set to the kind socks4`},
		{"::1", `"proxy_ip":"::1"`, at, 1, `fault +proxy-host .*its proxy host is ::1, to which it can't send UDP`},
		{"peers past the proxy", `"proxy_peer_connections":false`, at, 1, `leak +peers .*past its proxy`},
		{"bound to an address", `"current_interface_address":"192.0.2.77"`, at, 1, `fault +bound .*it is bound to 192\.0\.2\.77, .*\n +to do: .*shoal setup qbittorrent`},
	} {
		t.Run(f.name, func(t *testing.T) {
			prefer(t, ctx, c, sound)
			prefer(t, ctx, c, f.prefs)
			examine(t, ctx, f.code, f.says, f.doctor...)
		})
	}
}

// TestASidecarWithAPasswordIsToldApart: the client offers none, a wrong one, and
// the right one; setup asks the sidecar before it changes anything.
func TestASidecarWithAPasswordIsToldApart(t *testing.T) {
	network := network(t)
	ctx := deadline(t)
	secret, wrong := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "wrong")
	write(t, secret, "open sesame\n")
	write(t, wrong, "open barley\n")
	s, err := network.AddSidecar(ctx, "--socks-password-file", secret)
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, ctx, s, func(c *clients.Config) { c.NoDHT = true })
	at := []string{"--socks", s.SOCKS, "--status", s.Status}
	state := t.TempDir()
	for _, f := range []struct {
		prefs string
		code  int
		says  string
	}{
		{`"proxy_type":2`, 1, `fault +login .*the sidecar asks for a password, and the client has none set`},
		{`"proxy_type":4,"proxy_username":"me","proxy_password":"open barley"`, 1, `fault +login .*refuses the password that is set in the client`},
		{`"proxy_type":4,"proxy_username":"me","proxy_password":"open sesame"`, 0, `Clean`},
	} {
		prefer(t, ctx, c, f.prefs)
		examine(t, ctx, f.code, f.says, at...)
	}
	for _, f := range []struct {
		flags []string
		code  int
		says  string
	}{
		{nil, 1, `wants a password\n +Specify --socks-user`},
		{[]string{"--socks-user", "me", "--socks-password-file", wrong}, 1, `refuses the password in --socks-password-file`},
		{[]string{"--socks-user", "you", "--socks-password-file", secret}, 0, `(?s)proxy_username: "me" → "you".*Done`},
		{[]string{"--socks-user", "you", "--socks-password-file", secret}, 0, `nothing to change`},
	} {
		got := command(t, ctx, shoal(), append([]string{"setup", "qbittorrent", "--yes", "--state", state, "--socks", s.SOCKS}, f.flags...)...)
		if all := got.out + got.stderr; got.code != f.code || !regexp.MustCompile(f.says).MatchString(all) || strings.Contains(all, "sesame") {
			t.Errorf("setup %q: exit code %d, want %d and %q:\n%s", f.flags, got.code, f.code, f.says, all)
		}
	}
	examine(t, ctx, 0, `Clean`, at...)
}

// TestClientsThatShareASidecarAreNamed, and which of several qBittorrents is
// meant is asked for.
func TestClientsThatShareASidecarAreNamed(t *testing.T) {
	network := network(t)
	ctx := deadline(t)
	s := network.Sidecars[0]
	set := func(c *clients.Config) { c.NoDHT = true }
	a, b := client(t, ctx, s, set), client(t, ctx, s, set)
	pids := []string{fmt.Sprint(a.Process().PID()), fmt.Sprint(b.Process().PID())}
	at := []string{"--socks", s.SOCKS, "--status", s.Status}
	examine(t, ctx, 0, `note +shared .*2 clients use `+s.SOCKS+` without a user name \(qBittorrent, pid \d+, qBittorrent, pid \d+\)`, at...)
	for _, c := range []clients.Client{a, b} {
		prefer(t, ctx, c, `"proxy_type":4,"proxy_username":"me","proxy_password":""`)
	}
	examine(t, ctx, 1, `fault +shared .*with the same user name`, at...)

	args := []string{"setup", "qbittorrent", "--yes", "--socks", s.SOCKS, "--socks-user", "you", "--state", t.TempDir()}
	got := command(t, ctx, shoal(), args...)
	for i, c := range []clients.Client{a, b} {
		line := fmt.Sprintf("--pid %s  (pid %s, settings in %s/qBittorrent/config/qBittorrent.conf, Web UI port %s)", pids[i], pids[i], c.Config().Dir, portOf(t, webUI(t, c)))
		if got.code != 1 || !strings.Contains(got.stderr, line) {
			t.Errorf("%+v, want exit code 1 and %q", got, line)
		}
	}
	got = command(t, ctx, shoal(), append(args, "--pid", "1")...)
	if got.code != 1 || !strings.Contains(got.stderr, "process 1 is not qBittorrent; there is pid "+pids[0]) && !strings.Contains(got.stderr, "; there is pid "+pids[1]) {
		t.Errorf("--pid 1: %+v", got)
	}
	// The user is asked, and takes the second of the list.
	said := dialogue(t, ctx, args, "Number [1-2]: ", "2\n")
	chosen := regexp.MustCompile(`  2  pid (\d+),`).FindStringSubmatch(said)
	if chosen == nil || !strings.Contains(said, "Done.") {
		t.Fatalf("%q", said)
	}
	other := pids[0]
	if chosen[1] == other {
		other = pids[1]
	}
	examine(t, ctx, 0, `Clean`, at...) // two names
	if got := command(t, ctx, shoal(), append(args, "--pid", other)...); got.code != 0 || !strings.Contains(got.out, "(pid "+other+",") || !strings.Contains(got.out, `"me" → "you"`) {
		t.Errorf("--pid %s: %+v", other, got)
	}
}

// TestALoginIsAskedForAtTheTerminal, of qBittorrent's Web UI, and not shown.
func TestALoginIsAskedForAtTheTerminal(t *testing.T) {
	ctx := deadline(t)
	s := network(t).Sidecars[0]
	c := client(t, ctx, s, func(c *clients.Config) { c.NoDHT = true })
	prefer(t, ctx, c, `"web_ui_username":"somebody","web_ui_password":"open sesame","bypass_local_auth":false,"proxy_type":0`)
	args := []string{"setup", "qbittorrent", "--yes", "--socks", s.SOCKS, "--state", t.TempDir()}
	if got := command(t, ctx, shoal(), args...); got.code != 1 || !strings.Contains(got.stderr, "--login NAME") {
		t.Errorf("without a terminal: %+v", got)
	}
	said := dialogue(t, ctx, args, "User name: ", "somebody\n", "Password (not shown): ", "open barley\n",
		"User name: ", "somebody\n", "Password (not shown): ", "open sesame\n")
	if !strings.Contains(said, "proxy_type: 0 (None) → 2 (SOCKS5)") || !strings.Contains(said, "Done.") || strings.Contains(said, "sesame") || strings.Contains(said, "barley") {
		t.Errorf("%q", said)
	}
}

// TestClientsForShoalRunAreToldTheirCommand, which is the one that they run with.
func TestClientsForShoalRunAreToldTheirCommand(t *testing.T) {
	network := network(t)
	ctx := deadline(t)
	for _, k := range []clients.Kind{clients.RTorrent, clients.Aria2, clients.BiglyBT} {
		t.Run(k.Name, func(t *testing.T) {
			c := startClient(t, ctx, k, clients.Config{Dir: t.TempDir(), NoDHT: true})
			args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.Process().PID()))
			if err != nil {
				t.Fatal(err)
			}
			run := "shoal run --network FILE -- " + strings.ReplaceAll(strings.TrimRight(string(args), "\x00"), "\x00", " ")
			if k.Name == clients.BiglyBT.Name {
				run = "shoal run --network FILE -- biglybt" // its command line is Java's
			}
			examine(t, ctx, 1, `leak +peers .*\n +to do: stop it and start it under shoal run: `+regexp.QuoteMeta(run)+`\n`,
				"--socks", network.Sidecars[0].SOCKS, "--status", network.Sidecars[0].Status)
			if k.Name == clients.BiglyBT.Name {
				return
			}
			got := command(t, ctx, shoal(), "setup", k.Name, "--state", t.TempDir())
			if got.code != 0 || !strings.Contains(got.out, "nothing to change") || !strings.Contains(got.out, "Start it with: "+run+"\n") {
				t.Errorf("setup: %+v, want %s", got, run)
			}
		})
	}
}

// TestNothingCheckedIsNotClean: the sidecar is all that is looked at.
func TestNothingCheckedIsNotClean(t *testing.T) {
	s := network(t).Sidecars[0]
	got := command(t, deadline(t), shoal(), "doctor", "--socks", s.SOCKS, "--status", s.Status)
	if got.code != 1 || strings.Contains(got.out, "Clean") || !strings.Contains(got.stderr, "no torrent client was checked") {
		t.Errorf("%+v", got)
	}
}

// TestSetupMakesABoundClientTransfer, over an HTTPS tracker alone: two things
// that keep a client that is otherwise set up from its peers.
func TestSetupMakesABoundClientTransfer(t *testing.T) {
	network := network(t)
	internet(t)
	ctx := deadline(t)
	var both []clients.Client
	for _, s := range network.Sidecars[:2] {
		c := client(t, ctx, s, func(c *clients.Config) { c.NoDHT = true })
		prefer(t, ctx, c, `"current_interface_address":"192.0.2.77"`)
		got := command(t, ctx, shoal(), "setup", "qbittorrent", "--pid", fmt.Sprint(c.Process().PID()), "--yes", "--state", t.TempDir(), "--socks", s.SOCKS)
		if got.code != 0 || !strings.Contains(got.out, `validate_https_tracker_certificate: true → false`) || !strings.Contains(got.out, `current_interface_address: "192.0.2.77" → ""`) ||
			!strings.Contains(got.out, "Note: The binding to 192.0.2.77 is removed") {
			t.Fatalf("setup: %+v", got)
		}
		both = append(both, c)
	}
	tor := noise(t, 256<<10, httpsTracker)
	seed(t, ctx, both[0], tor)
	add(t, ctx, both[1], tor)
	arrives(t, ctx, both[1], tor)
}

// TestABoundClientInsideShoalRunIsNamed, and one that is bound to what shoal run
// gives it is not.
func TestABoundClientInsideShoalRunIsNamed(t *testing.T) {
	network := network(t)
	ctx := deadline(t)
	for _, c := range []struct {
		flags []string
		code  int
		says  string
	}{
		{nil, 1, `fault +bound .*it is bound to 10\.2\.0\.2, which shoal run doesn't have.*\n +to do: .*shoal run --interface NAME=ADDRESS`},
		{[]string{"--interface", "wg0=10.2.0.2"}, 0, `Clean\. Checked: Transmission \(pid \d+\)\.`},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "settings.json"), `{"bind-address-ipv4": "10.2.0.2", "dht-enabled": false}`)
		args := append([]string{"run", "--network", network.Network, "--state", t.TempDir()}, c.flags...)
		p, err := process.Start("transmission", exec.Command(shoal(), append(args, "--", "transmission-daemon", "--foreground", "--config-dir", dir)...), filepath.Join(dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		examine(t, ctx, c.code, c.says)
		stop(t, p)
	}
}

// examine runs shoal doctor until it has that exit code and says that: a client
// takes a moment to do as it is told.
func examine(t *testing.T, ctx context.Context, code int, says string, args ...string) {
	t.Helper()
	var got outcome
	err := process.Until(ctx, 300*time.Millisecond, func() (bool, error) {
		got = command(t, ctx, shoal(), append([]string{"doctor"}, args...)...)
		return got.code == code && regexp.MustCompile(says).MatchString(got.out+got.stderr), errors.New("not yet")
	})
	if err != nil {
		t.Errorf("doctor: %v: exit code %d, want %d and %s:\n%s%s", err, got.code, code, says, got.out, got.stderr)
	}
}

// webUI returns where a qBittorrent's Web UI is.
func webUI(t *testing.T, c clients.Client) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.Config().Dir, "qBittorrent/config/qBittorrent.conf"))
	if err != nil {
		t.Fatal(err)
	}
	port := regexp.MustCompile(`(?m)^WebUI\\Port=(\d+)$`).FindSubmatch(b)
	if port == nil {
		t.Fatalf("no port in %s", b)
	}
	return "127.0.0.1:" + string(port[1])
}

// prefer changes preferences of a qBittorrent as its Web UI does.
func prefer(t *testing.T, ctx context.Context, c clients.Client, prefs string) {
	t.Helper()
	form := url.Values{"json": {"{" + prefs + "}"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+webUI(t, c)+"/api/v2/app/setPreferences", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("preferences %s: %s", prefs, resp.Status)
	}
}

// webServer is another program where the sidecar should be: a web server.
func webServer(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return netip.MustParseAddrPort(ln.Addr().String())
}

func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	at, err := process.FreePort(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func portOf(t *testing.T, at string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// dialogue runs shoal at a terminal, and gives each answer when the question
// before it is asked. It returns what the terminal showed.
func dialogue(t *testing.T, ctx context.Context, args []string, script ...string) string {
	t.Helper()
	master, slave := terminal(t)
	cmd := exec.CommandContext(ctx, shoal(), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var shown strings.Builder
	asked := 0 // how much of what is shown was before the last question
	var b [4096]byte
	for {
		n, err := master.Read(b[:]) // fails when the command has ended
		shown.Write(b[:n])
		if len(script) >= 2 {
			if at := strings.Index(shown.String()[asked:], script[0]); at >= 0 {
				asked += at + len(script[0])
				if strings.HasPrefix(script[0], "Password") {
					hidden(t, ctx, master)
				}
				io.WriteString(master, script[1])
				script = script[2:]
			}
		}
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%q: %v: %s", args, err, shown.String())
	}
	return shown.String()
}

// hidden returns once a terminal no longer shows what is typed.
func hidden(t *testing.T, ctx context.Context, master *os.File) {
	t.Helper()
	err := process.Until(ctx, 5*time.Millisecond, func() (bool, error) {
		state, err := unix.IoctlGetTermios(int(master.Fd()), unix.TCGETS)
		return err == nil && state.Lflag&unix.ECHO == 0, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// terminal returns both ends of a new terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "terminal")
	t.Cleanup(func() { master.Close() })
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}
