package hop

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// countEvery is how many cells a circuit carries before it adds them to the
// totals: these are shared by all processors.
const countEvery = 64

// flow is one direction of a circuit through this hop. What the neighbour
// before may send follows what the neighbour behind has allowed, so that cells
// wait at the circuit's end and not here; the window bounds what can wait.
type flow struct {
	crypt sync.Mutex // held while the layer works in this direction

	mu       sync.Mutex
	from     *link.Circuit // whom to grant to
	win      window.Window
	received uint64
	sent     uint64
	credit   uint64 // what the neighbour behind allows
}

// open makes room for what may wait here; false when there is none.
func (f *flow) open(b *window.Budget) (ok bool) {
	f.win, ok = window.Open(&link.Cells, b)
	f.credit = link.Floor // what a circuit that stands may send at first
	return ok
}

// arrived notes a cell, and reports whether the totals should hear of some.
func (f *flow) arrived() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.received++
	if f.win.Timed(f.received) {
		f.win.Received(f.received, window.Clock())
	}
	return f.received%countEvery == 0
}

// moved notes cells sent, or credit received, in total; zero is no news.
func (f *flow) moved(sent, credit uint64) {
	if total, ok := f.grant(sent, credit); ok {
		f.from.Grant(total)
	}
}

func (f *flow) grant(sent, credit uint64) (total uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent, f.credit = max(f.sent, sent), max(f.credit, credit)
	if f.credit > f.sent+f.win.Size() { // this window is what holds the circuit up
		if total, ok = f.win.Widen(f.sent, f.credit); ok {
			return total, true
		}
	}
	return f.win.Grant(f.sent, f.credit, window.Clock)
}

// close gives the window back and returns how many cells the totals have not
// heard of.
func (f *flow) close() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.win.Close()
	return f.received % countEvery
}

// transit is a circuit that goes on to another hop.
type transit struct {
	s        *Server
	prev     *link.Circuit
	next     *link.Circuit // set before anything can come from there
	layer    *onion.Layer
	forward  flow
	backward flow

	mu     sync.Mutex
	state  int           // guarded by mu
	peeled *onion.Peeled // guarded by mu: until the circuit stands
	built  func()        // told when building is over
}

const (
	building = iota
	standing
	ended
)

// advance moves to state, unless the circuit was past it. It returns the state
// before and, when that was building, what answers CREATE.
func (t *transit) advance(state int) (before int, p *onion.Peeled) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before = t.state
	if before >= state {
		return before, nil
	}
	t.state = state
	if before == building {
		t.built()
		p, t.peeled = t.peeled, nil
	}
	return before, p
}

// end ends both sides. Before the circuit stood, the client hears which hop
// failed; afterwards what is passed on names no reason.
func (t *transit) end(r cell.Reason) {
	before, p := t.advance(ended)
	switch before {
	case ended:
		return
	case building:
		t.s.fail(t.prev, p, r)
	case standing:
		t.prev.Destroy(cell.OK)
		t.s.Counters.Died.Add(1)
	}
	if t.next != nil {
		t.next.Destroy(cell.OK)
	}
	t.s.Counters.cells.Add(t.forward.close() + t.backward.close())
	t.s.Counters.Circuits.Add(-1)
	t.forward.crypt.Lock()
	t.backward.crypt.Lock()
	t.layer.Clear()
	t.backward.crypt.Unlock()
	t.forward.crypt.Unlock()
}

// fromPrev takes what comes from the client's side.
type fromPrev struct{ *transit }

func (t fromPrev) Created([]byte) {}
func (t fromPrev) Cell(b *[cell.Size]byte) {
	f := cell.NewFrame()
	t.forward.crypt.Lock()
	err := t.layer.Forward(f.Body(), b)
	t.forward.crypt.Unlock()
	if err != nil {
		f.Free()
		t.end(cell.Protocol)
		return
	}
	if t.forward.arrived() {
		t.s.Counters.cells.Add(countEvery)
	}
	if !t.next.Queue(f) {
		t.end(cell.Gone)
	}
}
func (t fromPrev) Flush()                { t.next.Flush() }
func (t fromPrev) Credit(total uint64)   { t.backward.moved(0, total) }
func (t fromPrev) Sent(total uint64)     { t.backward.moved(total, 0) }
func (t fromPrev) Destroyed(cell.Reason) { t.end(cell.Gone) }

// fromNext takes what comes from the last hop's side.
type fromNext struct{ *transit }

// Created runs on the reader, so that a cell right behind CREATED finds its way.
func (t fromNext) Created(inner []byte) {
	if before, p := t.advance(standing); before == building {
		t.s.Counters.Created.Add(1)
		t.prev.Source(t.next.Link())
		t.prev.Created(p.Created(inner))
	}
}
func (t fromNext) Cell(b *[cell.Size]byte) {
	f := cell.NewFrame()
	t.backward.crypt.Lock()
	t.layer.Backward(f.Body(), b)
	t.backward.crypt.Unlock()
	if t.backward.arrived() {
		t.s.Counters.cells.Add(countEvery)
	}
	if !t.prev.Queue(f) {
		t.end(cell.Gone)
	}
}
func (t fromNext) Flush()                { t.prev.Flush() }
func (t fromNext) Credit(total uint64)   { t.forward.moved(0, total) }
func (t fromNext) Sent(total uint64)     { t.forward.moved(total, 0) }
func (t fromNext) Destroyed(cell.Reason) { t.end(cell.Unreachable) }

// extendTimeout bounds how long a circuit may take to stand behind this hop.
const extendTimeout = 10 * time.Second

// pass makes this server a hop on the circuit's way. Dialling and waiting for
// the answer take no worker's time.
func (s *Server) pass(ctx context.Context, h handshake, p *onion.Peeled) {
	var addr netip.AddrPort
	known := false
	if s.cfg.Next != nil && p.Next != s.id {
		addr, known = s.cfg.Next(p.Next)
	}
	if !known {
		s.fail(h.c, p, cell.UnknownHop)
		return
	}
	if !take(&h.from.extending, h.from.maxExtending) {
		s.fail(h.c, p, cell.Busy)
		return
	}
	layer, err := p.Accept(s.cfg.Suite)
	if err != nil {
		h.from.extending.Add(-1)
		s.refuse(h, cell.Protocol)
		return
	}
	ctx, built := context.WithTimeout(ctx, extendTimeout)
	t := &transit{s: s, prev: h.c, layer: layer, peeled: p, built: built}
	s.Counters.Circuits.Add(1)
	t.forward.from = h.c
	room := t.forward.open(s.budget)
	room = t.backward.open(s.budget) && room
	switch {
	case !room:
		t.end(cell.Busy)
	case !h.c.Handle(fromPrev{t}):
		t.end(cell.Gone)
	default:
		next, create := p.Next, p.Create
		p.Create = nil
		s.wg.Go(func() {
			defer h.from.extending.Add(-1)
			t.extend(ctx, next, addr, create)
		})
		return
	}
	h.from.extending.Add(-1)
}

// extend opens the circuit at the next hop, and returns when it stands or is
// over, which ctx says.
func (t *transit) extend(ctx context.Context, id onion.ID, addr netip.AddrPort, create []byte) {
	if t.open(ctx, id, addr, create) {
		<-ctx.Done()
	}
	t.mu.Lock()
	late := t.state == building
	t.mu.Unlock()
	if late {
		t.end(cell.Unreachable)
	}
}

func (t *transit) open(ctx context.Context, id onion.ID, addr netip.AddrPort, create []byte) bool {
	l, err := t.s.cfg.Links.Get(ctx, id, addr)
	if err != nil {
		return false
	}
	next := l.NewCircuit(t.prev.Link())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != building {
		return false
	}
	t.next, t.backward.from = next, next
	return next.Open(fromNext{t}, create) == nil
}

// fail answers CREATE in place of the hops behind this one.
func (s *Server) fail(c *link.Circuit, p *onion.Peeled, r cell.Reason) {
	s.Counters.Refused.Add(1)
	c.Created(p.Fail(r))
	c.Destroy(r)
}
