package netns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain plays, for the last test, the part outside that is killed (outer)
// and the part inside with a process that nothing stops (inner).
func TestMain(m *testing.M) {
	switch os.Getenv("NETNS_TEST") {
	case "outer":
		code, err := Run(nil, []string{"NETNS_TEST=inner"})
		fmt.Println(code, err)
		os.Exit(1)
	case "inner":
		sleeper := exec.Command("sleep", "60")
		fmt.Println(Enter(), sleeper.Start())
		sleeper.Wait()
		os.Exit(1)
	}
	Tests(m, nil)
}

func TestNothingButLoopbackIsThere(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil || len(all) != 1 || all[0].Flags&net.FlagLoopback == 0 || all[0].Flags&net.FlagUp == 0 {
		t.Fatalf("interfaces = %v, %v, want lo alone and up", all, err)
	}
	_, err = net.DialTimeout("tcp", "192.0.2.1:80", time.Second)
	if !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("dial outside = %v, want %v", err, syscall.ENETUNREACH)
	}
	ln, err := net.Listen("tcp", "127.9.8.7:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestNoNameIsLookedUpOutside(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if addrs, err := net.DefaultResolver.LookupHost(ctx, "router.example.com"); err == nil {
		t.Errorf("a name resolved to %v", addrs)
	}
	if out, err := exec.Command("getent", "hosts", "router.example.com").CombinedOutput(); err == nil {
		t.Errorf("the C library resolved a name: %s", out)
	}
}

func TestOnlyOwnProcessesAreSeen(t *testing.T) {
	if pid := os.Getpid(); pid != 1 {
		t.Errorf("pid = %d, want 1", pid)
	}
	if self, err := os.Readlink("/proc/self"); err != nil || self != "1" {
		t.Errorf("/proc/self = %q, %v, want 1", self, err)
	}
}

func TestNothingIsLeftWhenThePartOutsideIsKilled(t *testing.T) {
	outer := exec.Command("/proc/self/exe")
	outer.Env = append(os.Environ(), "NETNS_TEST=outer")
	out, err := outer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := outer.Start(); err != nil {
		t.Fatal(err)
	}
	defer outer.Wait()
	defer outer.Process.Kill()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "<nil> <nil>\n" {
		t.Fatalf("the part inside said %q, %v", line, err)
	}
	if got := processes(t); got < 4 { // this, outer, inner, its sleeper
		t.Fatalf("%d processes are there, want 4", got)
	}
	outer.Process.Kill()
	for deadline := time.Now().Add(time.Minute); processes(t) > 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the sleeper is still there")
		}
	}
}

// processes counts those in this namespace that live: this one, one that was
// killed and not waited for yet is not counted.
func processes(t *testing.T) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		_, state, _ := strings.Cut(string(stat), ") ")
		if err == nil && !strings.HasPrefix(state, "Z") {
			n++
		}
	}
	return n
}
