package netns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestExitCodes(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0":            0,
		"exit 7":            7,
		"exit 255":          255,
		"kill -TERM $$":     128 + 15,
		"kill -KILL $$":     128 + 9,
		"exec /bin/false":   1,
		"sh -c 'kill -9 0'": 128 + 9,
	} {
		if strings.Contains(script, "kill -9 0") {
			script = "setsid " + script // only its own group
			want = 137
		}
		if _, code := run(t, shell(t, traffic{}, script)); code != want {
			t.Errorf("%s: exit code %d, want %d", script, code, want)
		}
	}
}

func TestCommandsThatCannotRun(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	os.WriteFile(text, []byte("no program"), 0o644)
	garbage := filepath.Join(dir, "garbage")
	os.WriteFile(garbage, []byte("\x00no program"), 0o755)
	for _, c := range []struct {
		command string
		code    int
		fails   bool
	}{
		{"no-such-command-anywhere", ExitNotFound, true},
		{filepath.Join(dir, "none"), ExitNotFound, true},
		{filepath.Dir(text), ExitNotRunable, true},
		{text, ExitNotRunable, true},
		{garbage, ExitNotRunable, false}, // found out inside, and said there
	} {
		cfg := shell(t, traffic{}, "")
		cfg.Command = []string{c.command}
		var out lockedBuffer
		cfg.Stderr = &out
		code, err := Run(t.Context(), cfg)
		if code != c.code || (err != nil) != c.fails {
			t.Errorf("Run of %s = %d, %v; want %d", c.command, code, err, c.code)
		}
		if !c.fails && !strings.Contains(out.String(), "can't run "+c.command) {
			t.Errorf("stderr says %q", out.String())
		}
	}
}

func TestUserHomeAndFolderStay(t *testing.T) {
	dir := t.TempDir()
	cfg := shell(t, traffic{}, `id -u; id -g; echo "$HOME"; pwd -P; echo "$MINE,$http_proxy,$ALL_PROXY,$0"; : >here`)
	cfg.Dir = dir
	cfg.Env = append(cfg.Env, "HOME=/some/where", "MINE=yes", "http_proxy=http://127.0.0.1:1", "ALL_PROXY=socks5://127.0.0.1:1")
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%d\n%d\n/some/where\n%s\nyes,,,sh", os.Getuid(), os.Getgid(), real)
	if out := mustRun(t, cfg); out != want {
		t.Errorf("the command has\n%s\nwant\n%s", out, want)
	}
	info, err := os.Stat(filepath.Join(dir, "here"))
	if err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != os.Getuid() {
		t.Errorf("its file outside: %v, %v", info, err)
	}
}

func TestStandardStreamsPassThrough(t *testing.T) {
	cfg := shell(t, traffic{}, "cat; echo complaint >&2")
	cfg.Stdin = strings.NewReader("some input")
	var out, errs lockedBuffer
	cfg.Stdout, cfg.Stderr = &out, &errs
	code, err := Run(t.Context(), cfg)
	if code != 0 || err != nil || out.String() != "some input" || errs.String() != "complaint\n" {
		t.Errorf("Run = %d, %v; stdout %q, stderr %q", code, err, out.String(), errs.String())
	}
}

// gone waits until no process has any of pids, which are numbers of the host.
func gone(t *testing.T, pids ...string) {
	t.Helper()
	for _, pid := range pids {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatalf("no process id: %q", pid)
		}
		eventually(t, "process "+pid+" ends", func() bool {
			// One that nobody has waited for yet ended too.
			stat, _ := os.ReadFile("/proc/" + pid + "/stat")
			return syscall.Kill(n, 0) == syscall.ESRCH || strings.Contains(string(stat), ") Z ")
		})
	}
}

func TestTheEndOfTheContextEndsTheCommand(t *testing.T) {
	l := begin(t, shell(t, traffic{}, `trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done`))
	l.line()
	l.stop()
	if got := l.line(); got != "bye" {
		t.Errorf("the command said %q", got)
	}
	if code := l.wait(); code != 5 {
		t.Errorf("exit code %d, want the command's 5", code)
	}
}

func TestADeafCommandIsKilled(t *testing.T) {
	cfg := shell(t, traffic{}, `trap '' TERM; (trap '' TERM; sleep 1000) & echo $! $$; setsid sh -c 'trap "" TERM; echo $$; sleep 1000; :' & wait`)
	cfg.Grace = 300 * time.Millisecond
	l := begin(t, cfg)
	pids := append(strings.Fields(l.line()), l.line())
	start := time.Now()
	l.stop()
	if code := l.wait(); code != 128+9 {
		t.Errorf("exit code %d, want 137", code)
	}
	if d := time.Since(start); d < cfg.Grace {
		t.Errorf("killed after %v, want not before %v", d, cfg.Grace)
	}
	gone(t, pids...)
}

func TestWhatACommandLeavesBehindEnds(t *testing.T) {
	cfg := shell(t, traffic{}, `sleep 1000 & echo $!; setsid sh -c 'echo $$; : >up; sleep 1000; :' & until [ -e up ]; do sleep 0.01; done; exit 3`)
	cfg.Dir = t.TempDir()
	l := begin(t, cfg)
	pids := []string{l.line(), l.line()}
	if code := l.wait(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	gone(t, pids...)
}

func TestACommandInTheBackgroundIsWaitedFor(t *testing.T) {
	said := make(chan string, 1)
	dir := t.TempDir()
	cfg := shell(t, traffic{}, `setsid sh -c 'echo $$; until [ -e go ]; do sleep 0.05; done; echo done' & exit 0`)
	cfg.Dir = dir
	cfg.Say = func(line string) { said <- line }
	l := begin(t, cfg)
	pid := l.line()
	if got := <-said; !strings.Contains(got, "background") {
		t.Errorf("said %q", got)
	}
	select {
	case <-l.done:
		t.Fatal("Run returned before the daemon ended")
	default:
	}
	os.WriteFile(filepath.Join(dir, "go"), nil, 0o600)
	if got := l.line(); got != "done" {
		t.Errorf("the daemon said %q", got)
	}
	if code := l.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	gone(t, pid)

	l = begin(t, shell(t, traffic{}, `setsid sh -c 'echo $$; sleep 1000; :' & exit 0`))
	pid = l.line()
	l.stop()
	l.wait()
	gone(t, pid)
}

func init() {
	// host SCRIPT: a process that runs SCRIPT in a namespace, as shoal does.
	roles["host"] = func(args []string) error {
		code, err := Run(context.Background(), Config{
			Command: []string{"sh", "-c", args[0]},
			Env:     without(os.Environ(), roleEnv),
			Handler: traffic{tcp: echoing},
			Grace:   300 * time.Millisecond,
			noTUN:   os.Getenv(envNoTUN) != "",
		})
		if err != nil {
			return err
		}
		os.Exit(code)
		return nil
	}
}

func without(env []string, name string) (out []string) {
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			out = append(out, v)
		}
	}
	return out
}

// host starts a process of its own that runs script in a namespace.
func host(t *testing.T, script string, attr *syscall.SysProcAttr, files ...*os.File) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	return hostAs(t, "host", script, attr, files...)
}

// hostAs is host for another role.
func hostAs(t *testing.T, role, script string, attr *syscall.SysProcAttr, files ...*os.File) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(executablePath(t), script)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	cmd.ExtraFiles = files
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	r := bufio.NewReader(out)
	return cmd, r
}

func readLine(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("output ended: %q, %v", s, err)
	}
	return strings.TrimSuffix(s, "\n")
}

func TestSIGTERMEndsTheCommand(t *testing.T) {
	if DefaultGrace > 7*time.Second {
		t.Errorf("the command has %v to end, which leaves no second of eight", DefaultGrace)
	}
	for _, c := range []struct {
		script string
		code   int
	}{
		{`trap 'exit 4' TERM; echo $$ $PPID; while :; do sleep 0.1; done`, 4},
		{`trap '' TERM; echo $$ $PPID; while :; do sleep 0.1; done`, 137},
	} {
		cmd, out := host(t, c.script, nil)
		pids := strings.Fields(readLine(t, out))
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != c.code {
			t.Errorf("exit code %d, want %d", got, c.code)
		}
		gone(t, pids...)
	}
}

func TestOtherSignalsReachTheCommand(t *testing.T) {
	for sig, name := range map[syscall.Signal]string{syscall.SIGHUP: "HUP", syscall.SIGINT: "INT", syscall.SIGUSR1: "USR1"} {
		// In a session of its own it is not at a terminal.
		cmd, out := host(t, `trap 'echo got `+name+`; exit 6' `+name+`; echo up; while :; do sleep 0.05; done`, &syscall.SysProcAttr{Setsid: true})
		readLine(t, out)
		cmd.Process.Signal(sig)
		if got := readLine(t, out); got != "got "+name {
			t.Errorf("the command says %q", got)
		}
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != 6 {
			t.Errorf("exit code %d, want 6", got)
		}
	}
}

func TestKillingTheSidecarLeavesNoProcess(t *testing.T) {
	cmd, out := host(t, `setsid sleep 1000 & echo $! $$ $PPID; wait`, nil)
	pids := strings.Fields(readLine(t, out))
	cmd.Process.Kill()
	cmd.Wait()
	gone(t, pids...)
}

func TestKillingTheSupervisorEndsTheCommand(t *testing.T) {
	l := begin(t, shell(t, traffic{}, `echo $PPID; echo $$; while :; do sleep 0.1; done`))
	supervisor, main := l.line(), l.line()
	pid, _ := strconv.Atoi(supervisor)
	syscall.Kill(pid, syscall.SIGKILL)
	select {
	case <-l.done:
	case <-time.After(patience):
		t.Fatal("Run doesn't return")
	}
	if l.err == nil || l.code != ExitNotStarted {
		t.Errorf("Run = %d, %v", l.code, l.err)
	}
	gone(t, main)
}

func TestATerminalStaysOne(t *testing.T) {
	master, slave := openPTY(t)
	cmd := exec.Command(executablePath(t), `trap 'echo interrupted; exit 9' INT; [ -t 0 ] && [ -t 1 ] && tty && stty size && echo ready; while :; do sleep 0.05; done`)
	cmd.Env = append(os.Environ(), roleEnv+"=host")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	name := slave.Name()
	slave.Close()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewScanner(master)
	next := func() string {
		for lines.Scan() {
			if l := strings.TrimSpace(lines.Text()); l != "" {
				return l
			}
		}
		return ""
	}
	for _, want := range []string{name, "33 77", "ready"} {
		if got := next(); got != want {
			t.Fatalf("the terminal shows %q, want %q", got, want)
		}
	}
	io.WriteString(master, "\x03")
	if got := next(); !strings.HasSuffix(got, "interrupted") {
		t.Errorf("after ^C the terminal shows %q", got)
	}
	if got := next(); got != "" {
		t.Errorf("after that the terminal shows %q, want nothing: one ^C, one signal", got)
	}
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 9 {
		t.Errorf("exit code %d, want 9", got)
	}
}

// openPTY returns a new terminal of 33 lines and 77 columns.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	raw.Control(func(fd uintptr) {
		err = errors.Join(
			unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0),
			unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}))
		if err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

func TestIgnoredSignalsStayIgnored(t *testing.T) {
	// As under nohup: the shell that starts us ignores SIGHUP.
	cmd := exec.Command("sh", "-c", `trap '' HUP; exec "$0" 'grep SigIgn /proc/self/status'`, executablePath(t))
	cmd.Env = append(os.Environ(), roleEnv+"=host")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(out))
	if len(f) != 2 {
		t.Fatalf("%s", out)
	}
	mask, err := strconv.ParseUint(f[1], 16, 64)
	if err != nil || mask&1 == 0 {
		t.Errorf("the command ignores %q, want SIGHUP among them", f[1])
	}
}

func init() {
	// sockets: prints which descriptors beyond the standard ones are sockets.
	roles["sockets"] = func([]string) error {
		for fd := 3; fd < 100; fd++ {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil {
				fmt.Print(fd, st.Mode&unix.S_IFMT == unix.S_IFSOCK, " ")
			}
		}
		fmt.Println()
		return nil
	}
}

func TestSocketsOfTheHostAreNotInherited(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	// The host gets both, as from a shell; the command may have the file only.
	_, out := host(t, `for d in 3 4 5 6 7 8 9; do [ -e /proc/self/fd/$d ] && readlink /proc/self/fd/$d; done; echo end`, nil, f, null)
	if got := readLine(t, out); got != os.DevNull {
		t.Errorf("the command has %s, want %s first", got, os.DevNull)
	}
	for {
		got := readLine(t, out)
		if got == "end" {
			break
		}
		t.Errorf("the command has %s as well", got)
	}
}

func TestRunLeavesNothingBehind(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())                                        // where no other process leaves anything
	mustRun(t, as(t, traffic{tcp: echoing}, "tcp", standIn.String(), "x")) // warm up
	fds := func() int { d, _ := os.ReadDir("/proc/self/fd"); return len(d) }
	before, open := runtime.NumGoroutine(), fds()
	for range 3 {
		cfg := as(t, traffic{tcp: echoing, name: nameOf}, "tcp", standIn.String(), "x")
		cfg.Publish = []Publish{{Host: netip.MustParseAddrPort("127.0.0.1:0"), Port: 1}}
		mustRun(t, cfg)
	}
	eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before })
	if got := fds(); got > open+3 { // three times /dev/null, closed with the test
		t.Errorf("%d descriptors, before there were %d", got, open)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "shoal-run-*")); len(left) != 0 {
		t.Errorf("files left: %v", left)
	}
	if c := children(); len(c) != 0 {
		t.Errorf("processes left: %v", c)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{
		{Handler: traffic{}},
		{Command: []string{""}, Handler: traffic{}},
		{Command: []string{"true"}},
		{Command: []string{"true"}, Handler: traffic{}, Publish: []Publish{{Port: 1}}},
		{Command: []string{"true"}, Handler: traffic{}, Publish: []Publish{{Host: netip.MustParseAddrPort("127.0.0.1:1")}}},
	} {
		if code, err := Run(t.Context(), cfg); err == nil || code != ExitNotStarted {
			t.Errorf("Run(%+v) = %d, %v", cfg, code, err)
		}
	}
}
