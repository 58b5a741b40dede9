package stream

import (
	"net"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// CloseWrite ends this side's data.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return net.ErrClosed
	case c.shut:
		return nil
	case c.err != nil:
		return c.err
	}
	c.finish()
	return c.err
}

// Close ends the stream on this side. A second Close does nothing.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.read.pass()
	c.read.stop()
	var unread []Owned
	for !c.queue.empty() {
		unread = append(unread, c.queue.pop())
	}
	switch {
	case c.over:
	case len(unread) > 0:
		c.shutWrite()
		c.abort(cell.Gone, net.ErrClosed)
	default:
		if !c.shut {
			c.finish()
		}
		if !c.over {
			c.wait = time.AfterFunc(linger, c.lingered)
		}
	}
	c.write.stop()
	c.settle()
	c.mu.Unlock()
	for _, record := range unread {
		record.Free()
	}
	return nil
}

// lingered gives up on the far side's FIN.
func (c *Conn) lingered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.end(cell.Done, nil)
	}
}

// shutWrite ends what Write is about. mu is held.
func (c *Conn) shutWrite() {
	c.shut = true
	c.write.pass()
}

// finish sends FIN behind the last data. mu is held, and released meanwhile.
func (c *Conn) finish() {
	c.shutWrite()
	for c.writing || c.handing {
		c.write.waits.Wait() // not long: what it waits for was cancelled
	}
	if c.over {
		return
	}
	c.mu.Unlock()
	err := c.sender.Control(c.seals.fin)
	c.mu.Lock()
	c.finOut = true
	switch {
	case c.over:
	case err != nil:
		c.lose(err)
	case c.finIn:
		c.end(cell.Done, nil)
	}
}

// Fail says that the circuit died or that the far side closed. Reads get what
// had arrived, then err (nil means ErrReset), or io.EOF when the far side's FIN
// had arrived; writes get err. The Sender is not called. It never blocks.
func (c *Conn) Fail(err error) {
	if err == nil {
		err = ErrReset
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.die(err)
		c.sender.Go(c.erase)
	}
}

// end is the one way a stream gets over. The Sender is told from a goroutine
// of its own, since this may run on the circuit's reader. mu is held.
func (c *Conn) end(r cell.Reason, err error) {
	c.die(err)
	c.sender.Go(func() {
		c.sender.Close(r)
		c.erase()
	})
}

// abort is end, with a RESET for the far side. mu is held.
func (c *Conn) abort(r cell.Reason, err error) {
	c.die(err)
	c.sender.Go(func() {
		c.sender.Control(c.seals.reset) // when it fails there is nobody to tell
		c.sender.Close(r)
		c.erase()
	})
}

// lose is end, for an error that the Sender returned. mu is held.
func (c *Conn) lose(err error) {
	if !c.over {
		c.end(cell.Gone, err)
	}
}

// die wakes everyone. mu is held.
func (c *Conn) die(err error) {
	c.over, c.err = true, err
	close(c.done)
	if c.wait != nil {
		c.wait.Stop()
	}
	if err != nil {
		c.write.pass()
	}
	c.read.waits.Broadcast()
	c.write.waits.Broadcast()
	c.settle()
}

// settle gives the window back once no more data can come and none is left to
// read. mu is held.
func (c *Conn) settle() {
	if !c.settled && c.queue.empty() && (c.finIn || c.closed || c.over) {
		c.settled = true
		c.inbox.Close()
	}
}

// erase forgets the keys. From here on seal functions append nothing.
func (c *Conn) erase() {
	c.sealing.Lock()
	c.out.erase()
	c.sealing.Unlock()
	c.opening.Lock()
	c.in.erase()
	c.opening.Unlock()
}
