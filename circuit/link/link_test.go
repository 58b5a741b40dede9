package link

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
)

func TestALinkCarriesCircuits(t *testing.T) {
	a, b := connect(t, linktest.Shape{})
	x, y := run(t, a, true), run(t, b, true)
	defer y.stop()
	defer x.stop()
	if string(a.Hello()) != "hello" {
		t.Errorf("hello %q", a.Hello())
	}
	for range 2 {
		near := open(t, a)
		near.hears(t, "created")
		far := <-y.accepted
		if n := near.send(Floor+1, 7); n != Floor {
			t.Errorf("%d cells went without credit, want %d", n, Floor)
		}
		far.wait(t, "cells", func() bool { return far.cells == Floor && far.last == 7 })
		near.wait(t, "word of what was sent", func() bool { return near.sent == Floor })
		far.c.Grant(Floor + 20)
		near.hears(t, "created", "credit 28")
		far.send(1, 9)
		near.wait(t, "a cell", func() bool { return near.cells == 1 && near.last == 9 })
		near.c.Destroy(cell.Busy)
		far.hears(t, "destroyed: busy")
	}
	synced(t, x, y)
}

func TestOnlyWhoDialledTheLinkOpensCircuits(t *testing.T) {
	r, l := acceptRaw(t)
	r.frame(1, cell.Create)
	if err := <-l.done; err == nil || !strings.Contains(err.Error(), "CREATE") {
		t.Errorf("a dialler that gets CREATE: %v", err)
	}
	_, b := connect(t, linktest.Shape{})
	if err := b.NewCircuit(nil).Open(newEnd(), nil); err == nil {
		t.Error("an acceptor opened a circuit")
	}
}

// synced waits until neither side remembers a circuit.
func synced(t *testing.T, links ...*running) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		left := 0
		for _, l := range links {
			l.mu.Lock()
			left += len(l.circuits) + len(l.ghosts) + len(l.sched.sources)
			l.mu.Unlock()
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d circuits are remembered that both sides have ended", left)
		}
	}
}

func TestFramesThatNoStateExpectsEndTheCircuit(t *testing.T) {
	for _, c := range []struct {
		name   string
		frames func(*raw)
		want   string // what the owner of the circuit, number 1 or 2, hears
	}{
		{"a cell before CREATED was answered", func(r *raw) { r.frame(1, cell.Data) }, "destroyed: protocol"},
		{"CREDIT before CREATED was answered", func(r *raw) { r.credit(1, 100) }, "destroyed: protocol"},
		{"CREATED by whoever opened", func(r *raw) { r.frame(1, cell.Created) }, "destroyed: protocol"},
		{"DESTROY before an answer", func(r *raw) { r.frame(1, cell.Destroy, 4) }, "destroyed: busy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, l := dialRaw(t)
			defer l.stop()
			r.frame(1, cell.Create)
			e := <-l.accepted
			c.frames(r)
			e.hears(t, c.want)
			r.reads("1 destroy: " + strings.TrimPrefix(strings.Replace(c.want, "busy", "ok", 1), "destroyed: "))
			r.frame(3, cell.Create) // the link goes on
			<-l.accepted
		})
	}
	for _, c := range []struct {
		name   string
		frames func(*raw)
		want   string
	}{
		{"CREATED again", func(r *raw) { r.frame(1, cell.Created) }, "protocol"},
		{"CREDIT that is no more than before", func(r *raw) { r.credit(1, Floor) }, "protocol"},
		{"CREDIT that falls", func(r *raw) { r.credit(1, 100); r.credit(1, 99) }, "protocol"},
		{"more cells than allowed", func(r *raw) {
			for range Floor + 1 {
				r.frame(1, cell.Data)
			}
		}, "overrun"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, l := acceptRaw(t)
			defer l.stop()
			e := open(t, l.Link)
			r.reads("1 create")
			r.frame(1, cell.Created)
			c.frames(r)
			r.reads("1 destroy: " + c.want)
			e.wait(t, "the end", func() bool { return e.told[len(e.told)-1] == "destroyed: "+c.want })
		})
	}
}

func TestCreditAndCellsBeforeCreatedEndACircuitOfOurs(t *testing.T) {
	for _, c := range []cell.Command{cell.Credit, cell.Data} {
		r, l := acceptRaw(t)
		e := open(t, l.Link)
		r.reads("1 create")
		r.frame(1, c, 0, 0, 0, 0, 0, 0, 0, 99)
		e.hears(t, "destroyed: protocol")
		r.reads("1 destroy: protocol")
		l.stop()
	}
}

func TestFramesThatFitNoCircuitCloseTheLink(t *testing.T) {
	for name, frames := range map[string]func(*raw){
		"a cell for an id never seen":      func(r *raw) { r.frame(5, cell.Data) },
		"DESTROY for an id never seen":     func(r *raw) { r.frame(5, cell.Destroy) },
		"CREATE with an id used before":    func(r *raw) { r.frame(3, cell.Create); r.frame(3, cell.Create) },
		"CREATE with an id below the last": func(r *raw) { r.frame(3, cell.Create); r.frame(1, cell.Create) },
		"a cell after its own DESTROY": func(r *raw) {
			r.frame(1, cell.Create)
			r.frame(1, cell.Destroy)
			r.reads("1 destroy: ok")
			r.frame(1, cell.Data)
		},
		"an unknown command":                func(r *raw) { r.record([]byte{0, 0, 0, 1, 9, 0, 0, 1, 0}, nil) },
		"a length that its command has not": func(r *raw) { r.record([]byte{0, 0, 0, 1, 5, 0, 0, 2, 0, 0}, nil) },
		"a frame on circuit 0":              func(r *raw) { r.frame(0, cell.Destroy) },
		"bytes that are no frame":           func(r *raw) { r.l.wire.Write([]byte("GET / HTTP/1.1\r\n\r\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			r, l := dialRaw(t)
			frames(r)
			select {
			case err := <-l.done:
				if err == nil {
					t.Error("no reason")
				}
			case <-time.After(patience):
				t.Error("the link stands")
				l.stop()
			}
		})
	}
}

func TestALinkWhereNobodyAnswersRefusesCreate(t *testing.T) {
	id, cert := somebody(t)
	a, b := linktest.Pipe(linktest.Shape{})
	go Accept(t.Context(), b, cert, time.Now(), nil)
	l, err := Dial(t.Context(), a, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.create(2, make([]byte, cell.CreateSize)); err == nil {
		t.Error("CREATE was taken")
	}
	l.Close()
}

func TestPaddingIsNothing(t *testing.T) {
	r, l := dialRaw(t)
	defer l.stop()
	r.frame(0, cell.Padding)
	r.frame(1, cell.Create)
	r.frame(1, cell.Padding)
	e := <-l.accepted
	e.c.Created(make([]byte, cell.CreatedSize))
	r.reads("1 created")
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cells != 0 || e.told != nil {
		t.Errorf("%d cells, %q", e.cells, e.told)
	}
}

func TestWhatComesForADestroyedCircuitIsDroppedUpToItsCredit(t *testing.T) {
	r, l := dialRaw(t)
	r.frame(1, cell.Create)
	e := <-l.accepted
	e.c.Created(make([]byte, cell.CreatedSize))
	e.c.Grant(Floor + 4)
	r.reads("1 created", "1 credit 12")
	r.frame(1, cell.Data)
	e.wait(t, "a cell", func() bool { return e.cells == 1 })
	e.c.Destroy(cell.Done)
	r.reads("1 destroy: done")
	r.credit(1, 1000) // it crossed
	for range Floor + 4 - 1 {
		r.frame(1, cell.Data)
	}
	r.frame(3, cell.Create) // and the link stands
	<-l.accepted
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cells != 1 || e.told != nil {
		t.Errorf("the owner has %d cells and heard %q after it was gone", e.cells, e.told)
	}
	r.frame(1, cell.Data)
	if err := <-l.done; err == nil || !strings.Contains(err.Error(), "more than it may") {
		t.Errorf("one cell too many: %v", err)
	}
}

func TestDestroysThatCrossEndTheCircuitOnce(t *testing.T) {
	a, b := connect(t, linktest.Shape{})
	x, y := run(t, a, true), run(t, b, true)
	defer y.stop()
	defer x.stop()
	for range 200 {
		near := open(t, a)
		near.hears(t, "created")
		far := <-y.accepted
		var both sync.WaitGroup
		both.Go(func() { near.c.Destroy(cell.Done); near.c.Destroy(cell.Busy) })
		both.Go(func() { far.c.Destroy(cell.Done); far.send(3, 1) })
		both.Wait()
		for _, e := range []*end{near, far} {
			e.mu.Lock()
			if n := len(e.told); n > 2 {
				t.Errorf("told %q", e.told)
			}
			e.mu.Unlock()
		}
	}
	synced(t, x, y)
}

func TestCircuitsOpenedAtOnceGoOutInOrder(t *testing.T) {
	a, b := connect(t, linktest.Shape{})
	x, y := run(t, a, false), run(t, b, true)
	defer y.stop()
	defer x.stop()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				e := newEnd()
				e.c = a.NewCircuit(nil)
				if err := e.c.Open(e, make([]byte, cell.CreateSize)); err != nil {
					t.Error(err)
					return
				}
				e.wait(t, "CREATED", func() bool { return len(e.told) == 1 })
				e.c.Destroy(cell.Done)
			}
		})
	}
	go func() {
		for range y.accepted {
		}
	}()
	all.Wait()
	synced(t, x, y)
	close(y.accepted)
}

func TestACircuitGivenUpBeforeItsCreateWentIsNeverHeardOf(t *testing.T) {
	a, _ := connect(t, linktest.Shape{})
	e := open(t, a) // nobody writes: the link does not run
	e.c.Destroy(cell.Done)
	unopened := a.NewCircuit(nil)
	unopened.Destroy(cell.Done)
	if err := unopened.Open(e, nil); err == nil {
		t.Error("a circuit that is over was opened")
	}
	if a.mu.Lock(); a.waits() {
		if b := a.gather(true); len(b.control) != 0 {
			t.Errorf("%d bytes are sent of it", len(b.control))
		}
	}
	a.mu.Unlock()
	if len(a.circuits)+len(a.ghosts) != 0 {
		t.Error("it is remembered")
	}
}

func TestCellsSentBeforeCreatedFollowIt(t *testing.T) {
	r, l := dialRaw(t)
	defer l.stop()
	r.frame(1, cell.Create)
	e := <-l.accepted
	e.send(3, 5)
	e.c.Created(make([]byte, cell.CreatedSize))
	e.send(1, 6)
	r.reads("1 created", "1 data 5", "1 data 5", "1 data 5", "1 data 6")
}

// TestCreditGrantedBeforeCreatedFollowsIt: the neighbour ends a circuit on which
// CREDIT comes first.
func TestCreditGrantedBeforeCreatedFollowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := dialRaw(t)
		defer l.stop()
		r.frame(1, cell.Create)
		e := <-l.accepted
		e.c.Grant(Floor + 20)
		synctest.Wait() // whatever the link sends by itself
		e.c.Created(make([]byte, cell.CreatedSize))
		r.reads("1 created", fmt.Sprint("1 credit ", Floor+20))
	})
}

// write lets the link write, or not.
func (r *running) write(may bool) {
	r.mu.Lock()
	r.writing = !may
	r.mu.Unlock()
	r.wake.Signal()
}

func TestAFailureIsAnsweredByCreatedAndThenDestroy(t *testing.T) {
	r, l := dialRaw(t)
	defer l.stop()
	r.frame(1, cell.Create)
	e := <-l.accepted
	e.send(3, 5)
	l.write(false) // in between the cells could go
	e.c.Created(make([]byte, cell.CreatedSize))
	e.c.Destroy(cell.Busy)
	l.write(true)
	r.reads("1 created", "1 destroy: busy")
}

// A neighbour that allows everything and reads nothing makes nobody queue
// without end.
func TestRoomEndsWhateverTheNeighbourAllows(t *testing.T) {
	r, l := dialRaw(t)
	defer l.stop()
	r.frame(1, cell.Create)
	e := <-l.accepted
	e.c.Created(make([]byte, cell.CreatedSize))
	r.credit(1, 1<<62)
	e.wait(t, "credit", func() bool { return len(e.told) == 1 })
	n := 0
	idle := time.Now()
	for n < 10_000 && time.Since(idle) < 50*time.Millisecond {
		for e.c.Room() > 0 {
			n += e.send(1, 1)
			idle = time.Now()
		}
	}
	if most := (4<<20+1<<20)/cell.FrameSize + maxQueued; n > most {
		t.Errorf("%d cells were taken though nobody reads", n)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if got := e.c.slot.cells.Len(); got > maxQueued {
		t.Errorf("%d cells wait, at most %d", got, maxQueued)
	}
}

func TestALinkThatCannotWriteCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := dialRaw(t)
		r.frame(1, cell.Create)
		e := <-l.accepted
		e.c.Created(make([]byte, cell.CreatedSize))
		r.credit(1, 1<<62)
		synctest.Wait()
		stop := make(chan struct{})
		defer close(stop)
		go func() { // the other side is there, and doesn't read
			for {
				select {
				case <-stop:
					return
				case <-time.After(keepaliveEvery):
					r.l.wire.Write(sealRecord(r.l, cell.AppendKeepalive(nil), nil))
				}
			}
		}()
		began := time.Now()
		for e.c.Room() > 0 { // more than the wire takes
			e.send(1, 1)
			synctest.Wait()
		}
		err := <-l.done
		if took := time.Since(began); took > writeTimeout+time.Second || took < writeTimeout-writeSlack {
			t.Errorf("closed after %v: %v", took, err)
		}
		e.hears(t, "credit 4611686018427387904", "destroyed: gone")
	})
}

func TestTheEndOfALinkEndsItsCircuitsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := connect(t, linktest.Shape{Delay: time.Millisecond})
		x, y := run(t, a, true), run(t, b, true)
		var all []*end
		for range 20 {
			all = append(all, open(t, a))
		}
		synctest.Wait()
		time.Sleep(time.Second)
		for len(y.accepted) > 0 {
			all = append(all, <-y.accepted)
		}
		all[3].c.Destroy(cell.Done)
		x.stop()
		<-y.done
		for i, e := range all {
			e.mu.Lock()
			ends := slices.DeleteFunc(slices.Clone(e.told), func(s string) bool { return !strings.HasPrefix(s, "destroyed") })
			e.mu.Unlock()
			want := 1
			if i == 3 {
				want = 0
			}
			if len(ends) != want {
				t.Errorf("circuit %d heard %q", i, e.told)
			}
			if e.c.Room() != 0 || e.send(1, 1) != 0 {
				t.Errorf("circuit %d still sends", i)
			}
		}
		if err := a.NewCircuit(nil).Open(newEnd(), nil); err != ErrClosed {
			t.Errorf("a circuit was opened on a dead link: %v", err)
		}
	})
}

func TestUnansweredDestroysAreBounded(t *testing.T) {
	r, l := dialRaw(t)
	l.mu.Lock()
	for i := range cell.ID(2*maxCircuits - 10) { // as if there had been so many
		l.ghosts[2*i+1] = 8
	}
	l.lastID = 4*maxCircuits + 1
	l.mu.Unlock()
	go func() {
		for e := range l.accepted {
			e.c.Destroy(cell.Busy)
		}
	}()
	defer close(l.accepted)
	for i := range cell.ID(12) {
		b := make([]byte, cell.HeaderSize+cell.CreateSize)
		cell.Header{Circuit: 4*maxCircuits + 3 + 2*i, Command: cell.Create}.Put(b)
		r.l.wire.Write(sealRecord(r.l, b, nil))
	}
	if err := <-l.done; err == nil || !strings.Contains(err.Error(), "unanswered") {
		t.Errorf("%v", err)
	}
}

func TestControlFramesLeaveRoomForCells(t *testing.T) {
	a, _ := connect(t, linktest.Shape{})
	e := open(t, a)
	e.c.opened, e.c.open = true, nil
	e.c.state.Store(standing)
	e.c.credit = 100
	for range 20 {
		open(t, a)
	}
	if n := e.send(40, 1); n != 40 {
		t.Fatalf("%d cells queued", n)
	}
	a.mu.Lock()
	b := a.gather(true)
	a.mu.Unlock()
	if b.n < 6 {
		t.Errorf("%d cells in a batch with %d bytes of control", b.n, len(b.control))
	}
	if size := len(b.control) + b.n*cell.FrameSize; size > batchSize {
		t.Errorf("a batch of %d bytes", size)
	}
	a.Close()
}

func TestALinkKnowsHowLongItWasIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := connect(t, linktest.Shape{})
		x, y := run(t, a, true), run(t, b, true)
		time.Sleep(time.Minute)
		if d := a.Idle(); d != time.Minute {
			t.Errorf("idle for %v, want a minute", d)
		}
		e := open(t, a)
		synctest.Wait()
		if a.Idle() != 0 || b.Idle() != 0 || a.Circuits() != 1 {
			t.Error("idle with a circuit")
		}
		e.c.Destroy(cell.Done)
		synctest.Wait()
		time.Sleep(time.Second)
		if a.Idle() != time.Second || b.Idle() != time.Second {
			t.Errorf("idle for %v and %v, want a second", a.Idle(), b.Idle())
		}
		x.stop()
		<-y.done
	})
}
