package scrub

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// The message ids that are not simply passed.
const (
	msgHave        = 4
	msgBitfield    = 5
	msgPort        = 9
	msgAllowedFast = 17
	msgExtended    = 20
)

// Scrubber is one direction of a peer stream: it is fed with what one side
// sends and says what the other may see. It keeps the bytes of at most one
// extended message or late bitfield; everything else passes as it comes. One goroutine at a time.
type Scrubber struct {
	hash swarm.Hash
	show ID

	sender   *numbers // what this direction's sender wants to receive extended messages as
	receiver *numbers // what its receiver does

	ext        extended // what the sender has said
	handshakes int      // extended ones

	greeted bool
	begun   bool   // something has passed that comes after a bitfield
	had     []byte // the pieces that late bitfields have told of
	err     error

	head [helloSize]byte // of the message, or the handshake, that is being read
	have int             // bytes in head
	need int             // bytes of head that decide what comes next
	from int             // where in the fed slice head began, or -1: earlier

	fate fate
	left int    // bytes of the body still to come
	body []byte // of the message that is being collected, as far as it came in earlier slices

	out output
}

// fate is what becomes of a message's body.
type fate uint8

const (
	pass fate = iota
	drop
	rewriteBitfield
	rewriteExtended
	rewriteMetadata
)

// NewPair returns the two directions of one stream: out is fed with what the
// client sends, in with what the far side does. Each may have its own goroutine.
func NewPair(c Config) (out, in *Scrubber) {
	client, far := new(numbers), new(numbers)
	out = &Scrubber{hash: c.Hash, show: c.Self, sender: client, receiver: far, need: helloSize}
	in = &Scrubber{hash: c.Hash, show: c.Peer, sender: far, receiver: client, need: helloSize}
	return out, in
}

// Greeted reports whether the whole handshake has been read. Before that
// nothing comes out.
func (s *Scrubber) Greeted() bool { return s.greeted }

// Feed takes the next bytes of the sender and returns the next bytes for the
// receiver, if any. They are mostly a part of in itself, which is not changed,
// and hold until the next Feed. An error, ErrNotBitTorrent or ErrWrongSwarm,
// is final: nothing more may be forwarded.
func (s *Scrubber) Feed(in []byte) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	s.out.reset(in)
	for at := 0; at < len(in); {
		if s.left > 0 {
			n := min(s.left, len(in)-at)
			s.left -= n
			s.takeBody(at, at+n)
			at += n
			continue
		}
		if s.have == 0 {
			s.from = at
		}
		n := copy(s.head[s.have:s.need], in[at:])
		s.have += n
		at += n
		if s.err = s.takeHead(); s.err != nil {
			s.out.reset(nil)
			return nil, s.err
		}
	}
	s.from = -1
	return s.out.bytes(), nil
}

// takeHead decides what it can from the head.
func (s *Scrubber) takeHead() error {
	if !s.greeted {
		if err := checkHello(s.head[:s.have], &s.hash); err != nil {
			return err
		}
	}
	if s.have < s.need {
		return nil
	}
	if !s.greeted {
		rewriteHello(s.head[:], s.show)
		s.out.put(s.head[:])
		s.greeted = true
		s.next()
		return nil
	}
	// Compared as it stands on the wire: a length may not fit an int.
	n := binary.BigEndian.Uint32(s.head[:])
	switch {
	case n > MaxMessage:
		return ErrNotBitTorrent
	case n == 0:
		s.begin(pass, 0)
	case s.have == 4:
		s.need = 5
	case s.head[4] != msgExtended:
		s.begin(s.fateOf(s.head[4], int(n)-1), int(n)-1)
	case n == 1:
		s.begin(drop, 0)
	case s.have == 5:
		s.need = 6
	default:
		s.begin(s.fateOfExtended(s.head[5], int(n)-2), int(n)-2)
	}
	return nil
}

func (s *Scrubber) fateOf(id byte, size int) fate {
	switch {
	case id == msgPort || id == msgAllowedFast:
		return drop
	case id != msgBitfield || !s.begun:
		s.begun = true
		return pass
	case size <= maxBitfield:
		return rewriteBitfield
	}
	return drop
}

func (s *Scrubber) fateOfExtended(number byte, size int) fate {
	switch {
	case number == 0 && size <= maxExtended && s.handshakes < maxHandshakes:
		return rewriteExtended
	case number == shownMetadata && size <= maxMetadata && s.receiver.metadata.Load() != 0:
		return rewriteMetadata
	}
	return drop
}

// begin ends the head of a message of which size bytes follow.
func (s *Scrubber) begin(f fate, size int) {
	if f == pass {
		if s.from >= 0 {
			s.out.pass(s.from, s.from+s.have)
		} else {
			s.out.put(s.head[:s.have])
		}
	}
	s.fate, s.left = f, size
	s.next()
}

// next makes the head ready for another message.
func (s *Scrubber) next() { s.have, s.need = 0, 4 }

// takeBody takes the part of a body that lies in the fed slice at [from,to).
func (s *Scrubber) takeBody(from, to int) {
	switch s.fate {
	case pass:
		s.out.pass(from, to)
		return
	case drop:
		return
	}
	part := s.out.in[from:to]
	if s.left > 0 {
		s.body = append(s.body, part...)
		return
	}
	whole := part
	if s.body != nil {
		whole = append(s.body, part...)
		s.body = nil
	}
	switch s.fate {
	case rewriteBitfield:
		s.putHaves(whole)
	case rewriteExtended:
		s.handshakes++
		if ext, ok := s.ext.with(whole); ok {
			s.ext = ext
			s.sender.metadata.Store(uint32(ext.metadata))
			s.putExtended(0, ext.bytes(), nil)
		}
	case rewriteMetadata:
		if dict, data, ok := metadata(whole); ok {
			s.putExtended(byte(s.receiver.metadata.Load()), dict, data)
		}
	}
}

// putHaves tells piece by piece what a bitfield says that comes late. Each piece
// is told of once, so that the far side can't make much of little.
func (s *Scrubber) putHaves(bitfield []byte) {
	for len(s.had) < len(bitfield) {
		s.had = append(s.had, 0)
	}
	for i, b := range bitfield {
		for fresh := b &^ s.had[i]; fresh != 0; {
			bit := bits.LeadingZeros8(fresh)
			fresh &^= 0x80 >> bit
			m := [9]byte{3: 5, 4: msgHave}
			binary.BigEndian.PutUint32(m[5:], uint32(8*i+bit))
			s.out.put(m[:])
		}
		s.had[i] |= b
	}
}

// putExtended writes an extended message whose body is dict and data.
func (s *Scrubber) putExtended(number byte, dict, data []byte) {
	var head [6]byte
	binary.BigEndian.PutUint32(head[:], uint32(2+len(dict)+len(data)))
	head[4], head[5] = msgExtended, number
	s.out.put(head[:])
	s.out.put(dict)
	s.out.put(data)
}

// output gathers what one Feed returns: a part of what was fed as long as
// that is one piece, which it almost always is, else a copy.
type output struct {
	in         []byte
	start, end int     // in[start:end] is the output
	copied     *[]byte // unless this is not nil
}

// copies holds the buffers of outputs that are not one piece. Each grows to
// what a Feed returns: no more than was fed, a head, and maxHandshakes times
// an extended handshake of this package's writing.
var copies = sync.Pool{New: func() any { return new([]byte) }}

// reset begins another output, made from in.
func (o *output) reset(in []byte) {
	if o.copied != nil {
		*o.copied = (*o.copied)[:0]
		copies.Put(o.copied)
	}
	*o = output{in: in}
}

// pass adds in[from:to].
func (o *output) pass(from, to int) {
	switch {
	case o.copied != nil:
		*o.copied = append(*o.copied, o.in[from:to]...)
	case o.start == o.end:
		o.start, o.end = from, to
	case o.end == from:
		o.end = to
	default:
		o.put(o.in[from:to])
	}
}

// put adds bytes that do not follow the output in o.in.
func (o *output) put(b []byte) {
	if o.copied == nil {
		o.copied = copies.Get().(*[]byte)
		*o.copied = append(*o.copied, o.in[o.start:o.end]...)
	}
	*o.copied = append(*o.copied, b...)
}

func (o *output) bytes() []byte {
	if o.copied != nil {
		return *o.copied
	}
	return o.in[o.start:o.end]
}
