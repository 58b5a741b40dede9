package netns

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// roleEnv makes this test binary play another process: its value names the
// role, the arguments are the role's.
const roleEnv = "SHOAL_TEST_ROLE"

var roles = map[string]func(args []string) error{}

func TestMain(m *testing.M) {
	Init()
	if name := os.Getenv(roleEnv); name != "" {
		if err := roles[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// A process built with the race detector sleeps a second when it exits.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	// Under nohup SIGHUP is ignored, and so are SIGINT and SIGQUIT behind a
	// script's &: whoever is started here would inherit that.
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT)
	go func() {
		<-ends
		os.Exit(1)
	}()
	os.Exit(m.Run())
}

// envNoTUN makes the tests take the veth pair although there is a TUN.
const envNoTUN = "SHOAL_TEST_NO_TUN"

// patience is how long a test waits for what must happen.
const patience = time.Minute

// standIn is an address outside that no test gives a meaning.
var standIn = netip.MustParseAddrPort("198.18.4.2:6881")

func executablePath(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// as is the Config of a command that plays a role.
func as(t testing.TB, h Handler, role string, args ...string) Config {
	t.Helper()
	cfg := shell(t, h, "")
	cfg.Command = append([]string{executablePath(t)}, args...)
	cfg.Env = append(cfg.Env, roleEnv+"="+role)
	return cfg
}

// shell is the Config of a command for sh.
func shell(t testing.TB, h Handler, script string) Config {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	return Config{
		Command: []string{"sh", "-c", script},
		Env:     os.Environ(),
		Stdin:   null,
		Handler: h,
		Say:     func(line string) { t.Log("said: " + line) },
		noTUN:   os.Getenv(envNoTUN) != "",
	}
}

// run runs cfg to its end and returns what it wrote to stdout and stderr.
func run(t testing.TB, cfg Config) (output string, code int) {
	t.Helper()
	var out lockedBuffer
	cfg.Stdout, cfg.Stderr = &out, &out
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	code, err := Run(ctx, cfg)
	if err != nil {
		t.Fatalf("Run: %v\n%s", err, out.String())
	}
	return out.String(), code
}

// mustRun is run for a command that has to succeed.
func mustRun(t testing.TB, cfg Config) string {
	t.Helper()
	out, code := run(t, cfg)
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	return strings.TrimSpace(out)
}

// live is a command that runs while the test talks to it.
type live struct {
	t    testing.TB
	net  *Network
	out  *bufio.Reader // its stdout
	stop context.CancelFunc
	done chan struct{}
	code int
	err  error
}

// begin starts cfg and returns once the command is about to run. The command
// is ended with the test.
func begin(t testing.TB, cfg Config) *live {
	t.Helper()
	r, w := io.Pipe()
	l := &live{t: t, out: bufio.NewReader(r), done: make(chan struct{})}
	ready := make(chan *Network, 1)
	cfg.Stdout, cfg.Stderr = w, os.Stderr
	cfg.Ready = func(_ context.Context, n *Network) { ready <- n }
	var ctx context.Context
	ctx, l.stop = context.WithCancel(context.Background())
	go func() {
		defer close(l.done)
		l.code, l.err = Run(ctx, cfg)
		w.Close()
	}()
	t.Cleanup(func() {
		r.Close()
		l.stop()
		<-l.done
	})
	select {
	case l.net = <-ready:
	case <-l.done:
		t.Fatalf("Run: %v", l.err)
	case <-time.After(patience):
		t.Fatal("the namespace doesn't come up")
	}
	return l
}

// line returns the command's next line of output.
func (l *live) line() string {
	l.t.Helper()
	s, err := l.out.ReadString('\n')
	if err != nil {
		l.t.Fatalf("the command's output ended: %q, %v", s, err)
	}
	return strings.TrimSuffix(s, "\n")
}

// wait returns the exit code.
func (l *live) wait() int {
	l.t.Helper()
	select {
	case <-l.done:
	case <-time.After(patience):
		l.t.Fatal("Run doesn't return")
	}
	if l.err != nil {
		l.t.Fatalf("Run: %v", l.err)
	}
	return l.code
}

// traffic is a Handler made of functions; those not set refuse.
type traffic struct {
	tcp  func(ctx context.Context, src, dst netip.AddrPort) (func(Conn), error)
	udp  func(payload []byte, src, dst netip.AddrPort)
	name func(string) netip.Addr
}

var errNobody = errors.New("nobody there")

func (h traffic) TCP(ctx context.Context, src, dst netip.AddrPort) (func(Conn), error) {
	if h.tcp == nil {
		return nil, errNobody
	}
	return h.tcp(ctx, src, dst)
}

func (h traffic) UDP(payload []byte, src, dst netip.AddrPort) {
	if h.udp != nil {
		h.udp(payload, src, dst)
	}
}

func (h traffic) Name(name string) netip.Addr {
	if h.name == nil {
		return netip.Addr{}
	}
	return h.name(name)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// eventually waits until ok, which something outside this process decides.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// openTo makes a copy of this test binary that every user may run.
func openTo(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "netns-test-*") // t.TempDir is the caller's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := os.ReadFile(executablePath(t))
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	file := filepath.Join(dir, "netns.test")
	if err == nil {
		err = os.WriteFile(file, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}
