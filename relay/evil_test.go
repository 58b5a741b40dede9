package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
)

// evil is a relay that does with cells what it likes. It has no credit of its
// own: it allows much and hopes for the best.
type evil struct {
	path.Relay
	links *link.Pool

	// forward and backward say what becomes of a cell; nil: nothing special. They
	// are called with the cell's number, from 0, and return what goes on.
	forward, backward func(n int, f *cell.Frame) []*cell.Frame

	mu    sync.Mutex
	heard []string // what its neighbours ended circuits with
}

// evilRelay starts one.
func (n *network) evilRelay(t testing.TB) *evil {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	pub, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := onion.GenerateKey(1)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := link.Certificate(identity)
	if err != nil {
		t.Fatal(err)
	}
	ln, addr := n.listen(t)
	e := &evil{Relay: path.Relay{ID: onion.ID(pub), Addr: addr, Key: key.Public(), Weight: 1 << 20}, links: n.links(t)}
	n.run(func() {
		<-ctx.Done()
		ln.Close()
	})
	n.run(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			n.run(func() { e.serve(ctx, n, conn, cert, key) })
		}
	})
	return e
}

func (e *evil) serve(ctx context.Context, n *network, conn net.Conn, cert tls.Certificate, key *onion.PrivateKey) {
	l, err := link.Accept(ctx, conn, cert, time.Now(), nil)
	if err != nil {
		return
	}
	l.Run(ctx, func(c *link.Circuit, create []byte) {
		n.run(func() { // the pool's Run outlives it
			p, err := onion.Peel(create, e.ID, key)
			if err != nil || p.Last {
				c.Destroy(cell.Protocol)
				return
			}
			layer, err := p.Accept(onion.AES256GCM)
			if err != nil {
				return
			}
			for _, r := range n.relays {
				if r.ID != p.Next {
					continue
				}
				out, err := e.links.Get(ctx, r.ID, r.Addr)
				if err != nil {
					return
				}
				next := out.NewCircuit(nil)
				c.Handle(&evilEnd{e: e, name: "client's side", other: next, change: e.forward, layer: func(dst, b *[cell.Size]byte) { layer.Forward(dst, b) }})
				next.Open(&evilEnd{e: e, name: "last hop's side", other: c, change: e.backward, layer: layer.Backward,
					created: func(b []byte) {
						c.Created(p.Created(b))
						c.Grant(1000)
						next.Grant(1000)
					}}, p.Create)
			}
		})
	})
}

// evilEnd is one side of its circuit.
type evilEnd struct {
	e       *evil
	name    string
	other   *link.Circuit
	created func([]byte)
	layer   func(dst, b *[cell.Size]byte)
	change  func(int, *cell.Frame) []*cell.Frame
	cells   int
}

func (x *evilEnd) Created(b []byte) { x.created(b) }
func (x *evilEnd) Flush()           {}
func (x *evilEnd) Credit(uint64)    {}
func (x *evilEnd) Sent(uint64)      {}

func (x *evilEnd) Cell(b *[cell.Size]byte) {
	f := cell.NewFrame()
	x.layer(f.Body(), b)
	all := []*cell.Frame{f}
	if x.change != nil {
		all = x.change(x.cells, f)
	}
	x.cells++
	for _, f := range all {
		x.other.Send(f)
	}
}

func (x *evilEnd) Destroyed(r cell.Reason) {
	x.e.mu.Lock()
	x.e.heard = append(x.e.heard, x.name+": "+r.String())
	x.e.mu.Unlock()
	x.other.Destroy(cell.OK)
}

func copyOf(f *cell.Frame) *cell.Frame {
	c := cell.NewFrame()
	*c = *f
	return c
}

// tampering is what a relay can do to the cells of a circuit, from the second on.
func tampering() map[string]func(n int, f *cell.Frame) []*cell.Frame {
	var held *cell.Frame
	return map[string]func(n int, f *cell.Frame) []*cell.Frame{
		"changes a bit": func(n int, f *cell.Frame) []*cell.Frame {
			if n == 1 {
				f.Body()[100] ^= 1
			}
			return []*cell.Frame{f}
		},
		"replays a cell": func(n int, f *cell.Frame) []*cell.Frame {
			if n == 1 {
				return []*cell.Frame{f, copyOf(f)}
			}
			return []*cell.Frame{f}
		},
		"drops a cell": func(n int, f *cell.Frame) []*cell.Frame {
			if n == 1 {
				f.Free()
				return nil
			}
			return []*cell.Frame{f}
		},
		"swaps two cells": func(n int, f *cell.Frame) []*cell.Frame {
			switch n {
			case 1:
				held = f
				return nil
			case 2:
				return []*cell.Frame{f, held}
			}
			return []*cell.Frame{f}
		},
		"makes up a cell": func(n int, f *cell.Frame) []*cell.Frame {
			if n == 1 {
				made := cell.NewFrame()
				rand.Read(made.Body()[:])
				return []*cell.Frame{made, f}
			}
			return []*cell.Frame{f}
		},
	}
}

// rogueOver builds a circuit over the relays given and the last.
func (n *network) rogueOver(t testing.TB, way ...path.Relay) *rogue {
	t.Helper()
	r := n.knock(t, append(way, n.meet()), nil)
	r.waits("CREATED", func() bool { return r.layers != nil })
	return r
}

func TestWhatIsDoneToACellEndsItsCircuitAtTheNextHonestRelay(t *testing.T) {
	for name, change := range tampering() {
		t.Run(name, func(t *testing.T) {
			inMemory(t, 3, func(t *testing.T, n *network) {
				e := n.evilRelay(t)
				h := n.host(t, 1)
				there, here := n.visit(t, h, 1)
				e.forward = change
				r := n.rogueOver(t, e.Relay, n.relays[0]) // evil, honest, last
				for range 4 {
					r.send(0, cell.Register, []byte{1})
				}
				r.ends()
				time.Sleep(time.Second)
				e.mu.Lock()
				heard := e.heard[0]
				e.mu.Unlock()
				if heard != "last hop's side: ok" && heard != "last hop's side: protocol" {
					t.Errorf("the evil relay heard %q first, want the honest relay behind it end the circuit", heard)
				}
				r.mu.Lock()
				if got := len(r.got); got > 1 {
					t.Errorf("%d messages reached the last hop, want the one before", got)
				}
				r.mu.Unlock()
				echo(t, there, here)
			})
		})
	}
}

func TestWhatIsDoneToACellTowardsTheClientEndsItsCircuitAtTheClient(t *testing.T) {
	for name, change := range tampering() {
		t.Run(name, func(t *testing.T) {
			inMemory(t, 1, func(t *testing.T, n *network) {
				e := n.evilRelay(t)
				e.backward = change
				n.relays = []path.Relay{e.Relay, n.meet()}
				own, err := n.client(t, 1).Build(t.Context(), circuit.Want{Use: circuit.ForTracker, Last: n.meet()})
				if err != nil {
					t.Fatal(err)
				}
				for range 3 {
					own.Request(t.Context(), cell.RequestEcho, make([]byte, 20), 1<<20)
				}
				select {
				case <-own.Done():
				case <-time.After(time.Minute):
					t.Error("the circuit stands")
				}
			})
		})
	}
}
