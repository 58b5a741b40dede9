package onion

import (
	"crypto/ecdh"
	"errors"
	"fmt"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// HopError says that hop Hop, counted from 0, answered in place of the hops
// behind: the next one failed it or, when Hop is the last, it can't serve
// itself. Either of the two relays may lie: what is accused is the edge between
// Hop and Hop+1.
type HopError struct {
	Hop    int
	Reason cell.Reason
}

func (e *HopError) Error() string {
	return fmt.Sprintf("onion: hop %d answers: %v", e.Hop, e.Reason)
}

// answerNonce is zero: each answer key seals one answer.
var answerNonce [12]byte

func (p *Peeled) accept(s Suite, own *ecdh.PrivateKey) (*Layer, error) {
	if !s.Valid() {
		return nil, fmt.Errorf("onion: unknown %v", s)
	}
	if p.relay != nil {
		return nil, errors.New("onion: this CREATE was accepted before")
	}
	relay := own.PublicKey().Bytes()
	kf, kb, confirm, err := hopKeys(&p.exports, p.transcript, own, p.client[:], p.client[:], relay)
	if err != nil {
		return nil, err
	}
	p.relay = relay
	clear(p.exports.hop[:])
	return newRelayLayer(s, kf, kb, confirm, p.length, p.Last), nil
}

// reply turns the CREATED of the hop behind into this hop's: it moves back by
// one answer, and what falls off the end is gone.
func (p *Peeled) reply(r cell.Reason, inner []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]byte, cell.CreatedSize)
	rest := out[cell.AnswerSize:]
	if p.answer == nil {
		var plain [keySize + 1]byte
		if r == cell.OK {
			if p.relay == nil {
				panic("onion: Created before Accept")
			}
			copy(plain[:], p.relay)
		}
		plain[keySize] = byte(r)
		newGCM(p.exports.answer[:]).Seal(out[:0], answerNonce[:], plain[:], p.transcript[:])
		keystream(&p.exports.back).XORKeyStream(rest, inner[:len(rest)])
		p.exports = exports{}
		p.answer = out
	}
	return append([]byte(nil), p.answer...)
}

// Finish reads the first hop's CREATED. A *HopError says which hop failed; any
// other error, that one of them broke the protocol, and not which. It can be
// called once, whatever comes of it.
func (p *Pending) Finish(created []byte) (*Circuit, error) {
	if len(p.hops) == 0 {
		return nil, errors.New("onion: this circuit's CREATED was read before")
	}
	defer p.Clear()
	if len(created) != cell.CreatedSize {
		return nil, fmt.Errorf("onion: CREATED of %d bytes, want %d", len(created), cell.CreatedSize)
	}
	b := append([]byte(nil), created...)
	c := newCircuit(len(p.hops))
	for i := range p.hops {
		h := &p.hops[i]
		plain, err := newGCM(h.exports.answer[:]).Open(nil, answerNonce[:], b[:cell.AnswerSize], h.transcript[:])
		if err != nil {
			return nil, errOpen
		}
		relay, status := plain[:keySize], cell.Reason(plain[keySize])
		if status != cell.OK {
			return nil, &HopError{i, status}
		}
		kf, kb, confirm, err := hopKeys(&h.exports, h.transcript, h.client, relay, h.client.PublicKey().Bytes(), relay)
		if err != nil {
			return nil, err
		}
		c.add(h.suite, kf, kb, confirm, h.length, i == len(p.hops)-1)
		b = b[cell.AnswerSize:]
		keystream(&h.exports.back).XORKeyStream(b, b)
	}
	return c, nil
}

// Clear forgets the secrets of a circuit that is given up.
func (p *Pending) Clear() {
	clear(p.hops)
	p.hops = nil
}
