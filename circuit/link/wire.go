package link

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/window"
)

const (
	readSize = 128 << 10 // one read from the socket; a record fits

	// batchRecords is how many records a batch has at most: one holds its
	// control frames, too.
	batchRecords = (batchCells + recordCells - 1) / recordCells
	bufferSize   = batchCells*cell.FrameSize + maxControl + batchRecords*(recordHeader+cell.TagSize)
)

// Buffers are held while there is something in them: most links are idle most
// of the time.
var (
	readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}
	buffers     = sync.Pool{New: func() any { return new([bufferSize]byte) }}
)

func getBuffer() []byte { return buffers.Get().(*[bufferSize]byte)[:0] }

func putBuffer(b []byte) { buffers.Put((*[bufferSize]byte)(b[:bufferSize])) }

// wire reads from a socket, big. During the handshake TLS reads from it, later
// the link's reader.
type wire struct {
	net.Conn
	poll poller

	// owned by the reader
	buf      *[readSize]byte // nil when it holds nothing
	from, to int             // what of buf is unread
	left     int             // of a TLS record that Read has begun

	heard atomic.Int64 // when bytes last came, on the clock of package window
}

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c}
	w.poll.init(c)
	return w
}

// next waits until n bytes are unread, at most readSize, and returns them. They
// are valid until the next call.
func (w *wire) next(n int) ([]byte, error) {
	for w.to-w.from < n {
		if err := w.more(n); err != nil {
			if err == io.EOF && w.to > w.from {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return w.buf[w.from : w.from+n], nil
}

// more reads once, where n unread bytes have room.
func (w *wire) more(n int) error {
	switch {
	case w.from == w.to:
		w.from, w.to = 0, 0
		if w.buf != nil {
			readBuffers.Put(w.buf)
			w.buf = nil
		}
	case w.from+n > readSize:
		w.to = copy(w.buf[:], w.buf[w.from:w.to])
		w.from = 0
	}
	k, err := w.poll.read(&w.buf, w.to)
	w.to += k
	if k > 0 {
		w.heard.Store(int64(window.Clock()))
	}
	return err
}

// unread returns what was read and not skipped.
func (w *wire) unread() []byte {
	if w.buf == nil {
		return nil
	}
	return w.buf[w.from:w.to]
}

// skip drops the next n bytes, which are there.
func (w *wire) skip(n int) { w.from += n }

// Read implements net.Conn for TLS. It never reads beyond a TLS record (RFC
// 8446 section 5.1): what follows the handshake's last is not for TLS.
func (w *wire) Read(b []byte) (int, error) {
	const header = 5
	if w.left == 0 {
		h, err := w.next(header)
		if err != nil {
			return 0, err
		}
		w.left = header + int(binary.BigEndian.Uint16(h[3:]))
	}
	if _, err := w.next(1); err != nil {
		return 0, err
	}
	n := copy(b, w.buf[w.from:min(w.to, w.from+w.left)])
	w.left -= n
	w.skip(n)
	return n, nil
}

// readInto is poller.read where a read can only wait.
func readInto(c net.Conn, to **[readSize]byte, at int) (int, error) {
	if *to != nil {
		return c.Read((*to)[at:])
	}
	b := readBuffers.Get().(*[readSize]byte)
	n, err := c.Read(b[at:])
	if n == 0 {
		readBuffers.Put(b)
		return 0, err
	}
	*to = b
	return n, nil
}
