package link

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

const (
	readSize   = 128 << 10                        // one read from the socket
	bufferSize = batchSize + cell.MaxFrame + 1024 // a batch; or its records, with what TLS adds
)

// Buffers are held while there is something in them: most links are idle most
// of the time.
var (
	readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}
	buffers     = sync.Pool{New: func() any { return new([bufferSize]byte) }}
)

func getBuffer() []byte { return buffers.Get().(*[bufferSize]byte)[:0] }

// putBuffer gives back what getBuffer returned, unless it had to grow.
func putBuffer(b []byte) {
	if cap(b) == bufferSize {
		buffers.Put((*[bufferSize]byte)(b[:bufferSize]))
	}
}

// wire sits under the TLS record layer: it reads big, and gathers records so
// that a batch of cells is one write to the socket.
type wire struct {
	net.Conn
	poll   poller
	buf    *[readSize]byte // owned by the reader; nil when it holds nothing
	unread []byte          // of buf

	mu  sync.Mutex // the reader answers some TLS messages, too
	out []byte     // guarded by mu: records of the batch under way, or nil
}

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c}
	w.poll.init(c)
	return w
}

// Read implements net.Conn for the TLS layer.
func (w *wire) Read(b []byte) (int, error) {
	if len(w.unread) == 0 {
		n, err := w.poll.read(&w.buf)
		if err != nil || n == 0 {
			return 0, err
		}
		w.unread = w.buf[:n]
	}
	n := copy(b, w.unread)
	if w.unread = w.unread[n:]; len(w.unread) == 0 {
		readBuffers.Put(w.buf)
		w.buf = nil
	}
	return n, nil
}

// Write implements net.Conn for the TLS layer.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out != nil {
		w.out = append(w.out, b...)
		return len(b), nil
	}
	return w.Conn.Write(b)
}

// batch writes b through c as one write to the socket.
func (w *wire) batch(c *tls.Conn, b []byte) error {
	w.hold()
	_, err := c.Write(b)
	return errors.Join(err, w.flush())
}

// hold gathers what is written until flush.
func (w *wire) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = getBuffer()
}

func (w *wire) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.Conn.Write(w.out)
	putBuffer(w.out)
	w.out = nil
	return err
}

// readInto reads into a buffer of the pool that it takes beforehand.
func readInto(c net.Conn, to **[readSize]byte) (int, error) {
	b := readBuffers.Get().(*[readSize]byte)
	n, err := c.Read(b[:])
	if n == 0 {
		readBuffers.Put(b)
		return 0, err
	}
	*to = b
	return n, nil
}
