package proc

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
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
