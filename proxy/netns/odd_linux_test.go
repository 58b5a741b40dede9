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
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Systems as they are found: without a disk that can be written, with other
// people's resolv.conf, under a service manager.

// ownMounts are what each role below begins with: nobody notices its mounts.
func ownMounts() error { return unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "") }

// runScript runs a script inside, with its output on this process's own.
func runScript(script string, change ...func(*Config)) (code int, err error) {
	cfg := Config{
		Command: []string{"sh", "-c", script},
		Env:     without(os.Environ(), roleEnv),
		Handler: traffic{name: nameOf},
		Say:     func(line string) { fmt.Println("said:", line) },
		noTUN:   os.Getenv(envNoTUN) != "",
	}
	for _, c := range change {
		c(&cfg)
	}
	return Run(context.Background(), cfg)
}

func init() {
	// diskless: a system on which no file can be made.
	roles["diskless"] = func([]string) error {
		var root unix.Statfs_t
		err := errors.Join(ownMounts(), unix.Statfs("/", &root))
		// What a user namespace may not take off has to be named again.
		keep := uintptr(root.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
		if err := errors.Join(err,
			unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|keep, ""),
			unix.Mount("tmpfs", "/tmp", "tmpfs", unix.MS_RDONLY, ""),
		); err != nil {
			return err
		}
		if err := os.WriteFile("/etc/a file", nil, 0o600); err == nil {
			return errors.New("the disk can be written: this test shows nothing")
		}
		for _, dir := range []string{"/tmp", "/sys", "/run/user/4711/tmp", ""} {
			os.Setenv("TMPDIR", dir)
			code, err := runScript("getent ahostsv4 tracker.example | head -1; cat /etc/resolv.conf | head -1; grep hosts /etc/nsswitch.conf")
			if err != nil || code != 0 {
				return fmt.Errorf("TMPDIR=%s: %d, %w", dir, code, err)
			}
		}
		return nil
	}
}

func TestNoFileOnADiskIsNeeded(t *testing.T) {
	want := strings.TrimSpace(strings.Repeat("198.18.9.9      STREAM tracker.example\nnameserver 10.64.0.1\nhosts: files dns\n", 4))
	if got := outer(t, "diskless", 0); got != want {
		t.Errorf("inside:\n%s\nwant:\n%s", got, want)
	}
}

// emptyEtc covers /etc with a folder that has the little that getent needs.
func emptyEtc() error {
	cache, _ := os.ReadFile("/etc/ld.so.cache") // not every system has one
	return errors.Join(ownMounts(),
		unix.Mount("tmpfs", "/etc", "tmpfs", 0, "mode=0755"),
		os.WriteFile("/etc/nsswitch.conf", []byte("hosts: resolve mdns4 dns\n"), 0o644),
		os.WriteFile("/etc/ld.so.cache", cache, 0o644))
}

// resolvConfs are what may be in the place of /etc/resolv.conf.
var resolvConfs = []struct {
	name string
	put  func(path string) error
}{
	{"missing", func(string) error { return nil }},
	{"a folder", func(path string) error { return os.Mkdir(path, 0o755) }},
	{"a link to nowhere", func(path string) error { return os.Symlink("/nowhere/resolv.conf", path) }},
	{"a link to what is hidden", func(path string) error { return os.Symlink("../run/systemd/resolve/stub-resolv.conf", path) }},
	{"a link to itself", func(path string) error { return os.Symlink("resolv.conf", path) }},
	{"a device", func(path string) error { return os.Symlink("/dev/null", path) }},
	{"closed", func(path string) error { return os.WriteFile(path, []byte("nameserver 192.0.2.9\n"), 0) }},
	{"empty", func(path string) error { return os.WriteFile(path, nil, 0o644) }},
	{"garbage", func(path string) error { return os.WriteFile(path, []byte("\x00\xff nameserver\n"), 0o644) }},
	{"127.0.1.1", nameserver("127.0.1.1")},
	{"::1", nameserver("::1")},
	{"2001:db8::53", nameserver("2001:db8::53")},
	{"fe80::1%shoal0", nameserver("fe80::1%shoal0")},
	{"fe80::1%eth0", nameserver("fe80::1%eth0")},
}

func nameserver(addr string) func(string) error {
	return func(path string) error { return os.WriteFile(path, []byte("nameserver "+addr+"\n"), 0o644) }
}

func init() {
	const file = "/etc/resolv.conf"
	// resolvconf: whatever is there when the command starts.
	roles["resolvconf"] = func([]string) error {
		if err := emptyEtc(); err != nil {
			return err
		}
		for _, c := range resolvConfs {
			if err := errors.Join(os.RemoveAll(file), c.put(file)); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if _, err := runScript("echo " + c.name + ": $(getent ahostsv4 tracker.example | head -1)"); err != nil {
				fmt.Println(c.name, err)
			}
		}
		return nil
	}
	// replaced: whatever the host puts there while the command runs.
	roles["replaced"] = func([]string) error {
		if err := errors.Join(emptyEtc(), nameserver("192.0.2.9")(file)); err != nil {
			return err
		}
		for _, c := range resolvConfs {
			replace := func() error {
				err := errors.Join(os.RemoveAll(file), c.put("/etc/new"))
				if err == nil && c.name != "missing" {
					err = os.Rename("/etc/new", file)
				}
				return err
			}
			// Only a server that the kernel itself refuses has to wait for the overlay.
			err := whileRunning(replace, `again; n=0; until getent ahostsv4 tracker.example >out || [ $n = 500 ]; do n=$((n+1)); sleep 0.02; done; echo `+c.name+`: $(head -1 out)`)
			if err != nil {
				fmt.Println(c.name, err)
			}
		}
		return nil
	}
}

// whileRunning runs a script whose function again has the host do something.
func whileRunning(do func() error, script string, change ...func(*Config)) error {
	asks, ask, err := os.Pipe()
	if err != nil {
		return err
	}
	hear, says, err := os.Pipe()
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(asks); lines.Scan(); {
			if err := do(); err != nil {
				fmt.Println(err)
			}
			io.WriteString(says, "done\n")
		}
	}()
	code, err := runScript("again() { echo again >&2; read done; }; cd /etc; "+script, append(change, func(cfg *Config) { cfg.Stdin, cfg.Stderr = hear, ask })...)
	ask.Close()
	<-done
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	return errors.Join(err, asks.Close(), hear.Close(), says.Close())
}

func TestNamesResolveWhateverResolvConfIs(t *testing.T) {
	var want string
	for _, c := range resolvConfs {
		want += c.name + ": 198.18.9.9 STREAM tracker.example\n"
	}
	want = strings.TrimSpace(want)
	for _, role := range []string{"resolvconf", "replaced"} {
		if got := outer(t, role, 0); got != want {
			t.Errorf("%s: inside:\n%s\nwant:\n%s", role, got, want)
		}
	}
}

func init() {
	// kept: a host that replaces the files again and again.
	roles["kept"] = func([]string) error {
		if err := errors.Join(emptyEtc(), nameserver("192.0.2.9")("/etc/resolv.conf"), os.MkdirAll("/etc/ssl", 0o755)); err != nil {
			return err
		}
		replace := func() error {
			return errors.Join(nameserver("192.0.2.10")("/etc/new"), os.Rename("/etc/new", "/etc/resolv.conf"),
				os.WriteFile("/etc/new", []byte("the host's\n"), 0o644), os.Rename("/etc/new", "/etc/ssl/cert.pem"))
		}
		script := `for i in 1 2 3; do
				again
				n=0; until grep -q 10.64.0.1 resolv.conf && grep -q BEGIN ssl/cert.pem || [ $n = 300 ]; do n=$((n+1)); sleep 0.02; done
				grep nameserver resolv.conf; grep BEGIN ssl/cert.pem; grep hosts nsswitch.conf
			done`
		return whileRunning(replace, script, func(cfg *Config) { cfg.Trust = certificate("Test").pem })
	}
}

func TestOurFilesComeBackWhenTheHostReplacesThem(t *testing.T) {
	want := strings.TrimSpace(strings.Repeat("nameserver 10.64.0.1\n-----BEGIN CERTIFICATE-----\nhosts: files dns\n", 3))
	if got := outer(t, "kept", 0); got != want {
		t.Errorf("inside:\n%s\nwant:\n%s", got, want)
	}
}

func init() {
	// tell MESSAGE…: tells the service manager, as sd_notify(3) does.
	roles["tell"] = func(args []string) error {
		name := os.Getenv(notifyVariable)
		if name == "" {
			fmt.Println("there is no manager")
			return nil
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		for _, m := range args {
			// With a descriptor, as FDSTORE=1 and BARRIER=1 have it.
			err = errors.Join(err, unix.Sendmsg(fd, []byte(m), unix.UnixRights(1), &unix.SockaddrUnix{Name: name}, 0))
		}
		return errors.Join(err, unix.Close(fd))
	}
	// manager NAME: a service manager that listens at NAME.
	roles["manager"] = func(args []string) error {
		if err := errors.Join(ownMounts(), unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"), os.MkdirAll("/run/user/7/systemd", 0o755)); err != nil {
			return err
		}
		os.Setenv(notifyVariable, args[0])
		run := func() error {
			code, err := runScript("", func(cfg *Config) {
				cfg.Command = []string{os.Args[0], "STATUS=a line\nREADY=1\nMAINPID=1\n", "FDSTORE=1", "WATCHDOG=1"}
				for range 20 {
					cfg.Command = append(cfg.Command, "STATUS=the last words")
				}
				cfg.Command = append(cfg.Command, "STOPPING=1")
				cfg.Env = append(cfg.Env, roleEnv+"=tell")
			})
			if code != 0 {
				fmt.Println("exit code", code)
			}
			return err
		}
		if strings.Contains(args[0], "nobody") {
			return run()
		}
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: args[0], Net: "unixgram"})
		if err != nil {
			return err
		}
		heard := make(chan error, 1)
		go func() { heard <- printNotifications(conn) }()
		return errors.Join(run(), <-heard)
	}
}

// printNotifications prints what a service manager hears, up to the last word.
func printNotifications(conn *net.UnixConn) error {
	conn.SetReadDeadline(time.Now().Add(patience))
	for b := make([]byte, 4096); ; {
		n, oob, _, _, err := conn.ReadMsgUnix(b, make([]byte, 256))
		if err != nil {
			return err
		}
		fmt.Printf("%q with %d bytes more\n", b[:n], oob)
		if string(b[:n]) == "STOPPING=1" {
			return nil
		}
	}
}

func TestTheServiceManagerHearsWhatItMay(t *testing.T) {
	for _, name := range []string{"/run/notify", "/run/user/7/systemd/notify", fmt.Sprintf("@shoal-test-%d", os.Getpid())} {
		got := outer(t, "manager", 0, name)
		want := "\"STATUS=a line\\nREADY=1\" with 0 bytes more\n" +
			strings.Repeat("\"STATUS=the last words\" with 0 bytes more\n", 20) + "\"STOPPING=1\" with 0 bytes more"
		if got != want {
			t.Errorf("%s: the manager hears\n%s\nwant\n%s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"/run/nobody": "said: the service manager does not hear when the command is ready: /run/nobody: no such file or directory\nthere is no manager",
		"nobody":      "said: the service manager does not hear when the command is ready: nobody is neither a path nor an abstract name\nthere is no manager",
	} {
		if got := outer(t, "manager", 0, name); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}

func init() {
	// patient: waits for a signal before the command starts.
	roles["patient"] = func([]string) error {
		code, err := runScript("echo started", func(cfg *Config) {
			cfg.Ready = func(ctx context.Context, _ *Network) {
				fmt.Println("waiting")
				<-ctx.Done()
			}
		})
		if err != nil {
			return err
		}
		os.Exit(code)
		return nil
	}
}

func TestAWaitEndsWithASignal(t *testing.T) {
	for sig, want := range map[unix.Signal]int{unix.SIGINT: 130, unix.SIGTERM: 143} {
		cmd, out := hostAs(t, "patient", "", nil)
		if got := readLine(t, out); got != "waiting" {
			t.Fatalf("it prints %q", got)
		}
		cmd.Process.Signal(sig)
		rest, _ := io.ReadAll(out)
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != want || len(rest) != 0 {
			t.Errorf("%v: exit code %d, want %d; %q", sig, got, want, rest)
		}
	}
}

func TestTheInterfaceCanBeTheOneThatAClientIsBoundTo(t *testing.T) {
	cfg := as(t, traffic{}, "around")
	var err error
	if cfg.Interface, cfg.Addr, err = ParseInterface("wg0=10.2.0.2"); err != nil {
		t.Fatal(err)
	}
	if out := mustRun(t, cfg); !strings.Contains(out, "wg0 10.2.0.2/32 true") || strings.Contains(out, DefaultInterface) {
		t.Errorf("the command sees\n%s", out)
	}
	cfg = as(t, traffic{}, "echo")
	cfg.Addr = netip.MustParseAddr("10.2.0.2")
	l := begin(t, cfg)
	port, _ := strconv.ParseUint(l.line(), 10, 16)
	conn, err := l.net.DialTCP(t.Context(), standIn, uint16(port))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
