package scrub

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit/stream"
)

// The buffers of a direction, bytes: the small one while little comes, so that
// an idle stream holds little memory, the big one while much does. Both fill
// whole records of a stream.
const (
	smallBuffer = stream.MaxData
	bigBuffer   = 32 * stream.MaxData
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	bigBuffers   = sync.Pool{New: func() any { return new([bigBuffer]byte) }}
)

// Copy reads src to its end and writes to dst what s lets through. The error
// is the first of src, s and dst, nil for the end of src; n counts what was written.
func Copy(dst io.Writer, src io.Reader, s *Scrubber) (n int64, err error) {
	for {
		var more bool
		if more, err = copySmall(dst, src, s, &n); more {
			err = copyBig(dst, src, s, &n)
		}
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
	}
}

// copySmall copies until a read fills its buffer: there is more.
func copySmall(dst io.Writer, src io.Reader, s *Scrubber, n *int64) (more bool, err error) {
	b := smallBuffers.Get().(*[smallBuffer]byte)
	defer smallBuffers.Put(b)
	for {
		read, err := step(dst, src, s, b[:], n)
		if err != nil || read == len(b) {
			return err == nil, err
		}
	}
}

// copyBig copies until a read would have fitted the small buffer.
func copyBig(dst io.Writer, src io.Reader, s *Scrubber, n *int64) error {
	b := bigBuffers.Get().(*[bigBuffer]byte)
	defer bigBuffers.Put(b)
	for {
		read, err := step(dst, src, s, b[:], n)
		if err != nil || read < smallBuffer {
			return err
		}
	}
}

// step reads once, and writes what of it may pass.
func step(dst io.Writer, src io.Reader, s *Scrubber, b []byte, n *int64) (read int, err error) {
	read, end := src.Read(b)
	out, err := s.Feed(b[:read])
	if err == nil && len(out) > 0 {
		var wrote int
		wrote, err = dst.Write(out)
		*n += int64(wrote)
		s.out.reset(nil)
	}
	if err == nil {
		err = end
	}
	return read, err
}

// lingerTimeout is how long one direction may lie idle after the other has
// ended. A client has no use for half a connection.
const lingerTimeout = 60 * time.Second

// Splice joins a client and a stream until both directions have ended, one
// has failed, or ctx ends; an end of file is passed on as such. It owns both
// conns, closes them, and leaves no goroutine behind. client is a Leg, from
// Accept or Dial, or another conn of a client that speaks plainly; far is the
// stream. What either says before its handshake has come whole, and for c.Hash,
// reaches nobody. The error is nil when both ended, ErrNotBitTorrent,
// ErrWrongSwarm, ErrSilent, ctx's, or of a conn, and holds no address.
func Splice(ctx context.Context, client, far net.Conn, c Config) error {
	x := splice{client: client, far: far, hello: c.helloTimeout()}
	defer x.close()
	defer context.AfterFunc(ctx, x.close)()
	out, in := NewPair(c)
	var wg sync.WaitGroup
	wg.Go(func() { x.run(far, client, out, false) })
	l, ok := client.(*Leg)
	x.run(client, far, in, ok && l.greeted)
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := x.err.Load(); err != nil {
		return *err
	}
	return nil
}

type splice struct {
	client, far net.Conn
	hello       time.Duration

	ended atomic.Bool // one direction has
	err   atomic.Pointer[error]
}

func (x *splice) close() {
	x.client.Close()
	x.far.Close()
}

// run moves one direction to its end. told: dst has got src's handshake already.
func (x *splice) run(dst, src net.Conn, s *Scrubber, told bool) {
	from := &source{Conn: src, dst: dst, ended: &x.ended}
	err := x.greet(dst, from, s, told)
	if err == nil {
		_, err = Copy(dst, from, s)
	}
	if err != nil && err != io.EOF {
		x.fail(err)
		return
	}
	first := !x.ended.Swap(true) // before dst ends: without halves that ends the other direction
	if err := closeWrite(dst); err != nil {
		if first {
			x.note(err)
		}
		x.close()
		return
	}
	// The other direction may be in the middle of a read or a write.
	(&source{Conn: dst, dst: src, ended: &x.ended}).linger()
}

// fail ends both directions. What breaks after one of them has ended well is
// how the other ends, unless it was refused.
func (x *splice) fail(err error) {
	refused := err == ErrNotBitTorrent || err == ErrWrongSwarm
	if refused || !x.ended.Load() {
		x.note(err)
	}
	x.close()
}

// note keeps err, if it is the first.
func (x *splice) note(err error) {
	err = plain(err)
	x.err.CompareAndSwap(nil, &err)
}

// greet moves the handshake.
func (x *splice) greet(dst net.Conn, src *source, s *Scrubber, told bool) error {
	src.SetReadDeadline(time.Now().Add(x.hello))
	var b [helloSize]byte
	for have := 0; !s.Greeted(); {
		n, err := src.Read(b[have:])
		out, bad := s.Feed(b[have : have+n])
		have += n
		switch {
		case bad != nil:
			return bad
		case len(out) > 0 && !told:
			if _, err := dst.Write(out); err != nil {
				return err
			}
		case len(out) == 0 && isTimeout(err):
			return ErrSilent
		case len(out) == 0 && err != nil:
			return err
		}
	}
	src.SetReadDeadline(time.Time{})
	src.linger()
	return nil
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// source is the conn that one direction reads from. Once the other direction
// has ended, each of its reads has a deadline, and so has what dst does with it.
type source struct {
	net.Conn
	dst   net.Conn
	ended *atomic.Bool
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.linger()
	return n, err
}

func (s *source) linger() {
	if s.ended.Load() {
		at := time.Now().Add(lingerTimeout)
		s.SetReadDeadline(at)
		s.dst.SetWriteDeadline(at)
	}
}
