//go:build unix

package link

import (
	"io"
	"net"
	"os"
	"syscall"
)

// poller reads from a connection into a buffer that it takes from the pool
// once there is something to read, so that a link that waits holds none.
type poller struct {
	conn net.Conn
	raw  syscall.RawConn // nil: conn is no socket
	try  func(fd uintptr) bool
	buf  *[readSize]byte // what try has read into
	n    int
	err  error
}

func (p *poller) init(c net.Conn) {
	p.conn = c
	if t, ok := c.(*net.TCPConn); ok {
		if raw, err := t.SyscallConn(); err == nil {
			p.raw, p.try = raw, p.tryRead
		}
	}
}

// tryRead reports false to wait until fd can be read.
func (p *poller) tryRead(fd uintptr) bool {
	b := readBuffers.Get().(*[readSize]byte)
	for {
		p.n, p.err = syscall.Read(int(fd), b[:])
		if p.err != syscall.EINTR {
			break
		}
	}
	if p.n > 0 {
		p.buf = b
		return true
	}
	readBuffers.Put(b)
	return p.err != syscall.EAGAIN
}

// read waits for bytes, and leaves them in a buffer of the pool.
func (p *poller) read(to **[readSize]byte) (int, error) {
	if p.raw == nil {
		return readInto(p.conn, to)
	}
	if err := p.raw.Read(p.try); err != nil {
		return 0, err
	}
	switch {
	case p.n > 0:
		*to, p.buf = p.buf, nil
		return p.n, nil
	case p.err != nil:
		return 0, os.NewSyscallError("read", p.err)
	}
	return 0, io.EOF
}
