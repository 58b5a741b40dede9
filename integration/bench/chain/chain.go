// Package chain is what an onion path is compared with: the same number of
// processes in a row, each of which hands every byte on, in the clear or from
// one TLS 1.3 connection to the next. No layers, cells, circuits or SOCKS: the
// floor of the work, not an equal.
// Not here: the ends of a transfer (package peer).
package chain

import (
	"fmt"

	"github.com/shoal-p2p/shoal/integration/bench/child"
)

// Shape is how long a chain is and what is on its links.
type Shape struct {
	Hops int  // forwarders between its two ends, which forward too
	TLS  bool // on all links but the first and the last, which stand for loopback
}

// Running is a chain that runs.
type Running struct {
	Addr  string // what a sink dials
	Procs []*child.Child
}

// Start starts a chain that ends at the source to. Its processes log to dir.
func Start(s Shape, to, dir string) (r *Running, err error) {
	r = &Running{Addr: to}
	defer func() {
		if err != nil {
			r.Stop()
		}
	}()
	n := 1 + s.Hops + 1
	for i := range n { // from the source's end on
		name := fmt.Sprintf("forwarder-%d", n-i)
		p, err := child.Start(name, dir)
		if err != nil {
			return r, err
		}
		r.Procs = append(r.Procs, p)
		f := Forward{Listen: "127.0.0.1:0", Next: r.Addr, In: s.TLS && i < n-1, Out: s.TLS && i > 0}
		if err := p.Call("Chain.Forward", f, &r.Addr); err != nil {
			return r, err
		}
	}
	return r, nil
}

// PIDs returns the process ids of the forwarders.
func (r *Running) PIDs() (pids []int) {
	for _, p := range r.Procs {
		pids = append(pids, p.PID())
	}
	return pids
}

// Stop ends the chain and returns when it is gone.
func (r *Running) Stop() {
	for _, p := range r.Procs {
		p.Stop()
	}
}
