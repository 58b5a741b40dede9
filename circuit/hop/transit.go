package hop

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// flow is one direction of a circuit through this hop. What the neighbour
// before may send follows what the neighbour behind has allowed, so that cells
// wait at the circuit's end and not here; the window bounds what can wait.
type flow struct {
	mu       sync.Mutex
	from     *link.Circuit // whom to grant to
	win      link.Window
	received uint64
	sent     uint64
	credit   uint64 // what the neighbour behind allows
}

func (f *flow) init(from *link.Circuit, b *link.Budget) {
	f.mu.Lock()
	f.from, f.win, f.credit = from, link.NewWindow(b), link.Floor
	f.mu.Unlock()
}

func (f *flow) arrived() {
	f.mu.Lock()
	f.received++
	if f.win.Timed(f.received) {
		f.win.Received(f.received, link.Clock())
	}
	f.mu.Unlock()
}

// moved notes cells sent, or credit received, in total; zero is no news.
func (f *flow) moved(sent, credit uint64) {
	f.mu.Lock()
	f.sent, f.credit = max(f.sent, sent), max(f.credit, credit)
	total, ok := f.win.Grant(f.sent, f.credit, link.Clock)
	f.mu.Unlock()
	if ok {
		f.from.Grant(total)
	}
}

func (f *flow) close() {
	f.mu.Lock()
	f.win.Close()
	f.mu.Unlock()
}

// transit is a circuit that goes on to another hop.
type transit struct {
	s        *Server
	h        handshake
	p        *onion.Peeled
	layer    *onion.Layer
	prev     *link.Circuit
	next     *link.Circuit
	forward  flow
	backward flow

	mu    sync.Mutex
	state int           // guarded by mu
	stood chan struct{} // closed when the circuit stands or is over
}

const (
	building = iota
	standing
	ended
)

// advance moves to state and reports what was before; an ended circuit stays so.
func (t *transit) advance(state int) (before int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before = t.state
	if before == ended {
		return before
	}
	t.state = state
	if before == building {
		close(t.stood)
	}
	return before
}

// end ends both sides. Before the circuit stood, the client hears which hop
// failed; afterwards what is passed on names no reason.
func (t *transit) end(r cell.Reason) {
	before := t.advance(ended)
	if before == ended {
		return
	}
	if t.next != nil {
		t.next.Destroy(cell.OK)
	}
	if before == building {
		t.s.fail(t.h, t.p, r)
	} else {
		t.prev.Destroy(cell.OK)
		t.s.Counters.Died.Add(1)
	}
	t.forward.close()
	t.backward.close()
	t.s.Counters.Circuits.Add(-1)
}

// fromPrev takes what comes from the client's side.
type fromPrev struct{ *transit }

func (t fromPrev) Created([]byte) {}
func (t fromPrev) Cell(f *cell.Frame) {
	if err := t.layer.Forward(f.Body()); err != nil {
		f.Free()
		t.end(cell.Protocol)
		return
	}
	t.s.Counters.CellsForward.Add(1)
	t.forward.arrived()
	if !t.next.Send(f) {
		t.end(cell.Gone)
	}
}
func (t fromPrev) Credit(total uint64)     { t.backward.moved(0, total) }
func (t fromPrev) Sent(total uint64)       { t.backward.moved(total, 0) }
func (t fromPrev) Destroyed(r cell.Reason) { t.end(r) }

// fromNext takes what comes from the last hop's side.
type fromNext struct{ *transit }

// Created runs on the reader, so that a cell right behind CREATED finds its way.
func (t fromNext) Created(inner []byte) {
	if !t.h.slot.become(fromPrev(t)) {
		t.end(cell.Gone)
		return
	}
	b := t.p.Created(inner)
	if t.advance(standing) == building {
		t.s.Counters.Created.Add(1)
		t.prev.Created(b)
	}
}
func (t fromNext) Cell(f *cell.Frame) {
	t.layer.Backward(f.Body())
	t.s.Counters.CellsBackward.Add(1)
	t.backward.arrived()
	if !t.prev.Send(f) {
		t.end(cell.Gone)
	}
}
func (t fromNext) Credit(total uint64)     { t.forward.moved(0, total) }
func (t fromNext) Sent(total uint64)       { t.forward.moved(total, 0) }
func (t fromNext) Destroyed(r cell.Reason) { t.end(cell.Unreachable) }

// extendTimeout bounds how long a circuit may take to stand behind this hop.
const extendTimeout = 15 * time.Second

// pass makes this server a hop on the circuit's way. Dialling and waiting for
// the answer take no worker's time.
func (s *Server) pass(ctx context.Context, h handshake, p *onion.Peeled) {
	var addr netip.AddrPort
	known := false
	if s.cfg.Next != nil && p.Next != s.id {
		addr, known = s.cfg.Next(p.Next)
	}
	if !known {
		s.fail(h, p, cell.UnknownHop)
		return
	}
	layer, err := p.Accept(s.cfg.Suite)
	if err != nil {
		s.refuse(h, cell.Protocol)
		return
	}
	s.Counters.Circuits.Add(1)
	t := &transit{s: s, h: h, p: p, layer: layer, prev: h.c, stood: make(chan struct{})}
	s.wg.Go(func() { t.extend(ctx, addr) })
}

func (t *transit) extend(ctx context.Context, addr netip.AddrPort) {
	ctx, cancel := context.WithTimeout(ctx, extendTimeout)
	defer cancel()
	l, err := t.s.cfg.Links.Get(ctx, t.p.Next, addr)
	if err != nil {
		t.end(cell.Unreachable)
		return
	}
	t.next, err = l.Open(fromNext{t}, t.prev.Link())
	if err != nil {
		t.end(cell.Unreachable)
		return
	}
	t.forward.init(t.prev, t.s.budget)
	t.backward.init(t.next, t.s.budget)
	t.next.Create(t.p.Create)
	select {
	case <-t.stood:
	case <-ctx.Done():
		t.end(cell.Unreachable)
	}
}

// fail answers CREATE in place of the hops behind this one.
func (s *Server) fail(h handshake, p *onion.Peeled, r cell.Reason) {
	s.Counters.Refused.Add(1)
	h.c.Created(p.Fail(r))
	h.c.Destroy(r)
}
