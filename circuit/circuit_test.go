package circuit

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/stream"
)

// dial opens a stream that the last hop's side answers with stream.Respond.
func dial(t *testing.T, c *Circuit, s *script) *stream.Conn {
	t.Helper()
	conn, err := c.Dial(t.Context(), s.call())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// answering is a last hop that opens every stream.
func answering(s *script, m cell.Message) {
	if m.Verb == cell.Open {
		s.answer(m)
	}
}

func TestMessagesThatNothingWaitsForEndTheCircuit(t *testing.T) {
	record := make([]byte, stream.DataSize)
	opened := func(t *testing.T, c *Circuit, s *script) { dial(t, c, s) }
	asked := func(t *testing.T, c *Circuit, s *script) { // a request that is being answered
		go c.Request(t.Context(), cell.RequestViews, nil, 10_000)
		time.Sleep(time.Second)
	}
	for name, c := range map[string]struct {
		first func(t *testing.T, c *Circuit, s *script)
		then  func(s *script)
	}{
		"OPENED for no stream":          {nil, func(s *script) { s.say(1, cell.Opened, 1) }},
		"a record for no stream":        {nil, func(s *script) { s.say(1, cell.Record, record...) }},
		"a record on stream 0":          {nil, func(s *script) { s.say(0, cell.Record, record...) }},
		"CLOSE for no stream":           {nil, func(s *script) { s.say(1, cell.Close, 0) }},
		"ALLOW for no stream":           {nil, func(s *script) { s.say(1, cell.Allow, make([]byte, 8)...) }},
		"REGISTERED without REGISTER":   {nil, func(s *script) { s.say(0, cell.Registered, 1) }},
		"an OPEN where nobody visits":   {nil, func(s *script) { s.say(2, cell.Open, make([]byte, cell.TokenSize+stream.Message1Size)...) }},
		"REGISTER":                      {nil, func(s *script) { s.say(0, cell.Register, 1) }},
		"REQUEST":                       {nil, func(s *script) { s.say(1, cell.Request, 1) }},
		"OPENED twice":                  {opened, func(s *script) { s.say(1, cell.Opened, make([]byte, stream.Message2Size)...) }},
		"REGISTERED on a stream":        {opened, func(s *script) { s.say(1, cell.Registered, 1) }},
		"ANSWER on a stream":            {opened, func(s *script) { s.say(1, cell.Answer, 0) }},
		"an ALLOW that is no number":    {opened, func(s *script) { s.say(1, cell.Allow, 1, 2, 3) }},
		"OPENED for a request":          {asked, func(s *script) { s.say(1, cell.Opened, 1) }},
		"a record for a request":        {asked, func(s *script) { s.say(1, cell.Record, record...) }},
		"ALLOW for a request":           {asked, func(s *script) { s.say(1, cell.Allow, make([]byte, 8)...) }},
		"an empty ANSWER":               {asked, func(s *script) { s.say(1, cell.Answer) }},
		"an ANSWER with no such flag":   {asked, func(s *script) { s.say(1, cell.Answer, 2, 1) }},
		"an ANSWER behind the last one": {asked, func(s *script) { s.say(1, cell.Answer, 0, 1); s.say(1, cell.Answer, 0, 1) }},
		"an ANSWER longer than asked for, in parts": {asked, func(s *script) {
			for range 4 {
				s.say(1, cell.Answer, append([]byte{1}, make([]byte, 3000)...)...)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, answering, func(t *testing.T, stage *stage) {
				one, s := stage.build(t)
				if c.first != nil {
					c.first(t, one, s)
				}
				c.then(s)
				ends(t, one)
			})
		})
	}
}

func TestVisitsThatBreakTheProtocolEndTheCircuit(t *testing.T) {
	body := make([]byte, cell.TokenSize+stream.Message1Size)
	for name, then := range map[string]func(s *script){
		"an odd number":          func(s *script) { s.say(3, cell.Open, body...) },
		"number 0":               func(s *script) { s.say(0, cell.Open, body...) },
		"a number used before":   func(s *script) { s.say(4, cell.Open, body...); s.say(4, cell.Open, body...) },
		"a number below another": func(s *script) { s.say(4, cell.Open, body...); s.say(2, cell.Open, body...) },
		"a byte too few":         func(s *script) { s.say(2, cell.Open, body[1:]...) },
		"a byte too many":        func(s *script) { s.say(2, cell.Open, append(body, 0)...) },
		"a record before it was answered": func(s *script) {
			s.say(2, cell.Open, body...)
			s.say(2, cell.Record, make([]byte, stream.DataSize)...)
		},
		"OPENED from the wrong side": func(s *script) {
			s.say(2, cell.Open, body...)
			s.say(2, cell.Opened, make([]byte, stream.Message2Size)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(t *testing.T, stage *stage) {
				c, err := stage.client.Build(t.Context(), Want{Last: stage.relay, Direct: true, Visit: func(c *Circuit, _ Visitor) { <-c.Done() }})
				if err != nil {
					t.Fatal(err)
				}
				then(<-stage.scripts)
				ends(t, c)
			})
		})
	}
}

func TestVisitorsWhoseHandshakeIsUnderWayAreBounded(t *testing.T) {
	play(t, nil, func(t *testing.T, stage *stage) {
		release := make(chan struct{})
		c, err := stage.client.Build(t.Context(), Want{Last: stage.relay, Direct: true, Visit: func(c *Circuit, v Visitor) {
			<-release
			c.Refuse(v, cell.Gone)
		}})
		if err != nil {
			t.Fatal(err)
		}
		s := <-stage.scripts
		body := make([]byte, cell.TokenSize+stream.Message1Size)
		for i := range uint32(maxHalfOpen + 3) {
			s.say(2+2*i, cell.Open, body...)
		}
		for i := range 3 {
			if m := s.hears(t, cell.Refused, 1+i); m.Body[0] != byte(cell.Busy) {
				t.Errorf("refused with %v", cell.Reason(m.Body[0]))
			}
		}
		close(release)
		s.hears(t, cell.Refused, maxHalfOpen+3)
		s.say(1000, cell.Open, body...)
		if m := s.hears(t, cell.Refused, maxHalfOpen+4); m.Body[0] != byte(cell.Gone) {
			t.Errorf("a later visitor is refused with %v", cell.Reason(m.Body[0]))
		}
		stands(t, c)
	})
}

func TestWhatCrossesTheEndOfAStreamIsDroppedUpToABound(t *testing.T) {
	play(t, answering, func(t *testing.T, stage *stage) {
		c, s := stage.build(t)
		conn := dial(t, c, s)
		conn.Fail(nil) // as if it had been reset; the circuit hears CLOSE from sender
		sender := sender{c, 1, newEntry(cell.Opened, 0)}
		sender.Close(cell.Gone)
		s.hears(t, cell.Close, 1)
		for range 100 {
			s.say(1, cell.Record, make([]byte, stream.DataSize)...)
			time.Sleep(10 * time.Millisecond)
		}
		s.say(1, cell.Close, 0)
		stands(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := c.Request(ctx, cell.RequestViews, nil, 100_000); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Request = %v", err)
		}
		cancel()
		time.Sleep(2 * time.Minute) // its answer comes all the same
		stands(t, c)
		for range maxStrays + 100 {
			s.say(1, cell.Close, 0)
			time.Sleep(time.Millisecond)
		}
		ends(t, c)
	})
}

func TestRecordsRightBehindOpenedAreKept(t *testing.T) {
	var sealed []byte
	play(t, func(s *script, m cell.Message) {
		if m.Verb != cell.Open {
			return
		}
		keys := s.answer(m)
		out, _ := stream.New(keys, grab{func(b []byte) { sealed = b }}, nil, nil, nil)
		out.Write([]byte("early"))
		s.say(m.Stream, cell.Record, sealed...)
		s.say(m.Stream, cell.Close, byte(cell.Done))
		out.Fail(nil)
	}, func(t *testing.T, stage *stage) {
		c, s := stage.build(t)
		for range 20 {
			conn := dial(t, c, s)
			got, _ := io.ReadAll(conn)
			if len(got) != 0 && string(got) != "early" {
				t.Errorf("read %q", got)
			}
			if _, err := conn.Write([]byte("x")); err == nil {
				t.Error("the far side's CLOSE was lost")
			}
			conn.Close()
		}
		stands(t, c)
	})
}

// grab is a Sender that hands on what is sealed.
type grab struct{ got func([]byte) }

func (g grab) Data(seal func([]byte) []byte, _ <-chan struct{}) error {
	g.got(seal(nil))
	return nil
}
func (g grab) Flush()      {}
func (g grab) Go(f func()) { go f() }

func (g grab) Control(seal func([]byte) []byte) error { return nil }
func (g grab) Close(cell.Reason)                      {}

// Too many early records are the far side's fault, not the last hop's.
func TestTooManyEarlyRecordsEndTheirStreamAlone(t *testing.T) {
	play(t, func(s *script, m cell.Message) {
		if m.Verb == cell.Open && m.Stream == 3 {
			s.answer(m)
			for range maxEarly + 5 {
				s.say(m.Stream, cell.Record, make([]byte, stream.DataSize)...)
			}
		} else {
			answering(s, m)
		}
	}, func(t *testing.T, stage *stage) {
		c, s := stage.build(t)
		beside := dial(t, c, s)
		conn, err := c.Dial(t.Context(), s.call())
		if err == nil {
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("read something")
			}
		}
		stands(t, c)
		if _, err := beside.Write([]byte("x")); err != nil {
			t.Errorf("the stream beside: %v", err)
		}
		beside.Fail(nil)
	})
}

func TestARefusalSaysWhy(t *testing.T) {
	play(t, func(s *script, m cell.Message) {
		if m.Verb == cell.Open {
			s.say(m.Stream, cell.Refused, byte(cell.UnknownToken))
		}
	}, func(t *testing.T, stage *stage) {
		c, s := stage.build(t)
		for range 3 {
			_, err := c.Dial(t.Context(), s.call())
			var refused *RefusedError
			if !errors.As(err, &refused) || refused.Reason != cell.UnknownToken {
				t.Errorf("Dial = %v", err)
			}
		}
		if n, _ := c.Streams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

func TestAStreamThatNobodyWaitsForAnyMoreIsClosed(t *testing.T) {
	play(t, nil, func(t *testing.T, stage *stage) {
		c, s := stage.build(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Dial(ctx, s.call()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial = %v", err)
		}
		if m := s.hears(t, cell.Close, 1); m.Stream != 1 {
			t.Errorf("CLOSE of stream %d", m.Stream)
		}
		s.say(1, cell.Opened, make([]byte, stream.Message2Size)...) // it crossed
		s.say(1, cell.Record, make([]byte, stream.DataSize)...)
		stands(t, c)
	})
}

// A hop that takes CREATE and says nothing: whoever gives up leaves nothing
// behind, here or there.
func TestGivingUpWhileCreateIsUnderWayLeavesNothing(t *testing.T) {
	play(t, nil, func(t *testing.T, stage *stage) {
		_, b := stage.build(t) // the link stands
		b.c.Destroy(cell.Done)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l, err := stage.client.cfg.Links.Get(ctx, stage.relay.ID, stage.relay.Addr)
		if err != nil {
			t.Fatal(err)
		}
		hops := []onion.Hop{{ID: stage.relay.ID, Key: stage.relay.Key}}
		create, wrapped, err := onion.Wrap(hops, onion.Step(time.Now()), nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &Circuit{wrapped: wrapped, intake: link.NewIntake(nil), stands: make(chan error, 1), done: make(chan struct{}),
			streams: make(map[uint32]*entry)}
		c.slot = l.NewCircuit(nil)
		if err := c.slot.Open(handler{c}, create); err != nil {
			t.Fatal(err)
		}
		c.Close()
		handler{c}.Created(make([]byte, cell.CreatedSize)) // it was under way
		if _, err := wrapped.Finish(make([]byte, cell.CreatedSize)); err == nil || c.layers != nil {
			t.Error("the secrets are kept")
		}
		if err := c.standing(ctx); err == nil {
			t.Error("it stands")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := l.Circuits(); n != 0 {
			t.Errorf("%d circuits are left on the link", n)
		}
	})
}

func TestAFirstHopThatWillNotHaveTheCircuitIsTheOneToBlame(t *testing.T) {
	play(t, nil, func(t *testing.T, stage *stage) {
		wrong := stage.relay
		key, err := onion.GenerateKey(2)
		if err != nil {
			t.Fatal(err)
		}
		wrong.Key = key.Public()
		_, err = stage.client.Build(t.Context(), Want{Last: wrong, Direct: true})
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Reason != cell.Protocol {
			t.Errorf("Build = %v", err)
		}
	})
}

func TestEndsOfACircuitReachWhoeverWaits(t *testing.T) {
	play(t, answering, func(t *testing.T, stage *stage) {
		c, s := stage.build(t)
		conn := dial(t, c, s)
		var wg sync.WaitGroup
		for name, wait := range map[string]func() error{
			"Read":     func() error { _, err := conn.Read(make([]byte, 1)); return err },
			"Write":    func() error { _, err := conn.Write(make([]byte, 1<<20)); return err },
			"Request":  func() error { _, err := c.Request(t.Context(), cell.RequestViews, nil, 100_000); return err },
			"Register": func() error { return c.Register(t.Context(), []byte{1}) },
		} {
			wg.Go(func() {
				if err := wait(); !errors.Is(err, ErrGone) {
					t.Errorf("%s: %v, want ErrGone", name, err)
				}
			})
		}
		synctest.Wait()
		s.c.Destroy(cell.Busy)
		wg.Wait()
		ends(t, c)
		if _, err := c.Dial(t.Context(), s.call()); !errors.Is(err, ErrGone) {
			t.Errorf("Dial on a circuit that is over: %v", err)
		}
		if _, err := c.Request(t.Context(), 1, nil, 1); !errors.Is(err, ErrGone) {
			t.Errorf("Request on a circuit that is over: %v", err)
		}
		if n := len(stage.client.Circuits()); n != 0 {
			t.Errorf("the client lists %d circuits", n)
		}
	})
}

func TestAWriteThatWaitsForRoomKeepsItsDeadline(t *testing.T) {
	play(t, answering, func(t *testing.T, stage *stage) {
		c, s := stage.build(t)
		a, b := dial(t, c, s), dial(t, c, s) // the last hop allows each eight records
		began := time.Now()
		a.SetWriteDeadline(began.Add(time.Second))
		if _, err := a.Write(make([]byte, 60_000)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write = %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("after %v", took)
		}
		if _, err := b.Write(make([]byte, 20_000)); err != nil { // the one beside goes on
			t.Errorf("Write = %v", err)
		}
		a.SetWriteDeadline(time.Time{})
		s.say(1, cell.Allow, 0, 0, 0, 0, 0, 0, 0, 100)
		if _, err := a.Write(make([]byte, 20_000)); err != nil {
			t.Errorf("with room: %v", err)
		}
		a.Fail(net.ErrClosed)
		b.Fail(net.ErrClosed)
	})
}

// Streams of one circuit that all have much to send get the same, from when the
// circuit's first credit is used up: whoever comes first may take that.
func TestStreamsOfOneCircuitTakeTurns(t *testing.T) {
	play(t, answering, func(t *testing.T, stage *stage) {
		c, s := stage.build(t)
		const streams, each, free = 12, 17, 80 // records
		var conns []*stream.Conn
		for i := range uint32(streams) {
			conns = append(conns, dial(t, c, s))
			s.say(1+2*i, cell.Allow, 0, 0, 0, 0, 0, 1, 0, 0)
		}
		time.Sleep(time.Second)
		for _, conn := range conns {
			go conn.Write(make([]byte, 64<<10)) // all that a fresh window takes: each records
		}
		time.Sleep(time.Second)
		synctest.Wait()
		s.mu.Lock()
		var order []uint32
		for _, m := range s.got {
			if m.Verb == cell.Record && len(m.Body) == stream.DataSize {
				order = append(order, m.Stream)
			}
		}
		s.mu.Unlock()
		if len(order) != streams*each {
			t.Fatalf("%d records came, want %d", len(order), streams*each)
		}
		left := make(map[uint32]int)
		for i := range uint32(streams) {
			left[1+2*i] = each
		}
		for _, id := range order[:free] {
			left[id]--
		}
		sent := make(map[uint32]int)
		for id, n := range left {
			if n > 0 {
				sent[id] = 0
			}
		}
		for _, id := range order[free:] { // until one has sent all
			sent[id]++
			if left[id]--; left[id] == 0 {
				break
			}
		}
		most := 0
		for _, n := range sent {
			most = max(most, n)
		}
		for id, n := range sent {
			if n < most-3*turnCells { // one turn that had begun, one that has not ended, and one between
				t.Errorf("stream %d sent %d records while another sent %d", id, n, most)
			}
		}
		if len(sent) < streams/2 {
			t.Errorf("%d streams had anything left to send", len(sent))
		}
		for _, conn := range conns {
			conn.Fail(nil)
		}
	})
}

// A neighbour that never allows anything: control messages are not kept
// without end.
func TestACircuitWithoutCreditIsGivenUp(t *testing.T) {
	play(t, nil, func(t *testing.T, stage *stage) {
		c, _ := stage.build(t)
		c.mu.Lock()
		for range maxPending { // as if they waited
			c.pending.Push(cell.NewFrame())
		}
		c.mu.Unlock()
		if err := c.message(cell.Message{Stream: 1, Verb: cell.Close, Body: []byte{0}}); !errors.Is(err, ErrGone) {
			t.Errorf("one message more: %v", err)
		}
		ends(t, c)
		if c.pending.Len() != 0 {
			t.Error("messages are kept")
		}
	})
}

func TestControlOfAStreamGoesBehindItsData(t *testing.T) {
	play(t, answering, func(t *testing.T, stage *stage) {
		c, s := stage.build(t)
		conn := dial(t, c, s)
		s.say(1, cell.Allow, 0, 0, 0, 0, 0, 1, 0, 0)
		time.Sleep(time.Second)
		conn.Write(make([]byte, 50_000))
		conn.Close()
		time.Sleep(time.Second)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		var sizes []int
		for _, m := range s.got {
			if m.Verb == cell.Record {
				sizes = append(sizes, len(m.Body))
			}
		}
		if n := len(sizes); n < 14 || sizes[n-1] != stream.ControlSize || sizes[n-2] != stream.DataSize {
			t.Errorf("records of %v bytes, want FIN behind the data", sizes)
		}
		conn.Fail(nil)
	})
}

func TestLongRequestsAreRefusedHere(t *testing.T) {
	play(t, nil, func(t *testing.T, stage *stage) {
		c, _ := stage.build(t)
		if _, err := c.Request(t.Context(), 1, make([]byte, cell.MaxMessage), 1); err == nil {
			t.Error("a request longer than a message went")
		}
		stands(t, c)
	})
}

func TestAnswersOfEveryLengthArrive(t *testing.T) {
	play(t, nil, func(t *testing.T, stage *stage) {
		for _, n := range []int{0, 1, cell.MaxMessage - 2, cell.MaxMessage - 1, cell.MaxMessage, 3 * (cell.MaxMessage - 1), 1 << 20} {
			body := []byte{0, byte(n >> 16), byte(n >> 8), byte(n)}
			c, got, err := stage.client.Request(t.Context(), Want{Last: stage.relay, Direct: true}, cell.RequestEcho, body, n)
			if err != nil || len(got) != n {
				t.Errorf("%d bytes: %d, %v", n, len(got), err)
			}
			if got, err := c.Request(t.Context(), cell.RequestEcho, body, n); err != nil || len(got) != n {
				t.Errorf("%d bytes, again: %d, %v", n, len(got), err)
			}
			if n > 0 {
				if _, err := c.Request(t.Context(), cell.RequestEcho, body, n-1); !errors.Is(err, ErrGone) {
					t.Errorf("%d bytes where %d are wanted: %v", n, n-1, err)
				}
			}
		}
	})
}

func TestCloseWaitsForVisits(t *testing.T) {
	var over bool
	play(t, nil, func(t *testing.T, stage *stage) {
		_, err := stage.client.Build(t.Context(), Want{Last: stage.relay, Direct: true, Visit: func(c *Circuit, v Visitor) {
			<-c.Done()
			time.Sleep(time.Second)
			over = true
		}})
		if err != nil {
			t.Fatal(err)
		}
		(<-stage.scripts).say(2, cell.Open, make([]byte, cell.TokenSize+stream.Message1Size)...)
		time.Sleep(time.Second)
		stage.client.Close()
		if !over {
			t.Error("a visit is under way still")
		}
	})
}
