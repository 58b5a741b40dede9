package stream

import (
	"net"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/window"
)

// linger is how long a closed stream waits for the far side to close too.
const linger = 60 * time.Second

// Conn is one stream. It is a net.Conn that behaves as a TCP connection does:
//
//   - Write returns when all of its bytes were handed to the Sender.
//   - CloseWrite ends this side's data; the far side reads io.EOF behind the
//     last byte, and may go on sending.
//   - Close does the same, and forgets what arrives after it: data then
//     resets the stream. With data unread it resets at once. It loses nothing
//     that Write took, and waits for nobody. A closed stream stands for at most
//     a minute more, without memory, until the far side has closed.
//   - When both sides have ended their data, the Sender is told cell.Done.
//
// Errors: io.EOF; net.ErrClosed after Close, and for a Write after CloseWrite;
// os.ErrDeadlineExceeded; ErrReset; and what Fail or the Sender said.
//
// All methods are safe for concurrent use. None of the Sender's is called with
// a lock held that a Receive or Fail could wait for.
type Conn struct {
	sender        Sender
	local, remote net.Addr
	seals         struct{ data, gossip, window, fin, reset func([]byte) []byte } // made once

	confirmed chan struct{} // closed when the far side has proven itself
	done      chan struct{} // closed when over
	heard     chan []byte   // the far side's gossip, for Heard

	sealing sync.Mutex // taken before mu
	out     direction  // guarded by sealing
	chunk   []byte     // what sealData seals; owned by who set handing
	news    []byte     // what sealGossip seals; likewise
	sealed  bool       // it did; likewise

	opening sync.Mutex // taken before mu
	in      direction  // guarded by opening
	proven  bool       // confirmed is closed; guarded by opening

	mu      sync.Mutex // guards what follows
	read    deadline   // its waiters: for data
	write   deadline   // its waiters: for the window, or for writing to end
	queue   queue      // arrived and unread
	inbox   inbox      // what the far side may send
	sent    uint64     // bytes of data handed to the Sender
	allowed uint64     // offset up to which the far side lets us send
	writing bool       // a Write is under way
	handing bool       // the Sender works on a record of DataSize
	gossips int        // Gossips under way

	shut    bool        // no more data from here: CloseWrite or Close
	closed  bool        // Close
	finIn   bool        // the far side's FIN is here
	finOut  bool        // ours was handed to the Sender
	over    bool        // nothing comes or goes any more; the Sender was told or knows
	err     error       // why, when it wasn't for both FINs
	settled bool        // the budget has the window back
	wait    *time.Timer // for the far side's FIN after Close
}

// New makes the stream of a finished handshake; it uses k up. It fails with
// ErrBudget. When this side opened the stream, the far side waits for a first
// record: New has it sent, from a goroutine of its own.
func New(k *Keys, s Sender, b *window.Budget, local, remote net.Addr) (*Conn, error) {
	w, ok := window.Open(&kind, b)
	if !ok {
		return nil, ErrBudget
	}
	c := &Conn{
		sender: s, local: local, remote: remote,
		confirmed: make(chan struct{}),
		done:      make(chan struct{}),
		heard:     make(chan []byte, maxHeard),
		out:       newDirection(k.seal),
		in:        newDirection(k.open),
		inbox:     inbox{Window: w},
		allowed:   windowFloor,
	}
	clear(k.seal[:])
	clear(k.open[:])
	c.read, c.write = newDeadline(&c.mu), newDeadline(&c.mu)
	c.seals.data, c.seals.gossip = c.sealData, c.sealGossip
	c.seals.window, c.seals.fin, c.seals.reset = c.sealWindow, c.sealFin, c.sealReset
	if k.initiator {
		c.proven = true
		close(c.confirmed) // by its handshake message
		c.inbox.widen()
		s.Go(c.tellWindow)
	}
	return c, nil
}

// Confirmed is closed once the far side has proven that the stream is live and
// not a replay. Before that nothing may reach a client.
func (c *Conn) Confirmed() <-chan struct{} { return c.confirmed }

// Done is closed once the stream is over for the circuit: both sides have
// ended their data, or it broke. What had arrived can still be read.
func (c *Conn) Done() <-chan struct{} { return c.done }

// LocalAddr returns what New was given.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns what New was given.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines. Zero means none.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.set(t, &c.read, &c.write)
}

// SetReadDeadline sets when a Read that waits gives up.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.set(t, &c.read)
}

// SetWriteDeadline sets when a Write that waits gives up, be it for the far
// side or for the circuit.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.set(t, &c.write)
}

func (c *Conn) set(t time.Time, deadlines ...*deadline) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	for _, d := range deadlines {
		d.set(t)
	}
	return nil
}
