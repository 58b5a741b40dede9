//go:build unix

package tor

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/peer"
)

func TestBytesComeThroughAnOnionService(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute) // it agrees on who is there every 20 s, and misses some on a busy machine
	defer cancel()
	p := new(peer.Peer)
	var source string
	if err := p.Listen("127.0.0.1:0", &source); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	n, err := Start(ctx, Config{Dir: t.TempDir(), Target: source, Tuned: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	t.Logf("bootstrapped after %v", time.Since(started))
	way := peer.Way{SOCKS: n.SOCKS, To: n.Onion}
	for {
		var got peer.Asked
		err := p.Ask(peer.Ask{Way: way, Size: 16, Count: 3}, &got)
		if err == nil {
			t.Logf("reached after %v: %+v", time.Since(started), got)
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	var got peer.Pulled
	if err := p.Pull(peer.Pull{Ways: []peer.Way{way}, Bytes: 64 << 20, Limit: time.Minute}, &got); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes in %v", got.Bytes(), got.Time())
	pids := n.PIDs()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("process %d is left: %v", pid, err)
		}
	}
}
