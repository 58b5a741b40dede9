package stream

import (
	"io"
	"sync"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// direct is a Sender that hands each record to the other Conn at once, in the
// caller's goroutine: what a stream costs without a circuit.
type direct struct {
	mu sync.Mutex
	to *Conn
}

func (d *direct) Data(seal func([]byte) []byte, _ <-chan struct{}) error { return d.Control(seal) }

func (d *direct) Flush() { d.to.Wake() }

func (d *direct) Go(f func()) { go f() }

func (d *direct) Control(seal func([]byte) []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := testFrames.Get().(*testFrame)
	return d.to.Receive(seal(f.buf[:0]), f)
}

func (d *direct) Close(cell.Reason) {}

// BenchmarkStream moves bytes from one Conn to another. An operation is a
// Write of 64 KiB, in whole records, and its Reads.
func BenchmarkStream(b *testing.B) {
	b.Run("direct", func(b *testing.B) {
		ka, kb := keyPair(b)
		ab, ba := new(direct), new(direct)
		ab.mu.Lock() // until both are there
		to, err := New(kb, ba, nil, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		from, err := New(ka, ab, nil, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		ab.to, ba.to = to, from
		ab.mu.Unlock()
		buf := make([]byte, bufferSize)
		b.SetBytes(bufferSize)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := from.Write(buf[:bufferSize/2]); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(to, buf[:bufferSize/2]); err != nil {
				b.Fatal(err)
			}
			if _, err := from.Write(buf[:bufferSize/2]); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(to, buf[:bufferSize/2]); err != nil {
				b.Fatal(err)
			}
		}
		from.Fail(nil)
		to.Fail(nil)
	})
	b.Run("wire", func(b *testing.B) {
		p := newPair(b, shape{}, window.NewBudget(256<<20))
		b.SetBytes(bufferSize)
		b.ReportAllocs()
		read := make(chan int64)
		go func() {
			n, _ := p.b.WriteTo(io.Discard)
			read <- n
		}()
		buf := make([]byte, bufferSize)
		n := int64(0)
		for b.Loop() {
			if _, err := p.a.Write(buf); err != nil {
				b.Fatal(err)
			}
			n += bufferSize
		}
		p.a.CloseWrite()
		if got := <-read; got != n {
			b.Fatalf("read %d bytes of %d", got, n)
		}
	})
}
