package stream

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/window"
)

func TestBehavesAsANetConn(t *testing.T) {
	for _, s := range []shape{{}, {slots: 1}} {
		t.Run(fmt.Sprintf("room for %d", s.slots), func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				p := newPair(t, s, nil)
				return p.a, p.b, p.stop, nil
			})
		})
	}
}

func TestMovesManyBytesBothWaysUnchanged(t *testing.T) {
	const size = 64 << 20
	p := newPair(t, shape{}, window.NewBudget(256<<20))
	var g sync.WaitGroup
	send := func(c *Conn, seed uint64) (sum [32]byte) {
		h := sha256.New()
		src := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), size), h)
		if _, err := io.CopyBuffer(struct{ io.Writer }{c}, src, make([]byte, 50_001)); err != nil {
			t.Error(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
		return [32]byte(h.Sum(nil))
	}
	var sent, got [2][32]byte
	for i, c := range []*Conn{p.a, p.b} {
		g.Go(func() { sent[i] = send(c, uint64(i)) })
		g.Go(func() {
			h := sha256.New()
			n, err := io.Copy(h, c)
			if n != size || err != nil {
				t.Errorf("end %d read %d bytes and %v, want %d", i, n, err, size)
			}
			got[1-i] = [32]byte(h.Sum(nil))
		})
	}
	g.Wait()
	if got != sent {
		t.Errorf("hashes %x, want %x", got, sent)
	}
	for _, c := range []*Conn{p.a, p.b} {
		<-c.Done()
	}
	waitFor(t, "both circuits to hear that the stream is done", func() bool {
		return slices.Equal(p.ab.reasons(), []cell.Reason{cell.Done}) && slices.Equal(p.ba.reasons(), []cell.Reason{cell.Done})
	})
	if n := p.ab.control + p.ba.control; n > (p.ab.data+p.ba.data)/8 {
		t.Errorf("%d control records for %d with data", n, p.ab.data+p.ba.data)
	}
}

// waitFor waits for what another goroutine is about to do.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// bubble runs f in a synctest bubble with a pair in it.
func bubble(t *testing.T, s shape, b *window.Budget, f func(t *testing.T, p *pair)) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, s, b)
		synctest.Wait()
		f(t, p)
	})
}

func TestConfirmsTheOpenerByItsFirstRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, shape{delay: time.Second}, nil)
		if !isClosed(p.a.Confirmed()) {
			t.Error("the opener doesn't know the responder by its handshake")
		}
		time.Sleep(time.Second - 1)
		synctest.Wait()
		if isClosed(p.b.Confirmed()) {
			t.Error("the responder is sure before a record came")
		}
		time.Sleep(1)
		synctest.Wait()
		if !isClosed(p.b.Confirmed()) {
			t.Error("the responder is not sure after the opener's first record")
		}
	})
}

func TestConfirmsNobodyByABadRecord(t *testing.T) {
	_, kb := keyPair(t)
	b, err := New(kb, newWire(shape{}), nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Receive(make([]byte, ControlSize), freed(func() {})); !errors.Is(err, ErrReset) {
		t.Errorf("Receive of zeros: %v, want a reset", err)
	}
	if isClosed(b.Confirmed()) {
		t.Error("zeros confirm the opener")
	}
	<-b.Done()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestHalfCloseLeavesTheOtherDirectionOpen(t *testing.T) {
	bubble(t, shape{delay: time.Millisecond}, nil, func(t *testing.T, p *pair) {
		write(t, p.a, "question")
		if err := p.a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := p.a.CloseWrite(); err != nil {
			t.Errorf("second CloseWrite: %v", err)
		}
		if _, err := p.a.Write([]byte("more")); err != net.ErrClosed {
			t.Errorf("Write after CloseWrite: %v, want %v", err, net.ErrClosed)
		}
		if got, err := io.ReadAll(p.b); string(got) != "question" || err != nil {
			t.Errorf("read %q and %v", got, err)
		}
		write(t, p.b, "answer")
		p.b.Close()
		if got, err := io.ReadAll(p.a); string(got) != "answer" || err != nil {
			t.Errorf("read %q and %v", got, err)
		}
		synctest.Wait()
		wantReasons(t, p, cell.Done)
	})
}

func wantReasons(t *testing.T, p *pair, want cell.Reason) {
	t.Helper()
	for _, w := range []*wire{p.ab, p.ba} {
		if got := w.reasons(); !slices.Equal(got, []cell.Reason{want}) {
			t.Errorf("the circuit was told %v, want once %v", got, want)
		}
	}
}

func write(t *testing.T, c *Conn, s string) {
	t.Helper()
	if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
}

func TestCloseLosesNothingThatWriteTook(t *testing.T) {
	bubble(t, shape{delay: 50 * time.Millisecond, slots: 4}, nil, func(t *testing.T, p *pair) {
		want := bytes.Repeat([]byte("0123456789"), 40_000)
		go func() {
			if _, err := p.a.Write(want); err != nil {
				t.Error(err)
			}
			p.a.Close()
		}()
		got, err := io.ReadAll(p.b)
		if !bytes.Equal(got, want) || err != nil {
			t.Errorf("read %d bytes and %v, want %d", len(got), err, len(want))
		}
	})
}

func TestCloseEndsABlockedWriteAndKeepsWhatItTook(t *testing.T) {
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		var n int
		var err error
		go func() { n, err = p.a.Write(make([]byte, 1<<20)) }()
		synctest.Wait() // the window is full: nobody reads
		p.a.Close()
		synctest.Wait()
		if n != windowOpening || err != net.ErrClosed {
			t.Errorf("Write = %d, %v, want the whole window and %v", n, err, net.ErrClosed)
		}
		if got, err := io.ReadAll(p.b); len(got) != n || err != nil {
			t.Errorf("the far side read %d bytes and %v, want %d", len(got), err, n)
		}
	})
}

func TestCloseOfBothAtOnceIsDone(t *testing.T) {
	bubble(t, shape{delay: time.Second}, nil, func(t *testing.T, p *pair) {
		write(t, p.a, "a")
		p.a.Read(nil)
		p.a.CloseWrite()
		p.b.CloseWrite()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantReasons(t, p, cell.Done)
		if got, err := io.ReadAll(p.b); string(got) != "a" || err != nil {
			t.Errorf("after the end, read %q and %v, want what had arrived", got, err)
		}
		if _, err := p.b.Write([]byte("b")); err != net.ErrClosed {
			t.Errorf("Write = %v", err)
		}
	})
	bubble(t, shape{delay: time.Second}, nil, func(t *testing.T, p *pair) {
		p.a.Close()
		p.b.Close()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantReasons(t, p, cell.Done)
		if err := p.a.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

func TestCloseWithUnreadDataResets(t *testing.T) {
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		write(t, p.b, "sent before")
		write(t, p.a, "never read")
		synctest.Wait()
		p.b.Close()
		synctest.Wait()
		if got, err := io.ReadAll(p.a); string(got) != "sent before" || !errors.Is(err, ErrReset) {
			t.Errorf("read %q and %v, want what was sent and a reset", got, err)
		}
		if _, err := p.a.Write([]byte("x")); !errors.Is(err, ErrReset) {
			t.Errorf("Write: %v, want a reset", err)
		}
		wantReasons(t, p, cell.Gone)
	})
}

func TestDataAfterCloseResets(t *testing.T) {
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		p.b.Close()
		synctest.Wait()
		if got, err := io.ReadAll(p.a); len(got) > 0 || err != nil {
			t.Errorf("read %q and %v, want the end", got, err)
		}
		write(t, p.a, "nobody there")
		synctest.Wait()
		if _, err := p.a.Write([]byte("x")); !errors.Is(err, ErrReset) {
			t.Errorf("Write: %v, want a reset", err)
		}
		wantReasons(t, p, cell.Gone)
	})
}

func TestLingersAMinuteForTheFarSide(t *testing.T) {
	b := window.NewBudget(1 << 20)
	bubble(t, shape{}, b, func(t *testing.T, p *pair) {
		p.a.Close()
		synctest.Wait() // the far side has heard of it
		if got := b.Used(); got != 0 {
			t.Errorf("%d bytes of budget in use after one Close, want none: no data can come any more", got)
		}
		time.Sleep(linger - 1)
		synctest.Wait()
		if got := p.ab.reasons(); len(got) > 0 {
			t.Errorf("the circuit was told %v too early", got)
		}
		time.Sleep(1)
		synctest.Wait()
		if got := p.ab.reasons(); !slices.Equal(got, []cell.Reason{cell.Done}) {
			t.Errorf("the circuit was told %v", got)
		}
		if got, err := io.ReadAll(p.b); len(got) > 0 || err != nil {
			t.Errorf("read %q and %v, want the end", got, err)
		}
		if _, err := p.b.Write([]byte("x")); err != errClosedByPeer {
			t.Errorf("Write: %v, want %v", err, errClosedByPeer)
		}
	})
	if got := b.Used(); got != 0 {
		t.Errorf("%d bytes of budget in use at the end", got)
	}
}

func TestReadDeadlineEndsAWaitingRead(t *testing.T) {
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		start := time.Now()
		p.a.SetReadDeadline(start.Add(3 * time.Second))
		_, err := p.a.Read(make([]byte, 1))
		if err != os.ErrDeadlineExceeded || time.Since(start) != 3*time.Second {
			t.Errorf("Read: %v after %v", err, time.Since(start))
		}
		write(t, p.b, "x")
		synctest.Wait()
		if _, err := p.a.Read(make([]byte, 1)); err != os.ErrDeadlineExceeded {
			t.Errorf("Read with data there: %v, want the deadline first", err)
		}
		p.a.SetReadDeadline(time.Time{})
		if _, err := p.a.Read(make([]byte, 1)); err != nil {
			t.Errorf("Read: %v", err)
		}
	})
}

func TestDeadlineCanBeMovedWhileARead(t *testing.T) {
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		start := time.Now()
		p.a.SetReadDeadline(start.Add(time.Second))
		go func() {
			time.Sleep(500 * time.Millisecond)
			p.a.SetReadDeadline(start.Add(2 * time.Second))
		}()
		if _, err := p.a.Read(make([]byte, 1)); err != os.ErrDeadlineExceeded || time.Since(start) != 2*time.Second {
			t.Errorf("Read: %v after %v", err, time.Since(start))
		}
	})
}

func TestWriteDeadlineEndsAWriteThatWaitsForTheWindow(t *testing.T) {
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		start := time.Now()
		p.a.SetWriteDeadline(start.Add(time.Second))
		n, err := p.a.Write(make([]byte, 1<<20))
		if n != windowOpening || err != os.ErrDeadlineExceeded || time.Since(start) != time.Second {
			t.Errorf("Write = %d, %v after %v", n, err, time.Since(start))
		}
		if _, err := p.a.Write([]byte("x")); err != os.ErrDeadlineExceeded {
			t.Errorf("Write: %v", err)
		}
		p.a.SetWriteDeadline(time.Time{})
		go p.a.Write([]byte("x"))
		if got, err := io.ReadFull(p.b, make([]byte, windowOpening+1)); err != nil {
			t.Errorf("read %d and %v", got, err)
		}
	})
}

func TestWriteDeadlineEndsAWriteThatWaitsForTheCircuit(t *testing.T) {
	bubble(t, shape{slots: 2}, nil, func(t *testing.T, p *pair) {
		for range cap(p.ab.slots) {
			p.ab.slots <- struct{}{} // the circuit has no room
		}
		start := time.Now()
		p.a.SetWriteDeadline(start.Add(time.Second))
		n, err := p.a.Write(make([]byte, 100))
		if n != 0 || err != os.ErrDeadlineExceeded || time.Since(start) != time.Second {
			t.Errorf("Write = %d, %v after %v", n, err, time.Since(start))
		}
		p.a.SetWriteDeadline(time.Time{})
		var g sync.WaitGroup
		g.Go(func() { write(t, p.a, "later") })
		synctest.Wait()
		for range cap(p.ab.slots) {
			<-p.ab.slots
		}
		g.Wait()
		b := make([]byte, 10)
		if n, err := p.b.Read(b); string(b[:n]) != "later" || err != nil {
			t.Errorf("read %q, %v", b[:n], err)
		}
	})
}

func TestCloseWriteEndsAWriteThatWaitsForTheCircuit(t *testing.T) {
	bubble(t, shape{slots: 1}, nil, func(t *testing.T, p *pair) {
		p.ab.slots <- struct{}{}
		var err error
		go func() { _, err = p.a.Write([]byte("x")) }()
		synctest.Wait()
		p.a.CloseWrite()
		synctest.Wait()
		if err != net.ErrClosed {
			t.Errorf("Write: %v", err)
		}
		if got, err := io.ReadAll(p.b); len(got) > 0 || err != nil {
			t.Errorf("read %q and %v", got, err)
		}
		<-p.ab.slots
	})
}

func TestReadersShareWhatArrives(t *testing.T) {
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		var g sync.WaitGroup
		for range 4 {
			g.Go(func() {
				if _, err := io.ReadFull(p.b, make([]byte, 5)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all wait
		write(t, p.a, "20 bytes in one go..")
		g.Wait()
	})
}

func TestReadFromReportsWhatBroke(t *testing.T) {
	broken := errors.New("broken")
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		src := io.MultiReader(bytes.NewReader(make([]byte, 1000)), readerFunc(func([]byte) (int, error) { return 0, broken }))
		if n, err := p.a.ReadFrom(src); n != 1000 || err != broken {
			t.Errorf("ReadFrom = %d, %v", n, err)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestFailUnblocksEveryone(t *testing.T) {
	died := errors.New("circuit died")
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		write(t, p.b, "before")
		synctest.Wait()
		var g sync.WaitGroup
		for range 3 {
			g.Go(func() {
				if _, err := p.a.Write(make([]byte, 1<<20)); err != died {
					t.Errorf("Write: %v, want %v", err, died)
				}
			})
		}
		synctest.Wait()
		p.a.Fail(died)
		g.Wait()
		if got, err := io.ReadAll(p.a); string(got) != "before" || err != died {
			t.Errorf("read %q and %v", got, err)
		}
		p.a.Fail(errors.New("again"))
		p.a.Close()
		synctest.Wait()
		if got := p.ab.reasons(); len(got) > 0 {
			t.Errorf("the circuit that died was told %v", got)
		}
	})
}

func TestABrokenCircuitEndsTheStream(t *testing.T) {
	died := errors.New("circuit died")
	for name, act := range map[string]func(c *Conn) error{
		"while data is sent":   func(c *Conn) error { _, err := c.Write([]byte("x")); return err },
		"while FIN is sent":    func(c *Conn) error { return c.CloseWrite() },
		"while r is copied":    func(c *Conn) error { _, err := c.ReadFrom(rand.NewChaCha8([32]byte{})); return err },
		"while WINDOW is sent": func(c *Conn) error { c.tellWindow(); return died },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
				p.ab.set(func() { p.ab.broken = died })
				if err := act(p.a); err != died {
					t.Errorf("%v, want %v", err, died)
				}
				if _, err := p.a.Read(make([]byte, 1)); err != died {
					t.Errorf("Read: %v, want %v", err, died)
				}
				synctest.Wait()
				if got := p.ab.reasons(); !slices.Equal(got, []cell.Reason{cell.Gone}) {
					t.Errorf("the circuit was told %v", got)
				}
			})
		})
	}
}

func TestASlowReaderHoldsUpNobodyElse(t *testing.T) {
	bubble(t, shape{}, nil, func(t *testing.T, slow *pair) {
		// The other stream's records go over the same wires, behind slow's.
		ka, kb := keyPair(t)
		ab, ba := &shared{wire: slow.ab}, &shared{wire: slow.ba}
		b, err := New(kb, ba, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		ab.to = b
		slow.ba.mu.Lock() // b answers a's first record
		a, err := New(ka, ab, nil, nil, nil)
		ba.to = a
		slow.ba.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		go slow.a.Write(make([]byte, 1<<20))
		synctest.Wait() // nobody reads slow.b
		go a.Write(make([]byte, 1<<20))
		if n, err := io.ReadFull(b, make([]byte, 1<<20)); err != nil {
			t.Errorf("read %d bytes and %v beside a stream that nobody reads", n, err)
		}
		a.Fail(nil)
		b.Fail(nil)
	})
}

// shared is a second stream on the circuit of a wire.
type shared struct {
	wire *wire
	to   *Conn
}

func (s *shared) Flush() {}

func (s *shared) Data(seal func([]byte) []byte, cancel <-chan struct{}) error {
	select {
	case s.wire.slots <- struct{}{}:
	case <-cancel:
		return ErrCancelled
	}
	return s.Control(seal)
}

func (s *shared) Go(f func()) { go f() }

func (s *shared) Control(seal func([]byte) []byte) error {
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	f := testFrames.Get().(*testFrame)
	s.wire.items <- item{f: f, n: len(seal(f.buf[:0])), to: s.to}
	return nil
}

func (s *shared) Close(cell.Reason) {}

func TestOverrunningTheWindowResets(t *testing.T) {
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		synctest.Wait() // both have heard of the opening window
		p.a.mu.Lock()
		p.a.allowed = windowOpening + 1 // a far side that breaks the rules
		p.a.mu.Unlock()
		if _, err := p.a.Write(make([]byte, windowOpening)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if isClosed(p.b.Done()) {
			t.Fatal("reset by a full window")
		}
		p.a.Write([]byte("x"))
		synctest.Wait()
		if _, err := p.b.Write([]byte("x")); !errors.Is(err, ErrReset) {
			t.Errorf("Write: %v, want a reset", err)
		}
		if got, err := io.ReadAll(p.b); len(got) != windowOpening || !errors.Is(err, ErrReset) {
			t.Errorf("read %d bytes and %v, want the window and a reset", len(got), err)
		}
		if got := p.ba.reasons(); !slices.Equal(got, []cell.Reason{cell.Overrun}) {
			t.Errorf("the circuit was told %v", got)
		}
		if _, err := p.a.Read(make([]byte, 1)); !errors.Is(err, ErrReset) {
			t.Errorf("far side's Read: %v, want a reset", err)
		}
	})
}

func TestWhatAPathDoesToARecordResets(t *testing.T) {
	for name, alter := range map[string]func([]byte){
		"type":  func(r []byte) { r[0] ^= 1 },
		"data":  func(r []byte) { r[100] ^= 1 },
		"tag":   func(r []byte) { r[len(r)-1] ^= 1 },
		"zeros": func(r []byte) { clear(r) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
				write(t, p.a, "good")
				p.ab.set(func() { p.ab.alter = alter })
				write(t, p.a, "bad")
				synctest.Wait()
				if got, err := io.ReadAll(p.b); string(got) != "good" || !errors.Is(err, ErrReset) {
					t.Errorf("read %q and %v, want what was good and a reset", got, err)
				}
				if got := p.ba.reasons(); !slices.Equal(got, []cell.Reason{cell.Protocol}) {
					t.Errorf("the circuit was told %v", got)
				}
			})
		})
	}
}

func TestADroppedOrRepeatedRecordResets(t *testing.T) {
	for _, name := range []string{"dropped", "repeated", "swapped"} {
		t.Run(name, func(t *testing.T) {
			ka, kb := keyPair(t)
			out := newDirection(ka.seal)
			b, err := New(kb, newWire(shape{}), nil, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			var records [3][]byte
			for i := range records {
				all, plain := grow(nil, DataSize)
				putData(plain, typeData, []byte{byte(i)})
				out.seal(plain)
				records[i] = all
			}
			order := map[string][]int{"dropped": {0, 2}, "repeated": {0, 0}, "swapped": {1}}[name]
			for i, k := range order {
				err := b.Receive(slices.Clone(records[k]), freed(func() {}))
				if last := i == len(order)-1; errors.Is(err, ErrReset) != last {
					t.Errorf("record %d: %v", i, err)
				}
			}
			<-b.Done()
		})
	}
}

func TestRecordsThatBreakTheRulesReset(t *testing.T) {
	control := func(kind byte, offset uint64) []byte {
		_, plain := grow(nil, ControlSize)
		putControl(plain, kind, offset)
		return plain
	}
	data := func(n int) []byte {
		_, plain := grow(nil, DataSize)
		putData(plain, typeData, make([]byte, n))
		return plain
	}
	edit := func(plain []byte, at int, to byte) []byte {
		plain[at] = to
		return plain
	}
	for name, plains := range map[string][][]byte{
		"DATA without data":            {data(0)},
		"DATA longer than it is":       {edit(data(1), 1, 255)},
		"DATA with an unclean rest":    {edit(data(1), DataSize-cell.TagSize-1, 1)},
		"DATA behind FIN":              {control(typeFin, 0), data(1)},
		"FIN twice":                    {control(typeFin, 0), control(typeFin, 0)},
		"FIN at the wrong place":       {control(typeFin, 1)},
		"WINDOW that shrinks":          {control(typeWindow, windowFloor-1)},
		"WINDOW with an unclean rest":  {edit(control(typeWindow, windowFloor), 15, 1)},
		"RESET":                        {control(typeReset, 0)},
		"RESET with an offset":         {control(typeReset, 1)},
		"RESUME, kept for later":       {control(5, 0)},
		"type 0":                       {control(0, 0)},
		"DATA in a small record":       {control(typeData, 0)},
		"FIN in a large record":        {edit(data(1), 0, typeFin)},
		"more data than the window is": slices.Repeat([][]byte{data(MaxData)}, windowOpening/MaxData+1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ka, kb := keyPair(t)
				out := newDirection(ka.seal)
				w := newWire(shape{})
				b, err := New(kb, w, nil, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				kept := 0
				for i, plain := range plains {
					out.seal(plain)
					kept++
					err := b.Receive(plain[:len(plain)+cell.TagSize], freed(func() { kept-- }))
					if last := i == len(plains)-1; errors.Is(err, ErrReset) != last {
						t.Errorf("record %d: %v", i, err)
					}
				}
				synctest.Wait()
				if len(w.reasons()) != 1 {
					t.Errorf("the circuit was told %v", w.reasons())
				}
				if err := b.Receive(make([]byte, DataSize), freed(func() {})); !errors.Is(err, ErrReset) {
					t.Errorf("Receive after the reset: %v", err)
				}
				b.Close()
				if kept != 0 {
					t.Errorf("%d records never given back", kept)
				}
			})
		})
	}
}

func TestManySmallRecordsCostNoMoreThanTheWindow(t *testing.T) {
	ka, kb := keyPair(t)
	out := newDirection(ka.seal)
	b, err := New(kb, newWire(shape{}), nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	kept, most := 0, 0
	var want []byte
	for i := 0; len(want) < windowFloor; i++ {
		n := min([]int{1, MaxData, 2, 2500, 1700}[i%5], windowFloor-len(want))
		data := bytes.Repeat([]byte{byte(i)}, n)
		want = append(want, data...)
		all, plain := grow(nil, DataSize)
		putData(plain, typeData, data)
		out.seal(plain)
		kept++
		if err := b.Receive(all, freed(func() { kept-- })); err != nil {
			t.Fatal(err)
		}
		most = max(most, kept)
	}
	if limit := 2*windowFloor/MaxData + 2; most > limit {
		t.Errorf("%d records held for a window of %d bytes, want at most %d", most, windowFloor, limit)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(b, got); !bytes.Equal(got, want) || err != nil {
		t.Errorf("read something else, and %v", err)
	}
	if kept != 0 {
		t.Errorf("%d records never given back", kept)
	}
	b.Fail(nil)
}

func TestKeysChangeOnTheWay(t *testing.T) {
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		p.a.sealing.Lock()
		before := p.a.out.key
		p.a.out.count = rekeyAfter - 2
		p.a.sealing.Unlock()
		p.b.opening.Lock()
		p.b.in.count = rekeyAfter - 2
		p.b.opening.Unlock()
		for range 5 {
			write(t, p.a, "x")
		}
		synctest.Wait()
		b := make([]byte, 10)
		if n, err := p.b.Read(b); string(b[:n]) != "xxxxx" || err != nil {
			t.Errorf("read %q and %v", b[:n], err)
		}
		if p.a.out.key == before || p.a.out.key != p.b.in.key || p.a.out.count != 3 {
			t.Errorf("after 2^24 records: %d under a key that changed: %v", p.a.out.count, p.a.out.key != before)
		}
	})
}

func TestKeysAreForgottenAtTheEnd(t *testing.T) {
	bubble(t, shape{}, nil, func(t *testing.T, p *pair) {
		p.a.Close()
		p.b.Close()
		synctest.Wait()
		for _, c := range []*Conn{p.a, p.b} {
			if c.in.key != [32]byte{} || c.out.key != [32]byte{} {
				t.Error("a key is still there")
			}
		}
	})
}

func TestNewIsRefusedBeyondTheBudget(t *testing.T) {
	b := window.NewBudget(2 * windowFloor)
	p := newPair(t, shape{}, b)
	k, _ := keyPair(t)
	if _, err := New(k, newWire(shape{}), b, nil, nil); err != ErrBudget {
		t.Errorf("New: %v, want %v", err, ErrBudget)
	}
	p.stop()
	if got := b.Used(); got != 0 {
		t.Errorf("%d bytes still in use", got)
	}
}

func TestStreamsShareOneBudget(t *testing.T) {
	b := window.NewBudget(1 << 20)
	var g sync.WaitGroup
	for range 4 {
		p := newPair(t, shape{}, b)
		g.Go(func() {
			p.a.ReadFrom(io.LimitReader(rand.NewChaCha8([32]byte{}), 4<<20))
			p.a.CloseWrite()
		})
		g.Go(func() {
			if n, err := p.b.WriteTo(io.Discard); n != 4<<20 || err != nil {
				t.Errorf("copied %d bytes and %v", n, err)
			}
			p.b.Close()
			p.a.Close()
		})
	}
	g.Wait()
	if got := b.Used(); got != 0 {
		t.Errorf("%d bytes of budget in use at the end", got)
	}
}

func TestReadFromFillsEveryCell(t *testing.T) {
	p := newPair(t, shape{}, nil)
	const size = 100 * bufferSize
	go func() {
		if n, err := p.a.ReadFrom(io.LimitReader(rand.NewChaCha8([32]byte{}), size)); n != size || err != nil {
			t.Errorf("ReadFrom = %d, %v", n, err)
		}
		p.a.Close()
	}()
	if n, err := p.b.WriteTo(io.Discard); n != size || err != nil {
		t.Errorf("WriteTo = %d, %v", n, err)
	}
	p.ab.set(func() {
		if least := size / MaxData; p.ab.data > least+least/20 {
			t.Errorf("%d records, %d would do", p.ab.data, least)
		}
	})
}

func TestWriteToReportsWhatBroke(t *testing.T) {
	p := newPair(t, shape{}, nil)
	write(t, p.a, "hello")
	broken := errors.New("broken")
	if n, err := p.b.WriteTo(writerFunc(func(b []byte) (int, error) { return 2, broken })); n != 2 || err != broken {
		t.Errorf("WriteTo = %d, %v", n, err)
	}
	write(t, p.a, "hello")
	p.a.Fail(nil)
	p.b.Fail(broken)
	if _, err := p.b.WriteTo(io.Discard); err != broken {
		t.Errorf("WriteTo: %v, want %v", err, broken)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
