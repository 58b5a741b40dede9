package stream

import (
	"io"
	"net"
	"os"
)

// maxRead is how many records one Read empties at most.
const maxRead = 16

// Read waits for data, and takes what there is up to the length of p.
func (c *Conn) Read(p []byte) (int, error) {
	var done [maxRead]Owned
	c.mu.Lock()
	if err := c.waitData(len(p) > 0); err != nil || len(p) == 0 {
		c.mu.Unlock()
		return 0, err
	}
	n, spent := 0, 0
	for n < len(p) && spent < maxRead && !c.queue.empty() {
		k, record := c.queue.read(p[n:])
		n += k
		if record != nil {
			done[spent] = record
			spent++
		}
	}
	tell := !c.finIn && !c.over && c.inbox.drain(n)
	c.settle()
	c.mu.Unlock()
	for _, record := range done[:spent] {
		record.Free()
	}
	if tell {
		c.tellWindow()
	}
	return n, nil
}

// waitData returns nil when there is something to read; if block is false it
// only looks for what forbids reading. mu is held.
func (c *Conn) waitData(block bool) error {
	for {
		switch {
		case c.closed:
			return net.ErrClosed
		case c.read.passed:
			return os.ErrDeadlineExceeded
		case !block || !c.queue.empty():
			return nil
		case c.finIn:
			return io.EOF
		case c.err != nil:
			return c.err
		}
		c.read.waits.Wait()
	}
}

// tellWindow sends WINDOW.
func (c *Conn) tellWindow() {
	err := c.sender.Control(c.seals.window)
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose(err)
}
