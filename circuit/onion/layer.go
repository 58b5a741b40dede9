package onion

import (
	"crypto/rand"
	mathrand "math/rand/v2"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// Layer is a relay's layer of one circuit. Forward and Backward may run
// concurrently with each other, each from one goroutine at a time.
type Layer struct {
	size    int // C
	last    bool
	confirm [keySize]byte

	forward     half
	forwardFill *mathrand.ChaCha8

	backward     half
	backwardFill *mathrand.ChaCha8
}

// String shows nothing: a log must hold no key.
func (l *Layer) String() string { return "a circuit's layer" }

func newRelayLayer(s Suite, kf, kb, confirm [keySize]byte, size int, last bool) *Layer {
	return &Layer{
		size:         size,
		last:         last,
		confirm:      confirm,
		forward:      newHalf(s, kf[:]),
		forwardFill:  newFill(),
		backward:     newHalf(s, kb[:]),
		backwardFill: newFill(),
	}
}

// newFill returns a generator for bytes that nobody reads, fresh from the
// system's.
func newFill() *mathrand.ChaCha8 {
	var seed [32]byte
	rand.Read(seed[:])
	return mathrand.NewChaCha8(seed)
}

// Forward opens this hop's layer of a cell on its way to the last hop, in
// place, and overwrites what lies behind. At the last hop the payload is then
// in b[:cell.Payload]. After an error b is worthless, the circuit is to be
// destroyed, and every later call fails as well.
func (l *Layer) Forward(b *[cell.Size]byte) error {
	if err := l.forward.open(b[:l.size]); err != nil {
		return err
	}
	end := l.size - cell.TagSize
	if l.last {
		end = cell.Payload
	}
	l.forwardFill.Read(b[end:])
	return nil
}

// Backward seals a cell towards the client, in place, and overwrites what lies
// behind. At the last hop b[:cell.Payload] is the payload, and only that is
// kept: a payload moved over from another circuit brings nothing else along.
func (l *Layer) Backward(b *[cell.Size]byte) {
	if l.last {
		l.backwardFill.Read(b[cell.Payload:])
	}
	l.backward.seal(b[:l.size])
	l.backwardFill.Read(b[l.size:])
}

// Confirm is what the client and this hop alone know of this circuit.
func (l *Layer) Confirm() [32]byte { return l.confirm }

// Clear erases the keys once nobody calls Forward or Backward any more. The
// expanded keys inside the standard library's ciphers can't be erased, only
// dropped. Afterwards Forward fails and Backward seals nothing but zeros.
func (l *Layer) Clear() {
	l.forward.clear()
	l.backward.clear()
	clear(l.confirm[:])
}

// Circuit is the owner's end: all layers of it. Seal and Open may run
// concurrently with each other, each from one goroutine at a time.
type Circuit struct {
	sizes    []int // C of each hop, nearest first
	forward  []half
	backward []half
	fill     *mathrand.ChaCha8
	confirm  [keySize]byte // of the last hop
}

// String shows nothing: a log must hold no key.
func (c *Circuit) String() string { return "a circuit's layers" }

func newCircuit(hops int) *Circuit {
	return &Circuit{
		sizes:    make([]int, 0, hops),
		forward:  make([]half, 0, hops),
		backward: make([]half, 0, hops),
		fill:     newFill(),
	}
}

// add appends the next hop.
func (c *Circuit) add(s Suite, kf, kb, confirm [keySize]byte, size int) {
	c.sizes = append(c.sizes, size)
	c.forward = append(c.forward, newHalf(s, kf[:]))
	c.backward = append(c.backward, newHalf(s, kb[:]))
	c.confirm = confirm
}

// Seal puts all layers around the payload in b[:cell.Payload], in place. What
// b holds behind it is not used.
func (c *Circuit) Seal(b *[cell.Size]byte) {
	c.fill.Read(b[cell.Payload:])
	for i := len(c.forward) - 1; i >= 0; i-- {
		c.forward[i].seal(b[:c.sizes[i]])
	}
}

// Open takes all layers off a cell, in place; the payload is then in
// b[:cell.Payload], the rest is worthless. After an error so is all of b, the
// circuit is to be destroyed, and every later call fails as well.
func (c *Circuit) Open(b *[cell.Size]byte) error {
	for i := range c.backward {
		if err := c.backward[i].open(b[:c.sizes[i]]); err != nil {
			return err // and that layer opens nothing more
		}
	}
	return nil
}

// Confirm is what this circuit's owner and its last hop alone know of it.
func (c *Circuit) Confirm() [32]byte { return c.confirm }

// Clear erases the keys once nobody calls Seal or Open any more; what Layer's
// Clear says of it is true here too.
func (c *Circuit) Clear() {
	for i := range c.forward {
		c.forward[i].clear()
		c.backward[i].clear()
	}
	clear(c.confirm[:])
}
