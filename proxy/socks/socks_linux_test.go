package socks

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// TestProcessesTellClientsApart: without user names, and on Linux, the process
// decides; a second association of it is no second client.
func TestProcessesTellClientsApart(t *testing.T) {
	if addr := os.Getenv("SOCKS_TEST_SERVER"); addr != "" {
		beClient(t, addr)
	}
	s := start(t, Config{})
	for range 2 {
		c := exec.Command(os.Args[0], "-test.run", "^TestProcessesTellClientsApart$")
		c.Env = append(os.Environ(), "SOCKS_TEST_SERVER="+s.addr)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		if _, err := io.ReadFull(out, make([]byte, 6)); err != nil { // its first answer: it has associations
			t.Fatal(err)
		}
	}
	seen := make(map[swarm.Client]int)
	for seen["client 1"] < 3 || seen["client 2"] < 3 {
		e := <-s.where
		if e.from.Unsure || e.from.Assoc == nil || e.from.Assoc.Client() != e.from.Client {
			t.Fatalf("%+v", e.from)
		}
		seen[e.from.Client]++
	}
	if len(seen) != 2 {
		t.Errorf("the clients are %v", seen)
	}
	c, _ := connect(t, s, "", "tracker.invalid", 80) // this process, which is neither
	c.say('x')
	for e := range s.where {
		if e.said == "x" {
			if !e.from.Unsure {
				t.Errorf("a stranger is taken for %v", e.from.Client)
			}
			return
		}
	}
}

// beClient is such a client. It is killed.
func beClient(t *testing.T, addr string) {
	s := &sidecar{addr: addr}
	associate(t, s, "")
	associate(t, s, "")
	for {
		c, _ := connect(t, s, "", "tracker.invalid", 80)
		c.say('c')
		os.Stdout.Write(c.hear(6))
		time.Sleep(50 * time.Millisecond)
	}
}
