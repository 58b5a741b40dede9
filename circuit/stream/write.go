package stream

import (
	"errors"
	"net"
	"os"
)

// Write sends p, and waits for the far side's window and the circuit as it must.
// The count is of bytes handed to the Sender, which are sent whatever follows.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.writing && c.writeErr() == nil {
		c.write.waits.Wait()
	}
	if err := c.writeErr(); err != nil {
		return 0, err
	}
	c.writing = true
	for len(p) > n && err == nil {
		var k int
		k, err = c.writeRecord(p[n:])
		n += k
	}
	c.flush()
	c.chunk, c.writing = nil, false
	c.write.waits.Broadcast()
	return n, err
}

// writeRecord sends one record with the first bytes of p, and returns how
// many. mu is held, and released while the Sender works.
func (c *Conn) writeRecord(p []byte) (int, error) {
	for flushed := false; (c.sent == c.allowed || c.handing || c.gossips > 0) && c.writeErr() == nil; flushed = true {
		if flushed {
			c.write.waits.Wait()
		} else {
			c.flush()
		}
	}
	if err := c.writeErr(); err != nil {
		return 0, err
	}
	c.chunk = p[:min(uint64(len(p)), MaxData, c.allowed-c.sent)]
	c.sealed = false
	err := c.hand(c.seals.data)

	n := 0
	if c.sealed {
		n = len(c.chunk)
		c.sent += uint64(n)
		if err == nil {
			return n, nil
		}
	}
	if err := c.writeErr(); err != nil {
		return n, err
	}
	if errors.Is(err, ErrCancelled) {
		return n, nil // the deadline was moved meanwhile: try again
	}
	if err == nil {
		err = ErrReset // the Sender took no record and didn't say why
	}
	c.lose(err)
	return n, err
}

// flush has the Sender send what it took. mu is held, and released meanwhile.
func (c *Conn) flush() {
	c.mu.Unlock()
	defer c.mu.Lock()
	c.sender.Flush()
}

// writeErr returns what forbids writing. mu is held.
func (c *Conn) writeErr() error {
	switch {
	case c.shut:
		return net.ErrClosed
	case c.err != nil:
		return c.err
	case c.write.passed:
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *Conn) sealData(dst []byte) []byte {
	c.sealing.Lock()
	defer c.sealing.Unlock()
	if c.out.aead == nil {
		return dst
	}
	all, plain := grow(dst, DataSize)
	putData(plain, typeData, c.chunk)
	c.out.seal(plain)
	c.sealed = true
	return all
}

func (c *Conn) sealWindow(dst []byte) []byte { return c.sealControl(dst, typeWindow) }

func (c *Conn) sealFin(dst []byte) []byte { return c.sealControl(dst, typeFin) }

func (c *Conn) sealReset(dst []byte) []byte { return c.sealControl(dst, typeReset) }

func (c *Conn) sealControl(dst []byte, kind byte) []byte {
	c.sealing.Lock()
	defer c.sealing.Unlock()
	if c.out.aead == nil {
		return dst
	}
	all, plain := grow(dst, ControlSize)
	putControl(plain, kind, c.offset(kind))
	c.out.seal(plain)
	return all
}

// offset returns what a control record says, as of its sealing: so no WINDOW
// takes back what the one before it allowed.
func (c *Conn) offset(kind byte) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch kind {
	case typeWindow:
		return c.inbox.Granted()
	case typeFin:
		return c.sent
	}
	return 0
}
