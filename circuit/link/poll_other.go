//go:build !unix

package link

import "net"

// poller reads from a connection into a buffer of the pool.
type poller struct{ conn net.Conn }

func (p *poller) init(c net.Conn) { p.conn = c }

func (p *poller) read(to **[readSize]byte, at int) (int, error) { return readInto(p.conn, to, at) }

// waited reports whether a read has waited for bytes, or may have.
func (p *poller) waited() bool { return true }

// direct reports whether write can be used.
func (p *poller) direct() bool { return false }

func (p *poller) write([]byte) (int, error) { panic("link: no direct writing here") }
