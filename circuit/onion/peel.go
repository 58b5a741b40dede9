package onion

import (
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// Peeled is one relay's view of a CREATE, until it has answered. Created and
// Fail may be called from several goroutines: the first of them decides.
type Peeled struct {
	Step   uint32   // when the client made it; ReplayCache judges it
	Next   ID       // where Create goes; zero for the last hop. It may be this relay, or unknown: the caller refuses that
	Last   bool     // the circuit ends here
	Create []byte   // for Next, cell.CreateSize bytes; nil for the last hop. The caller's
	Early  []byte   // cell.EarlySize bytes, zero padded, for the last hop; nil when nothing was sent. The caller's
	Replay [16]byte // names this CREATE in a ReplayCache

	client     [keySize]byte
	relay      []byte // our fresh public key, set by Accept
	length     int    // C
	exports    exports
	transcript [sha256.Size]byte

	mu     sync.Mutex
	answer []byte // guarded by mu: the CREATED that was made, once it was
}

// String shows nothing: a log must not join the two ends of a hop.
func (p *Peeled) String() string { return "a peeled CREATE" }

// LogValue is String.
func (p *Peeled) LogValue() slog.Value { return slog.StringValue(p.String()) }

// KeyNumber returns which of the relay's onion keys create is sealed to.
func KeyNumber(create []byte) byte {
	if len(create) == 0 {
		return 0
	}
	return create[0]
}

// Peel opens the CREATE that relay self received, with the onion key that it is
// sealed to. After an error there is nothing to answer with: the circuit is
// destroyed with cell.Protocol, and the text is for the log. Peel does not
// judge the time and knows no replays: give Step and Replay to a ReplayCache
// before anything else is done.
func Peel(create []byte, self ID, key *PrivateKey) (*Peeled, error) {
	if len(create) != cell.CreateSize {
		return nil, fmt.Errorf("onion: CREATE of %d bytes, want %d", len(create), cell.CreateSize)
	}
	if n := KeyNumber(create); n != key.public.number {
		return nil, fmt.Errorf("onion: CREATE for key %d, not %d", n, key.public.number)
	}
	body := create[1:]
	enc, sealed, rest := body[:encSize], body[encSize:cell.LayerSize], body[cell.LayerSize:]
	inf := info(self, key.public.number)
	r, err := hpke.NewRecipient(enc, key.key, kdf(), aead(), inf)
	if err != nil {
		return nil, errOpen
	}
	header, err := r.Open(rest, sealed)
	if err != nil {
		return nil, errOpen
	}
	p, number, err := parseHeader(header)
	if err != nil {
		return nil, err
	}
	if p.exports, err = exportAll(r); err != nil {
		return nil, err
	}
	p.transcript = transcript(inf, body)
	tag := sha256.Sum256(enc)
	copy(p.Replay[:], tag[:])

	stream := keystream(&p.exports.onion)
	if p.Last {
		box := make([]byte, cell.EarlySize)
		stream.XORKeyStream(box, rest[:len(box)])
		if !isZero(box) {
			p.Early = box
		}
	} else {
		p.Create = make([]byte, cell.CreateSize)
		p.Create[0] = number
		copy(p.Create[1:], rest)
		stream.XORKeyStream(p.Create[1:], p.Create[1:])
	}
	clear(p.exports.onion[:])
	return p, nil
}

// parseHeader reads the opened header of a CREATE, with the next hop's key
// number.
func parseHeader(b []byte) (p *Peeled, number byte, err error) {
	if len(b) != headerSize {
		return nil, 0, fmt.Errorf("onion: header of %d bytes, want %d", len(b), headerSize)
	}
	if b[0] != cell.Version {
		return nil, 0, fmt.Errorf("onion: version %d, want %d", b[0], cell.Version)
	}
	p = &Peeled{
		Step:   binary.BigEndian.Uint32(b[headerStep:]),
		Next:   ID(b[headerNext:]),
		client: [keySize]byte(b[headerClient:]),
		length: int(binary.BigEndian.Uint16(b[headerLength:])),
	}
	number = b[headerNumber]
	p.Last = p.Next == ID{}
	if p.Last && number != 0 {
		return nil, 0, fmt.Errorf("onion: last hop with a next key %d", number)
	}
	least := cell.Payload + cell.TagSize
	if !p.Last {
		least += cell.TagSize
	}
	if p.length < least || p.length > cell.Size || (cell.Size-p.length)%cell.TagSize != 0 {
		return nil, 0, fmt.Errorf("onion: layer of %d bytes, want %d to %d", p.length, least, cell.Size)
	}
	return p, number, nil
}

// Accept makes this hop's fresh key and the layer of its cells, with the Suite
// that its descriptor names. It can be called once, before Created. An error
// means that the client broke the protocol: the circuit is destroyed.
func (p *Peeled) Accept(s Suite) (*Layer, error) {
	return p.accept(s, newX25519())
}

// Created returns this hop's CREATED, cell.CreatedSize bytes, after Accept.
// inner is the next hop's CREATED, unread; nil at the last hop. An answer is
// sealed once: whichever of Created and Fail comes first decides, later calls
// return it again.
func (p *Peeled) Created(inner []byte) []byte {
	return p.reply(cell.OK, filler(inner))
}

// Fail returns the CREATED, cell.CreatedSize bytes, that answers in place of
// the hops behind: the next hop failed this one for reason r, or at the last
// hop: this hop can't serve. It needs no Accept. cell.OK, which is what a
// DESTROY passed on carries, becomes cell.Gone. What can't be peeled, is
// replayed or too old gets no answer at all: the package comment says why.
func (p *Peeled) Fail(r cell.Reason) []byte {
	if r == cell.OK {
		r = cell.Gone
	}
	return p.reply(r, filler(nil))
}

// filler returns CREATED as this hop got it, random where it got none.
func filler(inner []byte) []byte {
	b := make([]byte, cell.CreatedSize)
	if copy(b, inner) < len(b) {
		rand.Read(b)
	}
	return b
}

func isZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}
