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

	buf *[readSize]byte // what try reads into; nil: one of the pool
	at  int             // where in it
	n   int
	err error
	dry bool // the socket was empty, since waited was asked

	put    func(fd uintptr)
	out    []byte // what put writes
	outN   int
	outErr error
}

func (p *poller) init(c net.Conn) {
	p.conn = c
	if t, ok := c.(*net.TCPConn); ok {
		if raw, err := t.SyscallConn(); err == nil {
			p.raw, p.try, p.put = raw, p.tryRead, p.tryWrite
		}
	}
}

// tryRead reports false to wait until fd can be read.
func (p *poller) tryRead(fd uintptr) bool {
	b := p.buf
	if b == nil {
		b = readBuffers.Get().(*[readSize]byte)
	}
	for {
		p.n, p.err = readNow(fd, b[p.at:])
		if p.err != syscall.EINTR {
			break
		}
	}
	if p.n > 0 {
		p.buf = b
		return true
	}
	if p.buf == nil {
		readBuffers.Put(b)
	}
	if p.err == syscall.EAGAIN {
		p.dry = true
		return false
	}
	return true
}

// waited reports whether a read has waited for bytes since the last call.
func (p *poller) waited() bool {
	if p.raw == nil {
		return true
	}
	dry := p.dry
	p.dry = false
	return dry
}

// read waits for bytes and reads them to *to behind the first at. When *to is
// nil it becomes a buffer of the pool.
func (p *poller) read(to **[readSize]byte, at int) (int, error) {
	if p.raw == nil {
		return readInto(p.conn, to, at)
	}
	p.buf, p.at = *to, at
	err := p.raw.Read(p.try)
	buf := p.buf
	p.buf = nil
	switch {
	case err != nil:
		return 0, err
	case p.n > 0:
		*to = buf
		return p.n, nil
	case p.err != nil:
		return 0, os.NewSyscallError("read", p.err)
	}
	return 0, io.EOF
}

// direct reports whether write can be used.
func (p *poller) direct() bool { return p.raw != nil }

func (p *poller) tryWrite(fd uintptr) {
	for {
		p.outN, p.outErr = writeNow(fd, p.out)
		if p.outErr != syscall.EINTR {
			return
		}
	}
}

// write writes as much of b as the socket takes at once.
func (p *poller) write(b []byte) (n int, err error) {
	p.out = b
	err = p.raw.Control(p.put)
	p.out = nil
	switch {
	case err != nil:
		return 0, err
	case p.outErr == syscall.EAGAIN:
		return 0, nil
	case p.outErr != nil:
		return 0, os.NewSyscallError("write", p.outErr)
	}
	return p.outN, nil
}
