package relay

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
)

// tap is somebody on the wire in front of a relay.
type tap struct {
	addr    netip.AddrPort
	touch   [2]atomic.Bool // changes one byte of the next cell that goes towards the relay, or back
	touched atomic.Int32
	inner   netip.AddrPort
	dial    func(context.Context, netip.AddrPort) (net.Conn, error)
}

// tap puts itself in front of the relay with that number.
func (n *network) tap(t *testing.T, relay int) *tap {
	ln, addr := n.listen(t)
	w := &tap{addr: addr, inner: n.relays[relay].Addr, dial: n.dial()}
	n.relays[relay].Addr = addr
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	context.AfterFunc(ctx, func() { ln.Close() })
	n.run(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := w.dial(ctx, w.inner)
			if err != nil {
				conn.Close()
				return
			}
			context.AfterFunc(ctx, func() { conn.Close(); far.Close() })
			n.run(func() { w.pass(far, conn, 0) })
			n.run(func() { w.pass(conn, far, 1) })
		}
	})
	return w
}

func (w *tap) pass(to, from net.Conn, way int) {
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		// A record that is so long holds a cell, whose body comes first.
		if n >= cell.Size && w.touch[way].CompareAndSwap(true, false) {
			b[1000] ^= 1
			w.touched.Add(1)
		}
		if _, e := to.Write(b[:n]); err != nil || e != nil {
			return
		}
	}
}

// Links do not check the bodies of cells: who changes one ends the circuit that
// it is of, is not believed by anybody, and disturbs nobody else.
func TestABodyChangedOnTheWireEndsItsCircuitAndNoOther(t *testing.T) {
	for way, name := range []string{"towards the last hop", "towards the client"} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, 3, func(t *testing.T, n *network) {
				w := n.tap(t, 2)
				c := n.client(t, 1)
				build := func() *circuit.Circuit {
					own, err := c.Build(t.Context(), circuit.Want{Use: circuit.ForTracker, Last: n.meet()})
					if err != nil {
						t.Fatal(err)
					}
					return own
				}
				ask := func(c *circuit.Circuit) error {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					_, err := c.Request(ctx, cell.RequestEcho, make([]byte, 20), 1<<20)
					return err
				}
				one, other := build(), build()
				if err := ask(one); err != nil {
					t.Fatal(err)
				}
				w.touch[way].Store(true)
				if err := ask(one); err == nil {
					t.Error("an answer came all the same")
				}
				select {
				case <-one.Done():
				case <-time.After(time.Minute):
					t.Error("the circuit stands")
				}
				if err := ask(other); err != nil {
					t.Errorf("the circuit beside it: %v", err)
				}
				if w.touched.Load() != 1 {
					t.Errorf("%d cells were changed, want 1", w.touched.Load())
				}
			})
		})
	}
}
