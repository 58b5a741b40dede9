package utp

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// TestSixtyPeersComeInAtOnce: each from its stand-in, each with 64 KiB there and
// back. The cable holds what a socket's buffer does, 208 KiB. Nothing holds the
// µTP package back but our windows: without them the buffers overflow, and on a
// busy machine transfers stall until the package gives them up.
func TestSixtyPeersComeInAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cable := cableFor(208 << 10 / fullPayload)
		cable.delay.Store(int64(5 * time.Millisecond)) // or the package takes what waits for lost
		s, err := New(t.Context(), Config{Wire: cable, Peer: reached, Timeout: time.Minute, Count: func(status.Reason) {}})
		if err != nil {
			t.Fatal(err)
		}
		sock := client(t, cable)
		var all sync.WaitGroup
		all.Go(func() {
			for {
				c, err := sock.Accept()
				if err != nil {
					return
				}
				all.Go(func() {
					defer c.Close()
					io.Copy(c, io.LimitReader(c, 64<<10))
					io.Copy(io.Discard, c)
				})
			}
		})
		want := make([]byte, 64<<10)
		rand.NewChaCha8([32]byte{}).Read(want)
		backlog := make(chan struct{}, 30) // the client's, which is the same package, holds 50
		var done sync.WaitGroup
		for i := range 60 {
			done.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				backlog <- struct{}{}
				c, err := s.Dial(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 9, byte(i + 1)}), 6881))
				<-backlog
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				there(t, c, want)
			})
		}
		done.Wait()
		if n := cable.lost.Load(); n > 0 {
			t.Errorf("%d packets found the buffers full", n)
		}
		cable.delay.Store(0)
		time.Sleep(time.Second) // nobody sleeps any more, which the package would wait for with its lock held
		s.Close()
		sock.CloseNow()
		all.Wait()
	})
}

// there sends want, and wants it back.
func there(t *testing.T, c swarm.Conn, want []byte) {
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() { c.Write(want) })
	got := make([]byte, len(want))
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back, %v", n, err)
	}
}
