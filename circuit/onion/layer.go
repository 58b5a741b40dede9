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

	forward     Direction
	forwardFill *mathrand.ChaCha8

	mask         mask      // backward, unless last
	backward     Direction // of the last
	backwardFill *mathrand.ChaCha8
}

// String shows nothing: a log must hold no key.
func (l *Layer) String() string { return "a circuit's layer" }

func newRelayLayer(s Suite, kf, kb, confirm [keySize]byte, size int, last bool) *Layer {
	l := &Layer{
		size:        size,
		last:        last,
		confirm:     confirm,
		forward:     NewDirection(s, kf[:]),
		forwardFill: newFill(),
	}
	if last {
		l.backward, l.backwardFill = NewDirection(s, kb[:]), newFill()
	} else {
		l.mask = newMask(s, kb)
	}
	return l
}

// newFill returns a generator for bytes that nobody reads, fresh from the
// system's.
func newFill() *mathrand.ChaCha8 {
	var seed [32]byte
	rand.Read(seed[:])
	return mathrand.NewChaCha8(seed)
}

// Forward opens this hop's layer of b, a cell on its way to the last hop, into
// dst; dst is b, or they do not overlap. What lies behind is overwritten. At the
// last hop the payload is then in dst[:cell.Payload]. After an error dst is
// worthless, the circuit is to be destroyed, and every later call fails as well.
func (l *Layer) Forward(dst, b *[cell.Size]byte) error {
	if err := l.forward.Open(dst[:], b[:l.size]); err != nil {
		return err
	}
	end := l.size - cell.TagSize
	if l.last {
		end = cell.Payload
	}
	l.forwardFill.Read(dst[end:])
	return nil
}

// Backward puts the layer of a hop that is not the last around b, a cell towards
// the client, into dst; dst is b, or they do not overlap.
func (l *Layer) Backward(dst, b *[cell.Size]byte) { l.mask.apply(dst, b) }

// Seal is Backward at the last hop, in place: it seals the payload in
// b[:cell.Payload]. What lies behind is overwritten: a payload moved over from
// another circuit brings nothing else along.
func (l *Layer) Seal(b *[cell.Size]byte) {
	l.backwardFill.Read(b[cell.Payload:])
	l.backward.Seal(b[:l.size])
	l.backwardFill.Read(b[l.size:])
}

// Confirm is what the client and this hop alone know of this circuit.
func (l *Layer) Confirm() [32]byte { return l.confirm }

// Clear erases the keys once nobody calls Forward or Backward any more, as far
// as Direction.Clear does. Afterwards Forward fails and Backward seals nothing
// but zeros.
func (l *Layer) Clear() {
	l.forward.Clear()
	l.mask.clear()
	l.backward.Clear()
	clear(l.confirm[:])
}

// Circuit is the owner's end: all layers of it. Seal and Open may run
// concurrently with each other, each from one goroutine at a time.
type Circuit struct {
	sizes    []int // C of each hop, nearest first
	forward  []Direction
	masks    []mask    // backward, of all hops but the last
	backward Direction // of the last
	fill     *mathrand.ChaCha8
	confirm  [keySize]byte // of the last hop
}

// String shows nothing: a log must hold no key.
func (c *Circuit) String() string { return "a circuit's layers" }

func newCircuit(hops int) *Circuit {
	return &Circuit{
		sizes:   make([]int, 0, hops),
		forward: make([]Direction, 0, hops),
		masks:   make([]mask, 0, hops-1),
		fill:    newFill(),
	}
}

// add appends the next hop, and with last the last one.
func (c *Circuit) add(s Suite, kf, kb, confirm [keySize]byte, size int, last bool) {
	c.sizes = append(c.sizes, size)
	c.forward = append(c.forward, NewDirection(s, kf[:]))
	if last {
		c.backward, c.confirm = NewDirection(s, kb[:]), confirm
	} else {
		c.masks = append(c.masks, newMask(s, kb))
	}
}

// Seal puts all layers around the payload in b[:cell.Payload], in place. What
// b holds behind it is not used.
func (c *Circuit) Seal(b *[cell.Size]byte) {
	c.fill.Read(b[cell.Payload:])
	for i := len(c.forward) - 1; i >= 0; i-- {
		c.forward[i].Seal(b[:c.sizes[i]])
	}
}

// Open takes all layers off b, a cell, into dst; dst is b, or they do not
// overlap. The payload is then in dst[:cell.Payload], the rest is worthless.
// After an error so is all of dst, the circuit is to be destroyed, and every
// later call fails as well.
func (c *Circuit) Open(dst, b *[cell.Size]byte) error {
	for i := range c.masks {
		c.masks[i].apply(dst, b)
		b = dst
	}
	return c.backward.Open(dst[:], b[:c.sizes[len(c.sizes)-1]])
}

// Confirm is what this circuit's owner and its last hop alone know of it.
func (c *Circuit) Confirm() [32]byte { return c.confirm }

// Clear erases the keys once nobody calls Seal or Open any more; what Layer's
// Clear says of it is true here too.
func (c *Circuit) Clear() {
	for i := range c.forward {
		c.forward[i].Clear()
	}
	for i := range c.masks {
		c.masks[i].clear()
	}
	c.backward.Clear()
	clear(c.confirm[:])
}
