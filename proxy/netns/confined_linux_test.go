package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func init() {
	// around: prints which interfaces there are and what of the host is in reach.
	roles["around"] = func([]string) error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			a, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			up := l.Attrs().Flags&net.FlagUp != 0
			for _, addr := range a {
				fmt.Println(l.Attrs().Name, addr.IPNet, up)
			}
			if len(a) == 0 {
				fmt.Println(l.Attrs().Name, "no address", up)
			}
		}
		return nil
	}
	// escape HOST: tries what a hostile command would, prints what worked.
	roles["escape"] = func(args []string) error {
		try := func(what string, err error) {
			if err == nil {
				fmt.Println(what)
			}
		}
		runtime.LockOSThread()
		for _, pid := range []string{args[0], "1", strconv.Itoa(os.Getppid())} {
			for _, kind := range []string{"net", "user", "mnt"} {
				fd, err := unix.Open("/proc/"+pid+"/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err == nil && (kind != "net" || pid != strconv.Itoa(os.Getppid())) {
					err = unix.Setns(fd, 0)
				}
				if err == nil && pid != strconv.Itoa(os.Getppid()) {
					try("entered "+kind+" of "+pid, err)
				}
			}
		}
		try("made an interface", netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "dummy9"}}))
		lo, _ := netlink.LinkByName(DefaultInterface)
		try("took the interface down", netlink.LinkSetDown(lo))
		try("unmounted /run", unix.Unmount("/run", unix.MNT_DETACH))
		try("unmounted resolv.conf", unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH))
		try("mounted", unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""))
		for fd := range 32 {
			_, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", os.Getppid(), fd))
			try("reached the supervisor's files, and by them the overlay", err)
		}
		_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		try("opened a packet socket", err)
		// A namespace inside the namespace is root over nothing of ours.
		if err := unix.Unshare(unix.CLONE_NEWUSER | unix.CLONE_NEWNS); err == nil {
			try("unmounted /run from a nested namespace", unix.Unmount("/run", unix.MNT_DETACH))
			try("unmounted resolv.conf from a nested namespace", unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH))
			try("made an interface from a nested namespace", netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "dummy9"}}))
		}
		return nil
	}
}

func TestThereIsNoOtherWayOut(t *testing.T) {
	got := mustRun(t, as(t, traffic{}, "around"))
	want := "lo 127.0.0.1/8 true\nlo ::1/128 true\nshoal0 10.64.0.2/32 true"
	if os.Getenv(wantVeth) != "" {
		want = "lo 127.0.0.1/8 true\nlo ::1/128 true\nshoal1 no address true\nshoal0 10.64.0.2/32 true"
	}
	var up []string // some kernels put idle tunnel ends into every namespace
	for line := range strings.Lines(got) {
		if line = strings.TrimSpace(line); !strings.HasSuffix(line, "no address false") {
			up = append(up, line)
		}
	}
	if s := strings.Join(up, "\n"); s != want {
		t.Errorf("the command sees\n%s\nwant\n%s", s, want)
	}
}

func TestIPv6FailsAtOnce(t *testing.T) {
	script := fmt.Sprintf("%q '[2001:db8::1]:80' x", executablePath(t))
	cfg := shell(t, traffic{}, script)
	cfg.Env = append(cfg.Env, roleEnv+"=tcp")
	if out, _ := run(t, cfg); !strings.Contains(out, "unreachable") {
		t.Errorf("the command hears %q", out)
	}
}

func init() {
	// announce ADDR: sends a datagram there, prints why it can't.
	roles["announce"] = func(args []string) error {
		conn, err := net.Dial("udp4", args[0])
		if err == nil {
			defer conn.Close()
			_, err = conn.Write([]byte("M-SEARCH * HTTP/1.1\r\n"))
		}
		fmt.Println(err)
		return nil
	}
}

func TestMulticastFailsAtOnce(t *testing.T) {
	for _, group := range []string{"239.255.255.250:1900", "239.192.152.143:6771", "224.0.0.251:5353"} {
		if out := mustRun(t, as(t, traffic{}, "announce", group)); !strings.Contains(out, "unreachable") && !strings.Contains(out, "no route") {
			t.Errorf("%s: the command hears %q", group, out)
		}
	}
}

func TestTheCommandCannotUndoItsNamespace(t *testing.T) {
	if out := mustRun(t, as(t, traffic{}, "escape", strconv.Itoa(os.Getpid()))); out != "" {
		t.Errorf("the command did this:\n%s", out)
	}
}

func TestCapabilities(t *testing.T) {
	want := uint64(0)
	if os.Geteuid() == 0 {
		for _, c := range rootCaps {
			want |= 1 << c
		}
	}
	out := mustRun(t, shell(t, traffic{}, "grep ^Cap /proc/self/status"))
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		got, err := strconv.ParseUint(f[1], 16, 64)
		if err != nil || got&^want != 0 {
			t.Errorf("%s, want nothing beyond %x", strings.TrimSpace(line), want)
		}
	}
}

// TestWhoRunsItKeepsHisPowerOverFiles: root over everybody's, others over their own.
func TestWhoRunsItKeepsHisPowerOverFiles(t *testing.T) {
	owner, next := os.Geteuid(), os.Geteuid()
	if owner == 0 {
		owner, next = 1234, 1235
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := errors.Join(os.WriteFile(file, []byte("secret"), 0o600), os.Chown(file, owner, -1)); err != nil {
		t.Fatal(err)
	}
	if out := mustRun(t, shell(t, traffic{}, "cat "+file+fmt.Sprintf(" && chown %d ", next)+file+" && chmod 640 "+file)); out != "secret" {
		t.Error(out)
	}
	info, _ := os.Stat(file)
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != next || info.Mode().Perm() != 0o640 {
		t.Errorf("the file belongs to %d with %v", st.Uid, info.Mode())
	}
}

// outer runs role in a mount namespace where it may do as it likes with /run
// without anybody noticing.
func outer(t *testing.T, role string, flags uintptr, args ...string) string {
	t.Helper()
	cmd := exec.Command(executablePath(t), args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | flags}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
	}
	if cmd.SysProcAttr.Cloneflags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func init() {
	// resolvers: a host on which daemons resolve names over Unix sockets.
	roles["resolvers"] = func([]string) error {
		if err := errors.Join(
			unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
			unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"),
		); err != nil {
			return err
		}
		var visits atomic.Int64
		daemon := func(path string) error {
			os.MkdirAll(filepath.Dir(path), 0o755)
			ln, err := net.Listen("unix", path)
			if err != nil {
				return err
			}
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					visits.Add(1)
					c.Close()
				}
			}()
			return os.Chmod(path, 0o777)
		}
		sockets := []string{
			"/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve", "/run/avahi-daemon/socket",
			"/run/dbus/system_bus_socket", "/run/mdnsd", "/run/systemd/private", "/run/docker.sock", "/run/podman/podman.sock",
		}
		users := []string{
			"/run/user/7/bus", "/run/user/7/gnupg/S.dirmngr", "/run/user/7/gvfsd/socket-a", "/run/user/7/systemd/private", "/run/user/7/wayland-0",
		}
		for _, s := range append(append(sockets, users...), "/run/systemd/journal/socket") {
			if err := daemon(s); err != nil {
				return err
			}
		}
		left, err := net.ListenUnix("unix", &net.UnixAddr{Name: "/run/user/7/left", Net: "unix"})
		if err != nil {
			return err
		}
		left.SetUnlinkOnClose(false)
		if err := errors.Join(
			left.Close(), os.Mkdir("/run/user/7/gvfs", 0o755), unix.Mount("tmpfs", "/run/user/7/gvfs", "tmpfs", 0, ""),
			os.WriteFile("/run/user/7/gvfs/dav:host=example", nil, 0o644),
		); err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile("/run/a file", []byte("text"), 0o644), os.Symlink("a file", "/run/a link")); err != nil {
			return err
		}
		// What the host's resolv.conf says is of no importance.
		if out, err := exec.Command("getent", "ahostsv4", "tracker.example").CombinedOutput(); err == nil {
			return fmt.Errorf("tracker.example is known outside: %s", out)
		}
		if visits.Load() == 0 {
			return errors.New("getent doesn't ask nscd: this test shows nothing")
		}
		visits.Store(0)
		go func() { // a daemon that starts after the command
			for {
				if _, err := os.Stat("/run/go"); err == nil {
					daemon("/run/late/socket")
					os.WriteFile("/run/went", nil, 0o644)
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
		script := `getent hosts tracker.example; getent ahosts tracker.example | head -1; getent hosts other.example
			for s in ` + strings.Join(sockets, " ") + `; do [ -e $s ] && echo $s is there; done
			for s in ` + strings.Join(users, " ") + `; do if [ -S $s ]; then echo $s is there; else ls $s; fi; done
			ls /run/user/7/gvfs
			rm /run/user/7/left || echo what was left behind stays
			cat '/run/a link'; echo; ls /run/systemd/journal/socket; ls /run/late 2>/dev/null
			grep -c hosts: /etc/nsswitch.conf; grep nameserver /etc/resolv.conf; id -un; ls -A /run`
		cfg := Config{Command: []string{"sh", "-c", script}, Env: without(os.Environ(), roleEnv),
			Handler: traffic{name: nameOf}, noTUN: os.Getenv(envNoTUN) != ""}
		code, err := Run(context.Background(), cfg)
		if err != nil {
			return err
		}
		fmt.Println("exit", code, "visits", visits.Load())
		return nil
	}
}

func TestResolversOfTheHostAreOutOfReach(t *testing.T) {
	got := outer(t, "resolvers", 0)
	want := `198.18.9.9      tracker.example
198.18.9.9      STREAM tracker.example
/run/user/7/bus
/run/user/7/gnupg/S.dirmngr
/run/user/7/gvfsd/socket-a
/run/user/7/systemd/private
/run/user/7/wayland-0 is there
text
/run/systemd/journal/socket
1
nameserver 10.64.0.1
root
a file
a link
systemd
user
exit 0 visits 0`
	if got != want {
		t.Errorf("inside:\n%s\nwant:\n%s", got, want)
	}
}

func init() {
	// forbidden: a system that allows no further user namespaces.
	roles["forbidden"] = func([]string) error {
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			return err
		}
		code, err := Run(context.Background(), Config{Command: []string{"true"}, Handler: traffic{}})
		fmt.Println(code, errors.Is(err, ErrNotAllowed), err)
		return nil
	}
}

func TestAForbiddingSystemIsExplained(t *testing.T) {
	got := outer(t, "forbidden", unix.CLONE_NEWUSER)
	if !strings.HasPrefix(got, "125 true ") || !strings.Contains(got, "sudo sysctl user.max_user_namespaces=") || strings.Contains(got, "\n") {
		t.Errorf("Run says %q", got)
	}
}

func TestEachReasonHasItsRemedy(t *testing.T) {
	for _, c := range []struct {
		sysctl, value, want string
	}{
		{"user/max_user_namespaces", "0", "user.max_user_namespaces=15000"},
		{"user/max_net_namespaces", "0", "user.max_net_namespaces=15000"},
		{"kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "profile shoal /opt/shoal flags=(unconfined) { userns, }"},
		{"", "", "container"},
	} {
		err := notAllowed(syscall.EPERM, "/opt/shoal", func(name string) string {
			if name == c.sysctl {
				return c.value
			}
			return ""
		})
		if !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %s: %v, want %q in it", c.sysctl, c.value, err, c.want)
		}
	}
}

func TestNsswitchKeepsUsersAndDropsOtherSourcesOfHosts(t *testing.T) {
	old := "# comment\npasswd: files sss\nhosts: mymachines resolve [!UNAVAIL=return] files mdns4 dns\n networks : files\nnetgroup: nis"
	want := "# comment\npasswd: files sss\nnetgroup: nis\nhosts: files dns\nnetworks: files\n"
	if got := string(nsswitch([]byte(old))); got != want {
		t.Errorf("nsswitch.conf:\n%s\nwant:\n%s", got, want)
	}
}

// wantVeth tells the tests below TestAllOfItOverTheVethPair that they are.
const wantVeth = "SHOAL_TEST_VETH"

// timeLeft is how long the tests may still run, but for what it takes to report.
func timeLeft(t *testing.T) time.Duration {
	end, ok := t.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(end)-5*time.Second, time.Second)
}

// The whole of this package's tests once more over the veth pair: as root, as
// somebody who may not open the TUN.
func TestAllOfItOverTheVethPair(t *testing.T) {
	cmd := exec.Command(openTo(t), "-test.v", "-test.timeout="+timeLeft(t).String(), "-test.skip=^TestAllOfItOverTheVethPair$")
	cmd.Env = append(os.Environ(), wantVeth+"=1")
	tun, err := os.Stat("/dev/net/tun")
	closed := err != nil || tun.Mode().Perm()&0o006 == 0
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if os.Geteuid() != 0 || !closed {
		cmd.Env = append(cmd.Env, envNoTUN+"=1")
	}
	cmd.Dir = filepath.Dir(cmd.Path)
	out, err := cmd.CombinedOutput()
	t.Log(string(out))
	if err != nil {
		t.Error(err)
	}
}
