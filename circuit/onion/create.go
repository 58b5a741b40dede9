package onion

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// Hop is one relay of a circuit as the client knows it, from its descriptor.
type Hop struct {
	ID    ID
	Key   PublicKey
	Suite Suite
}

// Pending is a circuit whose CREATE was made and whose CREATED is awaited. It
// holds secrets until Finish or Clear.
type Pending struct {
	hops []pendingHop // nil once used
}

// String shows nothing: what p holds opens the circuit's cells.
func (p *Pending) String() string { return "a pending circuit" }

// pendingHop is what the client must remember of one hop until it answered.
type pendingHop struct {
	client     *ecdh.PrivateKey
	exports    exports
	transcript [sha256.Size]byte
	suite      Suite
	length     int // C_i
}

// Wrap makes the CREATE, cell.CreateSize bytes, that opens a circuit over hops,
// nearest first, 1 to cell.MaxHops of them, no two neighbours the same. step is
// Step of the directory's time. early, at most cell.EarlySize bytes, reaches
// the last hop with it, zero padded: a message of package cell, or nil. Two
// calls never make the same CREATE; one must not be sent twice.
func Wrap(hops []Hop, step uint32, early []byte) (create []byte, p *Pending, err error) {
	if len(hops) < 1 || len(hops) > cell.MaxHops {
		return nil, nil, fmt.Errorf("onion: %d hops, want 1 to %d", len(hops), cell.MaxHops)
	}
	slack, err := rand.Int(rand.Reader, big.NewInt(int64(cell.MaxHops-len(hops)+1)))
	if err != nil {
		return nil, nil, err
	}
	return wrap(hops, step, early, int(slack.Int64()))
}

func wrap(hops []Hop, step uint32, early []byte, slack int) ([]byte, *Pending, error) {
	if len(early) > cell.EarlySize {
		return nil, nil, fmt.Errorf("onion: early message of %d bytes, at most %d", len(early), cell.EarlySize)
	}
	layers := make([]layer, len(hops))
	for i, h := range hops {
		if h.ID == (ID{}) || i > 0 && h.ID == hops[i-1].ID {
			return nil, nil, fmt.Errorf("onion: hop %d has no identity, or that of the hop before", i)
		}
		if !h.Suite.Valid() {
			return nil, nil, fmt.Errorf("onion: hop %d has unknown %v", i, h.Suite)
		}
		l, err := newLayer(h)
		if err != nil {
			return nil, nil, fmt.Errorf("onion: hop %d: %w", i, err)
		}
		l.pending.length = cell.Size - (i+slack)*cell.TagSize
		layers[i] = l
	}

	// First hop to last: what the bytes that each relay appends have become
	// when the last one sees them. They can't be chosen, so they come first.
	fill := make([]byte, 0, (cell.MaxHops-1)*cell.LayerSize)
	skipped := make([]byte, bodySize)
	for _, l := range layers[:len(layers)-1] {
		fill = append(fill, zeros[:]...)
		n := bodySize - len(fill)
		onion := keystream(&l.pending.exports.onion)
		onion.XORKeyStream(skipped[:n], skipped[:n])
		onion.XORKeyStream(fill, fill)
	}

	// Last hop to first: around what the last one sees. Random bytes between
	// box and fill, or the last hop could count the hops by where zeros end.
	body := make([]byte, bodySize)
	rest := body[cell.LayerSize:]
	free := rest[:len(rest)-len(fill)]
	copy(free, early)
	rand.Read(free[cell.EarlySize:])
	copy(rest[len(free):], fill)
	keystream(&layers[len(layers)-1].pending.exports.onion).XORKeyStream(free, free)
	for i := len(layers) - 1; i >= 0; i-- {
		l := &layers[i]
		if i < len(layers)-1 {
			keystream(&l.pending.exports.onion).XORKeyStream(body, body)
			copy(rest, body) // what falls off the end is what the relay appends
		}
		header := make([]byte, 0, headerSize)
		header = append(header, cell.Version)
		header = binary.BigEndian.AppendUint32(header, step)
		header = append(header, l.pending.client.PublicKey().Bytes()...)
		var next Hop
		if i < len(layers)-1 {
			next = hops[i+1]
		}
		header = append(header, next.ID[:]...)
		header = binary.BigEndian.AppendUint16(header, uint16(l.pending.length))
		header = append(header, next.Key.number)
		sealed, err := l.sender.Seal(rest, header)
		if err != nil {
			return nil, nil, fmt.Errorf("onion: hop %d: %w", i, err)
		}
		copy(body, l.enc)
		copy(body[encSize:], sealed)
		l.pending.transcript = transcript(l.info, body)
	}

	p := &Pending{make([]pendingHop, len(layers))}
	for i, l := range layers {
		p.hops[i] = l.pending
	}
	return append([]byte{hops[0].Key.number}, body...), p, nil
}

var zeros [cell.LayerSize]byte

// layer is one hop while its CREATE is made.
type layer struct {
	info    []byte
	enc     []byte
	sender  *hpke.Sender
	pending pendingHop
}

func newLayer(h Hop) (layer, error) {
	key, err := kem().NewPublicKey([]byte(h.Key.raw))
	if err != nil {
		return layer{}, err
	}
	l := layer{info: info(h.ID, h.Key.number)}
	if l.enc, l.sender, err = hpke.NewSender(key, kdf(), aead(), l.info); err != nil {
		return layer{}, err
	}
	if l.pending.exports, err = exportAll(l.sender); err != nil {
		return layer{}, err
	}
	l.pending.suite = h.Suite
	l.pending.client = newX25519()
	return l, nil
}

func newX25519() *ecdh.PrivateKey {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // the system's random source doesn't fail
	}
	return k
}

// hopKeys derives what the two ends of a hop share. own is this end's fresh
// key, other the public one it was sent; client and relay are both public ones.
func hopKeys(e *exports, t [sha256.Size]byte, own *ecdh.PrivateKey, other, client, relay []byte) (kf, kb, confirm [keySize]byte, err error) {
	pub, err := ecdh.X25519().NewPublicKey(other)
	if err != nil {
		return kf, kb, confirm, errOpen
	}
	shared, err := own.ECDH(pub) // refuses an all-zero result
	if err != nil {
		return kf, kb, confirm, errOpen
	}
	ikm := append(append(make([]byte, 0, 2*keySize), e.hop[:]...), shared...)
	info := append(append(make([]byte, 0, 2*keySize), client...), relay...)
	k, err := hkdf.Key(sha256.New, ikm, t[:], string(info), 3*keySize)
	if err != nil {
		return kf, kb, confirm, err
	}
	copy(kf[:], k)
	copy(kb[:], k[keySize:])
	copy(confirm[:], k[2*keySize:])
	clear(shared)
	clear(ikm)
	clear(k)
	return kf, kb, confirm, nil
}
