package stream

import (
	"errors"
	"fmt"
	"net"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// Owned is memory that somebody gives back with Free, once.
type Owned interface{ Free() }

// Receive takes a record that arrived, in the order of sending, and lies in
// frame. It opens it in place, and the Conn owns frame until it has freed it,
// which may be before Receive returns. A Read that waits sees the data at the
// next Wake. Receive never waits for a reader or a writer. An error means that
// the stream broke, now or before; a record behind both FINs is dropped.
func (c *Conn) Receive(sealed []byte, frame Owned) error {
	c.opening.Lock()
	defer c.opening.Unlock()
	kept, err := c.receive(sealed, frame)
	if !kept {
		frame.Free()
	}
	return err
}

// Wake has a Read that waits look for what Receive took: once after many
// records, since each look costs more than a record does.
func (c *Conn) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read.waits.Broadcast()
}

// receive reports whether the record is kept. opening is held.
func (c *Conn) receive(sealed []byte, frame Owned) (kept bool, err error) {
	if c.in.aead == nil {
		return false, c.broken()
	}
	plain, err := c.in.open(sealed)
	if err != nil {
		return false, c.refuse(cell.Protocol, err)
	}
	if !c.proven {
		c.prove()
	}
	r, err := parseRecord(plain)
	if err != nil {
		return false, c.refuse(cell.Protocol, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false, c.err
	}
	switch r.kind {
	case typeData:
		return c.takeData(r.data, frame)
	case typeGossip:
		return false, c.takeGossip(r.data)
	case typeWindow:
		return false, c.takeWindow(r.offset)
	case typeFin:
		return false, c.takeFin(r.offset)
	}
	c.end(cell.Gone, ErrReset)
	return false, ErrReset
}

// prove takes the far side's first record, from which on it is worth memory.
// opening is held.
func (c *Conn) prove() {
	c.proven = true
	close(c.confirmed)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over && !c.closed && c.inbox.widen() {
		c.sender.Go(c.tellWindow)
	}
}

// takeData puts data in the queue. mu is held.
func (c *Conn) takeData(data []byte, frame Owned) (kept bool, err error) {
	switch {
	case c.finIn:
		return false, c.reset(cell.Protocol, errors.New("stream: DATA behind FIN"))
	case c.closed:
		return false, c.reset(cell.Gone, net.ErrClosed)
	case !c.inbox.receive(len(data)):
		return false, c.reset(cell.Overrun, fmt.Errorf("stream: %d bytes at %d exceed the window's %d", len(data), c.inbox.received, c.inbox.Granted()))
	}
	return c.queue.push(data, frame), nil
}

// takeWindow lets Write go on. mu is held.
func (c *Conn) takeWindow(offset uint64) error {
	if offset < c.allowed {
		return c.reset(cell.Protocol, fmt.Errorf("stream: WINDOW of %d after %d", offset, c.allowed))
	}
	c.allowed = offset
	c.write.waits.Broadcast()
	return nil
}

// takeFin ends the far side's data. mu is held.
func (c *Conn) takeFin(offset uint64) error {
	if c.finIn || offset != c.inbox.received {
		return c.reset(cell.Protocol, fmt.Errorf("stream: FIN at %d, received %d", offset, c.inbox.received))
	}
	c.finIn = true
	c.read.waits.Broadcast()
	if c.finOut {
		c.end(cell.Done, nil)
	}
	c.settle()
	return nil
}

// refuse is reset, taking mu.
func (c *Conn) refuse(r cell.Reason, cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return c.err
	}
	return c.reset(r, cause)
}

// reset ends the stream for something the far side or the circuit did. mu is held.
func (c *Conn) reset(r cell.Reason, cause error) error {
	err := fmt.Errorf("%w: %w", ErrReset, cause)
	c.abort(r, err)
	return err
}

// broken returns why the stream is over, nil when both sides ended their data.
func (c *Conn) broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
