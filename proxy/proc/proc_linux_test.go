package proc

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOwnSocketsAreFound(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	all, err := Self().Sockets()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []net.Addr{ln.Addr(), udp.LocalAddr()} {
		i := slices.IndexFunc(all, func(s Socket) bool {
			return s.Local.String() == want.String() && s.UDP == (want.Network() == "udp") && s.Listening == !s.UDP
		})
		if i < 0 {
			t.Errorf("%v is not among %d sockets", want, len(all))
		}
	}
}

func TestAProcessIsNotTheNextOneOfItsNumber(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id := Process{PID: cmd.Process.Pid}.ID()
	other := ID{id.PID, id.Started + 1}
	if !id.Runs() || other.Runs() || (ID{}).Runs() {
		t.Errorf("%+v runs: %v; %+v: %v; none: %v", id, id.Runs(), other, other.Runs(), ID{}.Runs())
	}
	cmd.Process.Kill()
	cmd.Wait()
	if id.Runs() {
		t.Errorf("%+v runs after its end", id)
	}
}

// TestTheHolderOfAConnectionIsFound whichever kind of socket it uses: a Java
// program has IPv6 sockets for IPv4 too.
func TestTheHolderOfAConnectionIsFound(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			cmd := exec.Command(os.Args[0], ln.Addr().String(), network)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer stdin.Close()
			conn, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			local, remote := netip.MustParseAddrPort(conn.RemoteAddr().String()), netip.MustParseAddrPort(conn.LocalAddr().String())
			if p, ok := Holder(local, remote); !ok || p.PID != cmd.Process.Pid {
				t.Errorf("got %d, %v, want %d", p.PID, ok, cmd.Process.Pid)
			}
			if !(Process{PID: cmd.Process.Pid}).Holds(local, remote) || (Process{PID: os.Getppid()}).Holds(local, remote) {
				t.Error("the wrong process holds it")
			}
			if p, ok := Holder(remote, remote); ok {
				t.Errorf("%d holds a connection that isn't there", p.PID)
			}
		})
	}
}

// TestMain lets the test binary stand in for a program with one connection.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && !strings.HasPrefix(os.Args[1], "-") {
		os.Exit(hold(os.Args[1], os.Args[2]))
	}
	os.Exit(m.Run())
}

// hold connects to an IPv4 address, with an IPv6 socket for tcp6, until its
// input ends.
func hold(to, network string) int {
	at := netip.MustParseAddrPort(to)
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	if network == "tcp6" {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil || unix.Connect(fd, sa) != nil {
		return 1
	}
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func TestAnotherProcessIsSeenWithItsEnvironment(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "XDG_CONFIG_HOME=/somewhere"}
	cmd.Dir = t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(p Process) bool { return p.PID == cmd.Process.Pid })
	if i < 0 {
		t.Fatal("it is not there")
	}
	p := all[i]
	if !slices.Equal(p.Args, []string{"sleep", "60"}) {
		t.Errorf("its arguments are %q", p.Args)
	}
	if got := p.Env("XDG_CONFIG_HOME"); got != "/somewhere" {
		t.Errorf("its variable is %q", got)
	}
	if got, want := p.Path("conf/a"), filepath.Join(cmd.Dir, "conf/a"); got != want {
		t.Errorf("its file is %q, want %q", got, want)
	}
	if !p.Mine() || !p.SameNetwork() {
		t.Error("it is not ours, or elsewhere")
	}
}
