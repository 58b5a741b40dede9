package stream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

func TestGossipArrivesBesideTheData(t *testing.T) {
	p := newPair(t, shape{}, nil)
	var g sync.WaitGroup
	data := bytes.Repeat([]byte("data"), 1<<18)
	g.Go(func() {
		p.a.Write(data)
		p.a.CloseWrite()
	})
	for i := range byte(maxHeard) {
		if err := p.b.Gossip([]byte{i, 'b'}); err != nil {
			t.Fatal(err)
		}
		if err := p.a.Gossip(bytes.Repeat([]byte{i}, MaxGossip)); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if got := <-p.a.Heard(); !bytes.Equal(got, []byte{i, 'b'}) {
			t.Errorf("heard %x as number %d", got, i)
		}
	}
	got, err := io.ReadAll(p.b)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes of %d: %v", len(got), len(data), err)
	}
	g.Wait()
	if len(p.b.Heard()) == 0 {
		t.Error("the reader of the data heard nothing")
	}
}

// TestGossipHasTheSizeOfData, so that whoever carries it sees just that.
func TestGossipHasTheSizeOfData(t *testing.T) {
	_, kb := keyPair(t)
	sent := make(chan int, 16)
	a, err := New(kb, lengths{sent}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, MaxGossip} {
		if err := a.Gossip(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if got := <-sent; got != DataSize {
			t.Errorf("gossip of %d bytes is a record of %d", n, got)
		}
	}
	for _, n := range []int{0, MaxGossip + 1} {
		if a.Gossip(make([]byte, n)) == nil {
			t.Errorf("sent gossip of %d bytes", n)
		}
	}
}

// lengths is a Sender that tells how long data records are.
type lengths struct{ sent chan int }

func (l lengths) Data(seal func([]byte) []byte, _ <-chan struct{}) error {
	l.sent <- len(seal(nil))
	return nil
}

func (l lengths) Flush() {}

func (l lengths) Go(f func()) { go f() }

func (l lengths) Control(seal func([]byte) []byte) error { seal(nil); return nil }

func (l lengths) Close(cell.Reason) {}

// TestGossipNeedsNoWindow: a client that doesn't read keeps no news away.
func TestGossipNeedsNoWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, shape{}, nil)
		go p.a.Write(make([]byte, 1<<20))
		synctest.Wait() // the window is full
		if err := p.a.Gossip([]byte("news")); err != nil {
			t.Fatal(err)
		}
		if got := <-p.b.Heard(); string(got) != "news" {
			t.Errorf("heard %q", got)
		}
	})
}

// TestGossipGoesAheadOfAWriterThatNeverRests and loses none of its data.
func TestGossipGoesAheadOfAWriterThatNeverRests(t *testing.T) {
	p := newPair(t, shape{rate: 50e6, slots: 1}, nil)
	var g sync.WaitGroup
	stop := make(chan struct{})
	wrote, read := 0, make(chan int64, 1)
	g.Go(func() {
		for b := make([]byte, bufferSize); ; {
			select {
			case <-stop:
				p.a.CloseWrite()
				return
			default:
				n, _ := p.a.Write(b)
				wrote += n
			}
		}
	})
	go func() { n, _ := p.b.WriteTo(io.Discard); read <- n }()
	for range 50 {
		if err := p.a.Gossip([]byte("x")); err != nil {
			t.Fatal(err)
		}
		<-p.b.Heard()
	}
	close(stop)
	g.Wait()
	if n := <-read; n != int64(wrote) {
		t.Errorf("read %d bytes of %d", n, wrote)
	}
}

// TestGossipThatNobodyHearsIsDropped: it never fills a stream nor stops it.
func TestGossipThatNobodyHearsIsDropped(t *testing.T) {
	p := newPair(t, shape{}, nil)
	for range 5 * maxHeard {
		if err := p.a.Gossip([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	go p.a.Write([]byte("y"))
	b := make([]byte, 1)
	if _, err := p.b.Read(b); err != nil || b[0] != 'y' {
		t.Fatalf("read %q: %v", b, err)
	}
	if n := len(p.b.Heard()); n != maxHeard {
		t.Errorf("%d messages wait, want %d", n, maxHeard)
	}
}

// TestGossipEndsWithTheData: nothing follows FIN, and none waits for ever.
func TestGossipEndsWithTheData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, shape{slots: 1, delay: time.Hour}, nil)
		go p.a.Write([]byte("x"))
		synctest.Wait()                                     // the one slot is taken
		for _, end := range []string{"deadline", "close"} { // after the other order nothing would be left to end
			failed := make(chan error)
			for range 2 {
				go func() { failed <- p.a.Gossip([]byte("news")) }()
			}
			synctest.Wait()
			want := os.ErrDeadlineExceeded
			if end == "deadline" {
				p.a.SetWriteDeadline(time.Now())
				defer p.a.Close()
			} else {
				want = net.ErrClosed
				p.a.CloseWrite()
			}
			for range 2 {
				if err := <-failed; !errors.Is(err, want) {
					t.Errorf("%s: Gossip = %v, want %v", end, err, want)
				}
			}
			p.a.SetWriteDeadline(time.Time{})
		}
		if err := p.a.Gossip([]byte("late")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("behind FIN: %v", err)
		}
	})
}

func TestGossipBehindFinBreaksTheStream(t *testing.T) {
	ka, kb := keyPair(t)
	out := newDirection(ka.seal)
	c, err := New(kb, lengths{make(chan int, 4)}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	fin, plain := grow(nil, ControlSize)
	putControl(plain, typeFin, 0)
	out.seal(plain)
	if err := c.Receive(fin, freed(func() {})); err != nil {
		t.Fatal(err)
	}
	late, plain := grow(nil, DataSize)
	putData(plain, typeGossip, []byte("late"))
	out.seal(plain)
	if err := c.Receive(late, freed(func() {})); !errors.Is(err, ErrReset) {
		t.Errorf("Receive = %v, want %v", err, ErrReset)
	}
}
