package hosts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/netns"
)

const atVariable = "HOSTS_TEST_LISTEN"

// TestMain plays, on a host, a server that tells one dialler its address.
func TestMain(m *testing.M) {
	if at := os.Getenv(atVariable); at != "" {
		ln, err := net.Listen("tcp", at)
		fmt.Println(err)
		if err != nil {
			os.Exit(1)
		}
		conn, err := ln.Accept()
		if err != nil {
			os.Exit(1)
		}
		fmt.Fprint(conn, conn.RemoteAddr().(*net.TCPAddr).IP)
		os.Exit(0)
	}
	netns.Tests(m, nil)
}

func serve(t *testing.T, h *Host, at string) {
	t.Helper()
	cmd := h.Command(os.Args[0])
	cmd.Env = append(os.Environ(), atVariable+"="+at)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "<nil>\n" {
		t.Fatalf("the server on %s: %q, %v", h.Name, line, err)
	}
}

// TestHostsReachEachOther by addresses of networks that have nothing in common,
// each from its own address, and by no other host's loopback interface.
func TestHostsReachEachOther(t *testing.T) {
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var all []*Host
	for name, addr := range map[string]string{"a": "5.9.1.7", "b": "81.2.69.142", "c": "10.0.0.3"} {
		h, err := n.Add(name, netip.MustParseAddr(addr))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, from := range all {
		for _, to := range all {
			at := netip.AddrPortFrom(to.Addr, 7000).String()
			serve(t, to, at) // the same port on every host
			conn, err := from.Dial(ctx, "tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(conn)
			conn.Close()
			if string(got) != from.Addr.String() || err != nil {
				t.Errorf("%s reached %s from %s, %v; want from %v", from.Name, to.Name, got, err, from.Addr)
			}
		}
	}
	serve(t, all[0], "127.0.0.1:7001")
	for i, h := range all {
		conn, err := h.Dial(ctx, "tcp", "127.0.0.1:7001")
		if err == nil {
			conn.Close()
		}
		if (err == nil) != (i == 0) {
			t.Errorf("%s dials the loopback interface of %s: %v", h.Name, all[0].Name, err)
		}
	}
	if _, err := net.DialTimeout("tcp", netip.AddrPortFrom(all[0].Addr, 7000).String(), time.Second); err == nil {
		t.Error("the hosts' addresses are reached from outside the network")
	}
}
