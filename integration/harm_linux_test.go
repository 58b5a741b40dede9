package integration

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/proxy/proc"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// TestGarbageDisturbsNobody: whatever comes to the ports, a transfer that
// begins after it works, and every process is the one that it was.
func TestGarbageDisturbsNobody(t *testing.T) {
	network := network(t)
	ctx := deadline(t)
	ports := []string{network.Sidecars[0].SOCKS, network.Sidecars[0].Status[len("http://"):]}
	for _, r := range network.Relays {
		ports = append(ports, r.Addr)
	}
	for _, tr := range network.Trackers {
		ports = append(ports, tr.Addr)
	}
	noise64k := make([]byte, 64<<10)
	rand.Read(noise64k)
	inputs := map[string][]byte{
		"nothing":             nil,
		"noise":               noise64k,
		"zeros":               make([]byte, 64<<10),
		"half a TLS hello":    {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"a huge TLS record":   {0x16, 3, 1, 0xff, 0xff},
		"half a SOCKS hello":  {5, 255, 0},
		"SOCKS version 4":     {4, 1, 0, 80, 198, 18, 0, 1, 0},
		"SOCKS with no end":   append([]byte{5, 1, 0, 5, 1, 0, 3, 255}, make([]byte, 254)...),
		"an unknown command":  {5, 1, 0, 5, 9, 0, 1, 198, 18, 0, 1, 0, 80},
		"HTTP":                []byte("GET / HTTP/1.1\r\nHost: " + strings.Repeat("a", 1<<16)),
		"a BitTorrent hello":  append([]byte("\x13BitTorrent protocol"), make([]byte, 48)...),
		"TLS, and then noise": nil, // see below
	}
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for _, port := range ports {
		for name, input := range inputs {
			conn, err := net.DialTimeout("tcp", port, time.Minute)
			if err != nil {
				t.Errorf("%s takes no connections any more: %v", port, err)
				continue
			}
			open = append(open, conn) // half of the harm is that it stays
			conn.SetDeadline(time.Now().Add(time.Minute))
			if name == "TLS, and then noise" {
				secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
				if secure.Handshake() == nil {
					secure.Write(noise64k)
				}
				continue
			}
			conn.Write(input)
		}
	}
	move(t, ctx, network, 0, 1, noise(t, 256<<10, httpTracker))
	for _, tr := range network.Trackers {
		alive(t, "tracker", tr.Process)
	}
	for _, r := range network.Relays {
		alive(t, "relay", r.Process)
	}
	for _, s := range network.Sidecars {
		alive(t, "sidecar", s.Process)
	}
}

func alive(t *testing.T, what string, p *process.Process) {
	t.Helper()
	select {
	case <-p.Gone():
		t.Errorf("a %s ended: %v", what, p.Err())
	default:
	}
}

// TestACorruptStateFileIsAClearErrorOrOfNoImportance: every file that a process
// keeps, one at a time. A process that can't go on without a file names it and
// keeps what is in it, for its owner to see.
func TestACorruptStateFileIsAClearErrorOrOfNoImportance(t *testing.T) {
	ctx := deadline(t)
	network := start(t, ctx, testnet.Config{Trackers: 1, Relays: 4, Sidecars: 1, Block: 1})
	if err := network.Close(); err != nil {
		t.Fatal(err)
	}
	relay, tracker, sidecar := network.Relays[0], network.Trackers[0], network.Sidecars[0]
	for _, p := range []struct {
		name, program, state string
		args                 []string
	}{
		{"proxy", shoal(), sidecar.State, []string{"proxy", "--socks", "127.0.0.1:0", "--status", "127.0.0.1:0"}},
		{"relay", shoal(), relay.State, []string{"relay", "--listen", relay.Addr}},
		{"tracker", shoalTracker(), tracker.State, []string{"--listen", tracker.Addr}},
	} {
		args := append(p.args, "--network", network.Network)
		refused := 0
		err := filepath.WalkDir(p.state, func(file string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() || entry.Name() == "log" {
				return err
			}
			good, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for what, bad := range map[string][]byte{
				"garbage": []byte("\x00garbage\xff\n{"),
				"half":    good[:len(good)/2],
				"empty":   nil,
			} {
				state := filepath.Join(t.TempDir(), "state")
				if out, err := exec.Command("cp", "-a", p.state, state).CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				relative, err := filepath.Rel(p.state, file)
				if err != nil {
					return err
				}
				corrupt := filepath.Join(state, relative)
				if err := os.WriteFile(corrupt, bad, 0o600); err != nil {
					return err
				}
				ended := runUntilItSpeaks(t, ctx, p.program, append(args, "--state", state)...)
				if ended == nil {
					continue // it went on without
				}
				refused++
				words := ended.LastWords()
				if ended.ExitCode() != 1 || !strings.Contains(words, filepath.Base(file)) || strings.Contains(words, "goroutine") {
					t.Errorf("%s, %s is %s: exit code %d, %q, want 1 and the file's name", p.name, relative, what, ended.ExitCode(), words)
				}
				if !kept(t, filepath.Dir(corrupt), bad) {
					t.Errorf("%s, %s is %s: what was in it is lost; it said %q", p.name, relative, what, words)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if refused == 0 && p.name != "proxy" { // a sidecar replaces whatever is damaged
			t.Errorf("%s: no file is of importance, not even its identity", p.name)
		}
	}
}

// kept says if a file in dir holds content, under whatever name.
func kept(t *testing.T, dir string, content []byte) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		return err == nil && string(b) == string(content)
	})
}

// runUntilItSpeaks runs a program until it prints where it is, which it does
// once it has taken up its state, and returns it if it ended before.
func runUntilItSpeaks(t *testing.T, ctx context.Context, program string, args ...string) *process.Process {
	t.Helper()
	cmd := exec.Command(program, args...)
	out, said, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout = said
	p, err := process.Start(filepath.Base(program), cmd, filepath.Join(t.TempDir(), "log"))
	said.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer context.AfterFunc(ctx, func() { out.Close() })()
	if n, _ := out.Read(make([]byte, 1)); n == 0 {
		<-p.Gone()
		return p
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	return nil
}

// TestAWrongTrackerKeyIsNeverBelieved: the sidecar says that it is not ready,
// and why.
func TestAWrongTrackerKeyIsNeverBelieved(t *testing.T) {
	shared := network(t)
	ctx := deadline(t)
	file, err := directory.LoadNetwork(shared.Network)
	if err != nil {
		t.Fatal(err)
	}
	for i := range file.Trackers {
		rand.Read(file.Trackers[i].Key[:])
	}
	wrong := filepath.Join(t.TempDir(), "network.json")
	if err := os.WriteFile(wrong, file.File(), 0o600); err != nil {
		t.Fatal(err)
	}
	page, err := process.FreePort(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := process.Start("sidecar", exec.Command(shoal(), "proxy", "--network", wrong, "--state", t.TempDir(),
		"--socks", "127.0.0.1:0", "--status", page.String()), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	s := testnet.Sidecar{Status: "http://" + page.String()}
	said := ""
	for until := time.Now().Add(4 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		alive(t, "sidecar", p)
		if status, err := s.ReadStatus(ctx); err == nil {
			if status.Ready {
				t.Fatal("it is ready")
			}
			said = status.Why
		}
	}
	if said == "" {
		t.Errorf("it does not say why it is not ready; its last words: %s", p.LastWords())
	}
	t.Logf("it says: %s", said)
}

// TestNothingIsLeftOfAClientThatIsKilled: streams end, and so do the sockets of
// the sidecars that carried them.
func TestNothingIsLeftOfAClientThatIsKilled(t *testing.T) {
	network := network(t)
	ctx := deadline(t)
	held := func() int {
		all := func(proc.Socket) bool { return true }
		return len(locals(t, network.Sidecars[0].PID, all)) + len(locals(t, network.Sidecars[1].PID, all))
	}
	before := held()
	seeder := client(t, ctx, network.Sidecars[0], nil)
	leecher := client(t, ctx, network.Sidecars[1], nil)
	tor := noise(t, 256<<10, httpTracker)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	add(t, ctx, leecher, tor)
	arrives(t, ctx, leecher, tor)
	during := held()
	seeder.Process().Kill()
	leecher.Process().Kill()
	err := process.Until(ctx, 50*time.Millisecond, func() (bool, error) {
		streams := 0
		for _, s := range network.Sidecars[:2] {
			status, err := s.ReadStatus(ctx)
			if err != nil {
				return false, err
			}
			streams += status.Streams
		}
		// Links to guards may have been made meanwhile: two for each sidecar.
		return streams == 0 && held() <= before+4, nil
	})
	if err != nil {
		t.Errorf("%v: %d sockets before, %d during, %d at the end", err, before, during, held())
	}
}
