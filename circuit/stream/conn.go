package stream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// linger is how long a closed stream waits for the far side to close too.
const linger = 60 * time.Second

// maxRead is how many records one Read empties at most.
const maxRead = 16

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
	budget        *Budget
	local, remote net.Addr
	seals         struct{ data, window, fin, reset func([]byte) []byte } // made once

	confirmed chan struct{} // closed when the far side has proven itself
	done      chan struct{} // closed when over

	sealing sync.Mutex // taken before mu
	out     direction  // guarded by sealing
	chunk   []byte     // what sealData seals; owned by who set writing
	sealed  bool       // sealData did; owned by who set writing

	opening sync.Mutex // taken before mu
	in      direction  // guarded by opening
	proven  bool       // confirmed is closed; guarded by opening

	mu      sync.Mutex // guards what follows
	read    deadline   // its waiters: for data
	write   deadline   // its waiters: for the window, or for writing to end
	queue   queue      // arrived and unread
	window  window     // what the far side may send
	sent    uint64     // bytes of data handed to the Sender
	allowed uint64     // offset up to which the far side lets us send
	writing bool       // a Write owns chunk and sealed

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
func New(k *Keys, s Sender, b *Budget, local, remote net.Addr) (*Conn, error) {
	if !b.open() {
		return nil, ErrBudget
	}
	c := &Conn{
		sender: s, budget: b, local: local, remote: remote,
		confirmed: make(chan struct{}),
		done:      make(chan struct{}),
		out:       newDirection(k.seal),
		in:        newDirection(k.open),
		window:    newWindow(time.Now()),
		allowed:   windowFloor,
	}
	clear(k.seal[:])
	clear(k.open[:])
	c.read, c.write = newDeadline(&c.mu), newDeadline(&c.mu)
	c.seals.data, c.seals.window, c.seals.fin, c.seals.reset = c.sealData, c.sealWindow, c.sealFin, c.sealReset
	if k.initiator {
		c.proven = true
		close(c.confirmed) // by its handshake message
		go c.tellWindow()
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

// Read waits for data, and takes what there is up to the length of p.
func (c *Conn) Read(p []byte) (int, error) {
	var done [maxRead]func()
	c.mu.Lock()
	if err := c.waitData(len(p) > 0); err != nil || len(p) == 0 {
		c.mu.Unlock()
		return 0, err
	}
	n, spent := 0, 0
	for n < len(p) && spent < maxRead && !c.queue.empty() {
		k, release := c.queue.read(p[n:])
		n += k
		if release != nil {
			done[spent] = release
			spent++
		}
	}
	tell := !c.finIn && !c.over && c.window.drain(n, time.Now, c.budget)
	c.settle()
	c.mu.Unlock()
	for _, release := range done[:spent] {
		release()
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
	c.chunk, c.writing = nil, false
	c.write.waits.Broadcast()
	return n, err
}

// writeRecord sends one record with the first bytes of p, and returns how
// many. mu is held, and released while the Sender works.
func (c *Conn) writeRecord(p []byte) (int, error) {
	for c.sent == c.allowed && c.writeErr() == nil {
		c.write.waits.Wait()
	}
	if err := c.writeErr(); err != nil {
		return 0, err
	}
	c.chunk = p[:min(uint64(len(p)), MaxData, c.allowed-c.sent)]
	c.sealed = false
	cancel := c.write.cancel
	c.mu.Unlock()
	err := c.sender.Data(c.seals.data, cancel)
	c.mu.Lock()

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
	var unread []func()
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
	for _, release := range unread {
		release()
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
	for c.writing {
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

// end is the one way a stream gets over. The Sender is told from a goroutine
// of its own, since this may run on the circuit's reader. mu is held.
func (c *Conn) end(r cell.Reason, err error) {
	c.die(err)
	go func() {
		c.sender.Close(r)
		c.erase()
	}()
}

// abort is end, with a RESET for the far side. mu is held.
func (c *Conn) abort(r cell.Reason, err error) {
	c.die(err)
	go func() {
		c.sender.Control(c.seals.reset) // when it fails there is nobody to tell
		c.sender.Close(r)
		c.erase()
	}()
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
		c.budget.close(c.window.size)
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

func (c *Conn) sealData(dst []byte) []byte {
	c.sealing.Lock()
	defer c.sealing.Unlock()
	if c.out.aead == nil {
		return dst
	}
	all, plain := grow(dst, DataSize)
	putData(plain, c.chunk)
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
		return c.window.limit
	case typeFin:
		return c.sent
	}
	return 0
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
		go c.erase()
	}
}

// Receive takes a record that arrived, in the order of sending. It opens it in
// place, and the Conn owns it until it has called release, which may be before
// Receive returns. It never waits for a reader or a writer. An error means
// that the stream broke, now or before; a record behind both FINs is dropped.
func (c *Conn) Receive(sealed []byte, release func()) error {
	c.opening.Lock()
	defer c.opening.Unlock()
	kept, err := c.receive(sealed, release)
	if !kept {
		release()
	}
	return err
}

// receive reports whether the record is kept. opening is held.
func (c *Conn) receive(sealed []byte, release func()) (kept bool, err error) {
	if c.in.aead == nil {
		return false, c.broken()
	}
	plain, err := c.in.open(sealed)
	if err != nil {
		return false, c.refuse(cell.Protocol, err)
	}
	if !c.proven {
		c.proven = true
		close(c.confirmed)
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
		return c.takeData(r.data, release)
	case typeWindow:
		return false, c.takeWindow(r.offset)
	case typeFin:
		return false, c.takeFin(r.offset)
	}
	c.end(cell.Gone, ErrReset)
	return false, ErrReset
}

// takeData puts data in the queue. mu is held.
func (c *Conn) takeData(data []byte, release func()) (kept bool, err error) {
	switch {
	case c.finIn:
		return false, c.reset(cell.Protocol, errors.New("stream: DATA behind FIN"))
	case c.closed:
		return false, c.reset(cell.Gone, net.ErrClosed)
	case !c.window.receive(len(data)):
		return false, c.reset(cell.Overrun, fmt.Errorf("stream: %d bytes at %d exceed the window's %d", len(data), c.window.received, c.window.limit))
	}
	if !c.window.stalled.IsZero() {
		c.window.resume(time.Now())
	}
	kept = c.queue.push(data, release)
	c.read.waits.Broadcast()
	return kept, nil
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
	if c.finIn || offset != c.window.received {
		return c.reset(cell.Protocol, fmt.Errorf("stream: FIN at %d, received %d", offset, c.window.received))
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

// broken returns why the stream is over, nil when both sides ended their data.
func (c *Conn) broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// reset ends the stream for something the far side or the circuit did. mu is held.
func (c *Conn) reset(r cell.Reason, cause error) error {
	err := fmt.Errorf("%w: %w", ErrReset, cause)
	c.abort(r, err)
	return err
}
