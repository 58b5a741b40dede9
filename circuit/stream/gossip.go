package stream

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

const (
	// MaxGossip is the longest message of Gossip, bytes.
	MaxGossip = 1024

	// maxHeard is how many messages wait for a reader of Heard; more are dropped.
	maxHeard = 20
)

// Gossip sends b, 1 to MaxGossip bytes, to the far sidecar: not part of the
// data, and for whoever carries the stream like any other record of it. It
// waits for the circuit, ahead of a Write that waits for it too, but not for
// the far side's window. It is lost when the far side is not listening, and
// given up, with an error, when this side's data ends or its write deadline passes.
func (c *Conn) Gossip(b []byte) error {
	if len(b) == 0 || len(b) > MaxGossip {
		return fmt.Errorf("stream: gossip of %d bytes, want 1 to %d", len(b), MaxGossip)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gossips++
	defer func() { c.gossips--; c.write.waits.Broadcast() }()
	for c.handing && c.gossipErr() == nil {
		c.write.waits.Wait()
	}
	if err := c.gossipErr(); err != nil {
		return err
	}
	c.news, c.sealed = b, false
	err := c.hand(c.seals.gossip)
	c.flush()
	c.news = nil
	if c.sealed {
		return nil
	}
	if err := c.gossipErr(); err != nil {
		return err
	}
	if err == nil {
		err = ErrReset
	}
	return err // if the circuit died, the next Write or Fail says so
}

// gossipErr returns what forbids gossip. mu is held.
func (c *Conn) gossipErr() error {
	switch {
	case c.shut:
		return net.ErrClosed
	case c.over && c.err == nil:
		return net.ErrClosed
	case c.err != nil:
		return c.err
	case c.write.passed:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Heard is what the far sidecar sent by Gossip. A stream keeps a few messages;
// what comes while it is full is dropped. The channel is never closed: see Done.
func (c *Conn) Heard() <-chan []byte { return c.heard }

// hand gives the circuit one record of DataSize; one caller at a time. mu is
// held, and released while the Sender works.
func (c *Conn) hand(seal func([]byte) []byte) error {
	c.handing = true
	cancel := c.write.cancel
	c.mu.Unlock()
	err := c.sender.Data(seal, cancel)
	c.mu.Lock()
	c.handing = false
	if c.gossips > 0 || c.shut {
		c.write.waits.Broadcast()
	}
	return err
}

func (c *Conn) sealGossip(dst []byte) []byte {
	c.sealing.Lock()
	defer c.sealing.Unlock()
	if c.out.aead == nil {
		return dst
	}
	all, plain := grow(dst, DataSize)
	putData(plain, typeGossip, c.news)
	c.out.seal(plain)
	c.sealed = true
	return all
}

// takeGossip keeps a message for the reader of Heard, if it has room. mu is held.
func (c *Conn) takeGossip(b []byte) error {
	switch {
	case c.finIn:
		return c.reset(cell.Protocol, errors.New("stream: GOSSIP behind FIN"))
	case c.closed:
		return nil
	}
	select {
	case c.heard <- bytes.Clone(b):
	default:
	}
	return nil
}
