package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Run runs this program again inside, with args and with env added to the
// environment, and returns its exit code once it has ended. Root is not
// needed where the system lets users have namespaces. SIGINT, SIGTERM, SIGHUP
// and SIGQUIT are passed on.
func Run(args, env []string) (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append(os.Environ(), marker+"=1"), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}

	// Ours until the end: the terminal sends a Ctrl-C to both.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)

	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the death signal is sent when this thread ends
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return 0, fmt.Errorf("netns: no namespaces of our own: %w (root, or a system that lets users have them: sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)", err)
	}
	for {
		select {
		case s := <-signals:
			cmd.Process.Signal(s)
		case err := <-ended:
			if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
				return 0, err
			}
			if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
				return 128 + int(status.Signal()), nil
			}
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}

// Enter finishes, inside, what Run began: it must be called before anything
// else. The loopback interface comes up, /proc shows the processes inside, and
// names are looked up in /etc/hosts alone.
func Enter() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	if others, err := net.Interfaces(); err != nil || len(others) != 1 {
		return fmt.Errorf("netns: %d interfaces where there should be one (%v)", len(others), err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("netns: keep mounts to ourselves: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("netns: mount /proc: %w", err)
	}
	return maskResolvers()
}

// maskResolvers hides the host's resolvers, which are reached through Unix
// sockets and therefore through any network namespace: they would look up the
// names that a torrent client starts its DHT from.
func maskResolvers() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=16m"); err != nil {
		return fmt.Errorf("netns: hide /run: %w", err)
	}
	for file, content := range map[string]string{
		"nsswitch.conf": "hosts: files\n",
		"resolv.conf":   "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
	} {
		ours := filepath.Join("/run", file)
		if err := os.WriteFile(ours, []byte(content), 0o644); err != nil {
			return fmt.Errorf("netns: %w", err)
		}
		// Where the file is missing, or led into /run, there is nothing to hide.
		err := unix.Mount(ours, filepath.Join("/etc", file), "", unix.MS_BIND, "")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("netns: replace /etc/%s: %w", file, err)
		}
	}
	return nil
}

func tests(m interface{ Run() int }, prepare func(dir string) ([]string, error)) int {
	if Inside() {
		if err := Enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}
	code, err := enter(prepare)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func enter(prepare func(dir string) ([]string, error)) (code int, err error) {
	if prepare == nil {
		return Run(os.Args[1:], nil)
	}
	dir, err := os.MkdirTemp("", "shoal-tests-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	env, err := prepare(dir)
	if err != nil {
		return 0, err
	}
	return Run(os.Args[1:], env)
}

// AddAddress gives the loopback interface a, inside, unless it has that.
func AddAddress(a netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if err := netlink.AddrReplace(lo, address); err != nil {
		return fmt.Errorf("netns: add %v: %w", a, err)
	}
	return nil
}

// Exit is an interface that leads out, to where nobody answers: what a process
// sends to any address that is not of this machine leaves by it.
const Exit = "out"

// exits are its addresses, and the routers that would be there (RFC 5737, 3849).
var exits = []struct{ network, router string }{
	{"203.0.113.2/24", "203.0.113.1"},
	{"2001:db8::2/64", "2001:db8::1"},
}

// AddExit makes Exit, inside. remove takes it away again.
func AddExit() (remove func() error, err error) {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: Exit}, PeerName: Exit + "-far"}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("netns: add an interface: %w", err)
	}
	remove = func() error { return netlink.LinkDel(pair) }
	if err := openExit(pair); err != nil {
		return nil, errors.Join(fmt.Errorf("netns: open %s: %w", Exit, err), remove())
	}
	return remove, nil
}

func openExit(pair *netlink.Veth) error {
	far, err := netlink.LinkByName(pair.PeerName)
	if err != nil {
		return err
	}
	near, err := netlink.LinkByName(pair.Name)
	if err != nil {
		return err
	}
	for _, link := range []netlink.Link{far, near} {
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	for _, e := range exits {
		address, err := netlink.ParseAddr(e.network)
		if err != nil {
			return err
		}
		address.Flags = unix.IFA_F_NODAD
		router := net.ParseIP(e.router)
		if err := errors.Join(
			netlink.AddrAdd(near, address),
			// Known beforehand: nobody is there who could be asked for it.
			netlink.NeighSet(&netlink.Neigh{LinkIndex: near.Attrs().Index, IP: router, HardwareAddr: far.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: near.Attrs().Index, Gw: router}),
		); err != nil {
			return err
		}
	}
	return nil
}
