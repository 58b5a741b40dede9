package hop

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// bench is a hop in memory, and what clients need of it.
type bench struct {
	*Server
	key  *onion.PrivateKey
	net  *linktest.Net
	addr netip.AddrPort
}

// serve starts a hop. change may change its configuration.
func serve(t *testing.T, network *linktest.Net, change func(*Config)) *bench {
	t.Helper()
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{net: network}
	if b.key, err = onion.GenerateKey(1); err != nil {
		t.Fatal(err)
	}
	cert, err := link.Certificate(identity)
	if err != nil {
		t.Fatal(err)
	}
	links := &link.Pool{Certificate: &cert, DialTCP: network.Dial}
	cfg := Config{
		Identity: identity,
		Key:      func(byte) *onion.PrivateKey { return b.key },
		Now:      time.Now,
		Links:    links,
		Requests: map[byte]func(*Circuit, []byte) ([]byte, error){
			cell.RequestEcho: func(_ *Circuit, b []byte) ([]byte, error) { return make([]byte, binary.BigEndian.Uint32(b)), nil },
		},
	}
	if change != nil {
		change(&cfg)
	}
	if b.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ln, addr := network.Listen()
	b.addr = addr
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	wg.Go(func() { links.Run(ctx) })
	wg.Go(func() { b.Serve(ctx, ln) })
	return b
}

// client is somebody's end of a circuit.
type client struct {
	t      *testing.T
	c      *link.Circuit
	intake *link.Intake

	mu      sync.Mutex
	pending *onion.Pending
	layers  *onion.Circuit
	err     error
	bytes   int           // of ANSWERs
	done    int           // ANSWERs whose last part came
	refused []cell.Reason // REFUSEDs
	over    bool
	reason  cell.Reason
}

func (c *client) lock(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// stands reports whether the circuit was built and is not over.
func (c *client) stands() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.layers != nil && !c.over
}

func (c *client) Created(b []byte)        { c.lock(func() { c.layers, c.err = c.pending.Finish(b) }) }
func (c *client) Flush()                  {}
func (c *client) Credit(uint64)           {}
func (c *client) Sent(uint64)             {}
func (c *client) Destroyed(r cell.Reason) { c.lock(func() { c.over, c.reason = true, r }) }
func (c *client) Cell(b *[cell.Size]byte) {
	var x [cell.Size]byte
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.layers.Open(&x, b); err != nil {
		c.t.Error(err)
	}
	m, _ := cell.ParseMessage(x[:cell.Payload])
	switch m.Verb {
	case cell.Answer:
		c.bytes += len(m.Body) - 1
		c.done += 1 - int(m.Body[0])
	case cell.Refused:
		c.refused = append(c.refused, cell.Reason(m.Body[0]))
	}
	if c.intake != nil {
		c.intake.Arrived(c.c)
	}
}

// dial returns a link to b that runs.
func (b *bench) dial(t *testing.T) *link.Link {
	t.Helper()
	conn, err := b.net.Dial(t.Context(), b.addr)
	if err != nil {
		t.Fatal(err)
	}
	l, err := link.Dial(t.Context(), conn, b.ID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { l.Run(context.Background(), nil); close(done) }()
	t.Cleanup(func() { l.Close(); <-done })
	return l
}

// open sends CREATE for a circuit through all hops and waits a second.
func open(t *testing.T, l *link.Link, hops ...*bench) *client {
	t.Helper()
	c := knock(t, l, hops...)
	time.Sleep(time.Second)
	synctest.Wait()
	return c
}

func knock(t *testing.T, l *link.Link, hops ...*bench) *client {
	t.Helper()
	var way []onion.Hop
	for _, h := range hops {
		way = append(way, onion.Hop{ID: h.ID(), Key: h.key.Public(), Suite: h.cfg.Suite})
	}
	create, pending, err := onion.Wrap(way, onion.Step(time.Now()), nil)
	if err != nil {
		t.Fatal(err)
	}
	return send(t, l, create, pending)
}

func send(t *testing.T, l *link.Link, create []byte, pending *onion.Pending) *client {
	t.Helper()
	c := &client{t: t, pending: pending, intake: link.NewIntake(nil), c: l.NewCircuit(nil)}
	if err := c.c.Open(c, create); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends a message.
func (c *client) ask(stream uint32, v cell.Verb, body ...byte) {
	f := cell.NewFrame()
	cell.Message{Stream: stream, Verb: v, Body: body}.Put(f.Body()[:])
	c.layers.Seal(f.Body())
	c.c.Send(f)
}

func (c *client) echo(stream uint32, n int) {
	c.ask(stream, cell.Request, cell.RequestEcho, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// inMemory runs f in virtual time.
func inMemory(t *testing.T, f func(t *testing.T, n *linktest.Net)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, linktest.NewNet(linktest.Shape{Delay: time.Millisecond})) })
}

// knows has a hop pass circuits on to others.
func knows(others ...*bench) func(*Config) {
	return func(c *Config) {
		c.Next = func(id onion.ID) (netip.AddrPort, bool) {
			for _, o := range others {
				if o.ID() == id {
					return o.addr, true
				}
			}
			return netip.AddrPort{}, false
		}
	}
}

func TestAHopAnswersForThoseBehindThatItCannotReach(t *testing.T) {
	inMemory(t, func(t *testing.T, n *linktest.Net) {
		last := serve(t, n, nil)
		gone := &bench{Server: serve(t, n, nil).Server, key: last.key, addr: netip.MustParseAddrPort("10.9.9.9:1")}
		stranger := serve(t, n, nil)
		full := serve(t, n, func(c *Config) { c.MaxCircuits = -1 })
		b := serve(t, n, knows(last, gone, full))
		l := b.dial(t)
		for name, c := range map[string]struct {
			behind []*bench
			hop    int
			want   cell.Reason
		}{
			"a hop that no directory lists": {[]*bench{stranger, last}, 0, cell.UnknownHop},
			"a hop where nobody listens":    {[]*bench{gone, last}, 0, cell.Unreachable},
			"a hop that has no room":        {[]*bench{full, last}, 0, cell.Unreachable},
			"a hop that passes nothing on":  {[]*bench{last, full}, 1, cell.UnknownHop},
			"the hop itself":                {[]*bench{last, b, last}, 1, cell.UnknownHop},
		} {
			o := open(t, l, append([]*bench{b}, c.behind...)...)
			var failed *onion.HopError
			o.mu.Lock()
			if !errors.As(o.err, &failed) || failed.Hop != c.hop || failed.Reason != c.want {
				t.Errorf("%s: %v, want hop %d: %v", name, o.err, c.hop, c.want)
			}
			if !o.over {
				t.Errorf("%s: the circuit stands", name)
			}
			o.mu.Unlock()
		}
		if n := b.Counters.Circuits.Load(); n != 0 {
			t.Errorf("%d circuits are counted, want 0", n)
		}
		if n := b.budget.Used(); n != 0 {
			t.Errorf("%d cells are promised, want 0", n)
		}
	})
}

func TestCreatesThatCannotBeServedAreRefused(t *testing.T) {
	inMemory(t, func(t *testing.T, n *linktest.Net) {
		b := serve(t, n, nil)
		l := b.dial(t)
		way := []onion.Hop{{ID: b.ID(), Key: b.key.Public()}}
		step := onion.Step(time.Now())
		create, pending, _ := onion.Wrap(way, step, nil)
		ok := send(t, l, bytes.Clone(create), pending)
		time.Sleep(time.Second)
		old, pendingOld, _ := onion.Wrap(way, step-3, nil)
		changed, pendingChanged, _ := onion.Wrap(way, step, nil)
		changed[2000] ^= 1
		for name, c := range map[string]struct {
			create  []byte
			pending *onion.Pending
			want    cell.Reason
		}{
			"seen before": {create, pending, cell.Replayed},
			"too old":     {old, pendingOld, cell.Replayed},
			"changed":     {changed, pendingChanged, cell.Protocol},
		} {
			o := send(t, l, c.create, c.pending)
			time.Sleep(time.Second)
			o.mu.Lock()
			if !o.over || o.reason != c.want || o.layers != nil {
				t.Errorf("a CREATE that is %s: over %v, %v, want %v", name, o.over, o.reason, c.want)
			}
			o.mu.Unlock()
		}
		if !ok.stands() {
			t.Error("the first one suffers from the others")
		}
		if got := b.Counters.Refused.Load(); got != 3 {
			t.Errorf("%d refused, want 3", got)
		}
	})
}

func TestACreateThatWaitedTooLongIsRefused(t *testing.T) {
	inMemory(t, func(t *testing.T, n *linktest.Net) {
		b := serve(t, n, func(c *Config) {
			key := c.Key
			c.Key = func(i byte) *onion.PrivateKey {
				time.Sleep(time.Second) // a slow processor
				return key(i)
			}
		})
		l := b.dial(t)
		var all []*client
		for range 20 {
			all = append(all, knock(t, l, b))
		}
		time.Sleep(time.Minute)
		stood, busy := 0, 0
		for _, c := range all {
			c.mu.Lock()
			if c.layers != nil {
				stood++
			} else if c.over && c.reason == cell.Busy {
				busy++
			}
			c.mu.Unlock()
		}
		if stood == 0 || busy == 0 || stood+busy != 20 {
			t.Errorf("%d stood, %d were refused as busy", stood, busy)
		}
	})
}

// One neighbour that floods gets what its bucket holds; another is served at
// once.
func TestAFloodOfCreatesLeavesOthersTheirTurn(t *testing.T) {
	inMemory(t, func(t *testing.T, n *linktest.Net) {
		b := serve(t, n, func(c *Config) {
			key := c.Key
			c.Key = func(i byte) *onion.PrivateKey {
				time.Sleep(time.Millisecond)
				return key(i)
			}
		})
		flood := b.dial(t)
		junk := make([]byte, cell.CreateSize)
		var all []*client
		for range 3000 {
			all = append(all, send(t, flood, junk, nil))
		}
		for range 20 {
			o := open(t, b.dial(t), b)
			o.mu.Lock()
			if o.layers == nil {
				t.Errorf("a circuit was refused: %v", o.reason)
			}
			o.mu.Unlock()
		}
		busy := 0
		for _, c := range all {
			c.mu.Lock()
			if c.reason == cell.Busy {
				busy++
			}
			c.mu.Unlock()
		}
		if busy < 1000 {
			t.Errorf("%d of 3000 were refused as busy", busy)
		}
	})
}

func TestAClientThatGivesUpEndsWhatIsExtended(t *testing.T) {
	inMemory(t, func(t *testing.T, n *linktest.Net) {
		ln, addr := n.Listen() // a relay that takes links and says nothing
		_, identity, _ := ed25519.GenerateKey(rand.Reader)
		cert, _ := link.Certificate(identity)
		key, _ := onion.GenerateKey(1)
		silent := &bench{Server: &Server{id: onion.ID(identity.Public().(ed25519.PublicKey))}, key: key, addr: addr}
		heard := make(chan *client, 1)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer ln.Close()
		wg.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					if l, err := link.Accept(context.Background(), conn, cert, time.Now(), nil); err == nil {
						l.Run(t.Context(), func(c *link.Circuit, _ []byte) {
							o := &client{t: t}
							c.Handle(o)
							heard <- o
						})
					}
				})
			}
		})
		last := serve(t, n, nil)
		b := serve(t, n, knows(silent))
		l := b.dial(t)
		c := knock(t, l, b, silent, last)
		there := <-heard
		if b.Counters.Circuits.Load() != 1 {
			t.Error("no circuit is under way")
		}
		c.c.Destroy(cell.Done)
		time.Sleep(time.Second)
		synctest.Wait()
		there.mu.Lock()
		if !there.over || there.reason != cell.OK {
			t.Errorf("the next hop heard: over %v, %v", there.over, there.reason)
		}
		there.mu.Unlock()
		if n := b.Counters.Circuits.Load(); n != 0 || b.budget.Used() != 0 {
			t.Errorf("%d circuits, %d cells are left", n, b.budget.Used())
		}
		late := knock(t, l, b, silent, last) // and one whose client waits
		<-heard
		time.Sleep(extendTimeout + time.Second)
		late.mu.Lock()
		var failed *onion.HopError
		if !errors.As(late.err, &failed) || failed.Reason != cell.Unreachable {
			t.Errorf("after %v: %v", extendTimeout, late.err)
		}
		late.mu.Unlock()
	})
}

func TestCircuitsWithoutMemoryAreRefused(t *testing.T) {
	inMemory(t, func(t *testing.T, n *linktest.Net) {
		last := serve(t, n, nil)
		b := serve(t, n, func(c *Config) {
			knows(last)(c)
			c.Memory = 5 * 2 * link.Floor * cell.FrameSize
		})
		l := b.dial(t)
		var all []*client
		for range 7 {
			all = append(all, open(t, l, b, last))
		}
		for i, c := range all {
			c.mu.Lock()
			if stood := c.layers != nil; stood != (i < 5) {
				t.Errorf("circuit %d: %v", i, c.err)
			}
			c.mu.Unlock()
		}
		all[0].c.Destroy(cell.Done)
		time.Sleep(time.Second)
		if !open(t, l, b, last).stands() {
			t.Error("refused with room again")
		}
	})
}

func TestRequestsAreBoundedWhoeverAsks(t *testing.T) {
	inMemory(t, func(t *testing.T, n *linktest.Net) {
		release := make(chan struct{})
		b := serve(t, n, func(c *Config) {
			c.Requests[cell.RequestViews] = func(*Circuit, []byte) ([]byte, error) {
				<-release
				return nil, io.EOF
			}
		})
		l := b.dial(t)
		c := open(t, l, b)
		for i := range uint32(maxRequests + 2) {
			c.ask(1+2*i, cell.Request, cell.RequestViews)
		}
		time.Sleep(time.Second)
		c.mu.Lock()
		if len(c.refused) != 2 || c.refused[0] != cell.Busy {
			t.Errorf("refused: %v, want busy twice", c.refused)
		}
		c.mu.Unlock()
		close(release)
		time.Sleep(time.Second)
		c.mu.Lock()
		if len(c.refused) != maxRequests+2 || c.refused[5] != cell.BadRequest {
			t.Errorf("refused: %v", c.refused)
		}
		c.mu.Unlock()
		for i, body := range [][]byte{nil, {99}} { // nothing, and a kind that nobody serves
			c.ask(uint32(101+2*i), cell.Request, body...)
		}
		time.Sleep(time.Second)
		c.mu.Lock()
		if n := len(c.refused); n != maxRequests+4 {
			t.Errorf("refused: %v", c.refused)
		}
		c.mu.Unlock()
		c.echo(201, 100_000)
		time.Sleep(time.Second)
		c.lock(func() {
			if c.bytes != 100_000 || c.done != 1 {
				t.Errorf("an answer of %d bytes, %d", c.bytes, c.done)
			}
		})
	})
}

// Replies that their clients don't fetch take a bounded part of memory, and
// give it back with their circuits.
func TestRepliesThatNobodyFetchesAreBounded(t *testing.T) {
	inMemory(t, func(t *testing.T, n *linktest.Net) {
		big := make([]byte, 32<<20)
		b := serve(t, n, func(c *Config) {
			c.Requests[cell.RequestViews] = func(*Circuit, []byte) ([]byte, error) { return big, nil }
		})
		l := b.dial(t)
		var all []*client
		for range 5 {
			c := open(t, l, b)
			c.lock(func() { c.intake = nil })
			for i := range uint32(maxRequests) {
				c.ask(1+2*i, cell.Request, cell.RequestViews)
			}
			time.Sleep(time.Second)
			all = append(all, c)
		}
		if held := b.answers.Load(); held > maxAnswers {
			t.Errorf("%d bytes wait, at most %d", held, maxAnswers)
		}
		last := all[4]
		last.mu.Lock()
		if len(last.refused) == 0 || last.refused[0] != cell.Busy {
			t.Errorf("refused: %v, want busy", last.refused)
		}
		last.mu.Unlock()
		for _, c := range all {
			c.c.Destroy(cell.Done)
		}
		time.Sleep(time.Second)
		if held := b.answers.Load(); held != 0 {
			t.Errorf("%d bytes are held for circuits that are over", held)
		}
	})
}

func TestMessagesOtherThanRequestsEndACircuitWhereNoneAreServed(t *testing.T) {
	inMemory(t, func(t *testing.T, n *linktest.Net) {
		b := serve(t, n, nil)
		l := b.dial(t)
		for _, v := range []cell.Verb{cell.Open, cell.Record, cell.Register, cell.Answer} {
			c := open(t, l, b)
			c.ask(1, v, 1)
			time.Sleep(time.Second)
			c.mu.Lock()
			if !c.over {
				t.Errorf("verb %d: the circuit stands", v)
			}
			c.mu.Unlock()
		}
		early, pending, _ := onion.Wrap([]onion.Hop{{ID: b.ID(), Key: b.key.Public()}}, onion.Step(time.Now()), []byte("no message"))
		c := send(t, l, early, pending)
		time.Sleep(time.Second)
		if c.stands() {
			t.Error("an early box that holds no message: the circuit stands")
		}
	})
}

func TestValuesLiveWithTheirCircuit(t *testing.T) {
	c := new(Circuit)
	made := 0
	for range 3 {
		if got := c.Value(func() any { made++; return made }); got != 1 {
			t.Errorf("value %v", got)
		}
	}
}

// Whatever strangers do at the door, those inside go on and others come in.
func TestStrangersAtTheDoorDisturbNobody(t *testing.T) {
	inMemory(t, func(t *testing.T, n *linktest.Net) {
		b := serve(t, n, nil)
		inside := open(t, b.dial(t), b)
		var conns []net.Conn
		for i := range maxShakingFrom + 20 {
			conn, err := n.Dial(t.Context(), b.addr)
			if err != nil {
				t.Fatal(err)
			}
			switch i % 3 {
			case 0:
				conn.Write(bytes.Repeat([]byte("garbage"), 10))
			case 1:
				conn.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}) // half a ClientHello
			}
			conns = append(conns, conn)
		}
		time.Sleep(time.Second)
		inside.echo(1, 5000)
		time.Sleep(time.Second)
		inside.lock(func() {
			if inside.bytes != 5000 {
				t.Error("whoever is inside is not answered")
			}
		})
		time.Sleep(linkTimeout)
		for i, c := range conns { // all are shut out by now
			c.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("stranger %d: %v", i, err)
			}
		}
		if !open(t, b.dial(t), b).stands() {
			t.Error("a newcomer is not served")
		}
	})
}

func TestNewWantsWhatItNeeds(t *testing.T) {
	_, identity, _ := ed25519.GenerateKey(rand.Reader)
	if _, err := New(Config{Identity: identity}); err == nil {
		t.Error("a server without keys")
	}
}
