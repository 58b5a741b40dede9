package stream

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// The types of a record; 5 is kept for RESUME.
const (
	typeData   = 1
	typeWindow = 2
	typeFin    = 3
	typeReset  = 4
	typeGossip = 6
)

const rekeyAfter = 1 << 24

// errOpen is all that a record says that can't be opened.
var errOpen = errors.New("stream: record refused")

var zeros [DataSize]byte

// direction is the key of one direction and its count of records.
type direction struct {
	aead  cipher.AEAD
	key   [32]byte
	nonce [12]byte // here, so that it needs no allocation
	count uint64   // records under this key
}

func newDirection(key [32]byte) direction {
	return direction{aead: newAEAD(&key), key: key}
}

func newAEAD(key *[32]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // 32 bytes are always a key
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the block size of GCM
	}
	return aead
}

// step returns the nonce of the next record.
func (d *direction) step() []byte {
	if d.count == rekeyAfter {
		next, err := hkdf.Expand(sha256.New, d.key[:], "rekey", len(d.key))
		if err != nil {
			panic(err) // 32 bytes are never too many
		}
		copy(d.key[:], next)
		clear(next)
		d.aead, d.count = newAEAD(&d.key), 0
	}
	binary.BigEndian.PutUint64(d.nonce[4:], d.count)
	d.count++
	return d.nonce[:]
}

// seal seals plain in place; its capacity has room for the tag.
func (d *direction) seal(plain []byte) {
	d.aead.Seal(plain[:0], d.step(), plain, nil)
}

// open opens record in place.
func (d *direction) open(record []byte) (plain []byte, err error) {
	if len(record) != DataSize && len(record) != ControlSize {
		return nil, fmt.Errorf("stream: record of %d bytes, want %d or %d", len(record), DataSize, ControlSize)
	}
	plain, err = d.aead.Open(record[:0], d.step(), record, nil)
	if err != nil {
		return nil, errOpen
	}
	return plain, nil
}

// erase forgets the key; nothing is sealed or opened after it.
func (d *direction) erase() {
	clear(d.key[:])
	d.aead = nil
}

// record is an opened record. Data is set for DATA and GOSSIP, Offset for the others.
type record struct {
	kind   byte
	offset uint64
	data   []byte // points into the record; its capacity is all the room in it
}

// grow lengthens dst by size bytes, and returns with it the part of them that is sealed.
func grow(dst []byte, size int) (all, plain []byte) {
	at := len(dst)
	all = slices.Grow(dst, size)[:at+size]
	return all, all[at : at+size-cell.TagSize : at+size]
}

// putData fills plain, the inside of a record of DataSize, of kind DATA or
// GOSSIP with data: 1 to MaxData or MaxGossip bytes.
func putData(plain []byte, kind byte, data []byte) {
	plain[0] = kind
	binary.BigEndian.PutUint16(plain[1:], uint16(len(data)))
	n := copy(plain[dataHeader:], data)
	clear(plain[dataHeader+n:])
}

// putControl fills plain, the inside of a record of ControlSize.
func putControl(plain []byte, kind byte, offset uint64) {
	plain[0] = kind
	binary.BigEndian.PutUint64(plain[1:], offset)
	clear(plain[9:])
}

// parseRecord reads the inside of a record that has one of the two sizes.
func parseRecord(plain []byte) (record, error) {
	switch {
	case len(plain) == DataSize-cell.TagSize && (plain[0] == typeData || plain[0] == typeGossip):
		return parseData(plain)
	case len(plain) == ControlSize-cell.TagSize && plain[0] >= typeWindow && plain[0] <= typeReset:
		return parseControl(plain)
	case len(plain) == 0:
		return record{}, errors.New("stream: empty record")
	}
	return record{}, fmt.Errorf("stream: record of type %d and %d bytes", plain[0], len(plain))
}

func parseData(plain []byte) (record, error) {
	n := int(binary.BigEndian.Uint16(plain[1:]))
	room := plain[dataHeader:len(plain):len(plain)]
	most := len(room)
	if plain[0] == typeGossip {
		most = MaxGossip
	}
	if n == 0 || n > most {
		return record{}, fmt.Errorf("stream: record of type %d with %d bytes, at most %d", plain[0], n, most)
	}
	if !bytes.Equal(room[n:], zeros[:len(room)-n]) {
		return record{}, fmt.Errorf("stream: record of type %d is not padded with zeros", plain[0])
	}
	return record{kind: plain[0], data: room[:n]}, nil
}

func parseControl(plain []byte) (record, error) {
	r := record{kind: plain[0], offset: binary.BigEndian.Uint64(plain[1:])}
	if !bytes.Equal(plain[9:], zeros[:len(plain)-9]) {
		return record{}, fmt.Errorf("stream: record of type %d is not padded with zeros", r.kind)
	}
	if r.kind == typeReset && r.offset != 0 {
		return record{}, fmt.Errorf("stream: RESET with offset %d", r.offset)
	}
	return r, nil
}
