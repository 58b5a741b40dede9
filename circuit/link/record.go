package link

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// version is the first byte that each side sends inside TLS.
//
//	1  frames inside TLS
//	2  records after the handshake that bind some bodies
//	3  records of this file; hops' layers on the way back have no tags
//	4  KEEPALIVE; the acceptor tells its time
const version = 4

// After the TLS handshake, and what each side says of itself in it, TLS has
// done its work: frames go in records of our own, under keys that its exporter
// (RFC 8446 section 7.5) makes. The bodies of DATA are sealed hop by hop
// already; a record neither encrypts them again nor checks them. A body that
// was changed on the wire dies where its layers are taken off: at the next hop
// on its way from the dialler, who opens the circuits, and at the circuit's
// owner on its way back. docs/decisions.md says what that is worth. A record
// is, big endian:
//
//	0  2  n: length of the sealed part
//	2  1  k: how many cells
//	3  1  zero
//	4  …  k bodies of DATA or PADDING, cell.Size bytes each
//	…  n  sealed: frames; of DATA and PADDING only the header, the bodies
//	      follow in their order
//
// Each side seals its records with onion.Direction, in the suite that TLS
// negotiated. When what is sealed was changed, dropped, repeated or put
// elsewhere it does not open, and the link closes.
const (
	recordHeader = 2 + 1 + 1

	// recordCells is the most cells of one record. A reader opens a record as a
	// whole: more would make cells wait for each other on a slow link, fewer
	// cost a call and a tag more often. BenchmarkRecord has the numbers.
	recordCells = 4

	// maxControl is the most bytes of frames other than cells in one record.
	maxControl = batchSize/2 + cell.MaxFrame

	maxSealed = maxControl + recordCells*cell.HeaderSize + cell.TagSize
	maxRecord = recordHeader + recordCells*cell.Size + maxSealed
)

// exporterLabel names what the exporter's keys are for.
const exporterLabel = "EXPORTER-shoal link"

// newDirections returns the keys of both ways of a link whose handshake is over.
func newDirections(s tls.ConnectionState, dialled bool) (in, out onion.Direction, err error) {
	const size = 32
	keys, err := s.ExportKeyingMaterial(exporterLabel, nil, 2*size)
	if err != nil {
		return in, out, err
	}
	suite := onion.AES256GCM
	if s.CipherSuite == tls.TLS_CHACHA20_POLY1305_SHA256 { // one of the two has no AES in its processor
		suite = onion.ChaCha20
	}
	fromDialler, fromAcceptor := onion.NewDirection(suite, keys[:size]), onion.NewDirection(suite, keys[size:])
	clear(keys)
	if dialled {
		return fromAcceptor, fromDialler, nil
	}
	return fromDialler, fromAcceptor, nil
}

// appendRecord appends the record of frames: control, whole frames that are no
// cells, then cells, at most recordCells.
func appendRecord(b []byte, out *onion.Direction, control []byte, cells []*cell.Frame) []byte {
	sealed := len(control) + len(cells)*cell.HeaderSize + cell.TagSize
	b = append(binary.BigEndian.AppendUint16(b, uint16(sealed)), byte(len(cells)), 0)
	for _, f := range cells {
		b = append(b, f.Body()[:]...)
	}
	at := len(b)
	b = append(b, control...)
	for _, f := range cells {
		b = append(b, f[:cell.HeaderSize]...)
	}
	b = append(b, make([]byte, cell.TagSize)...)
	out.Seal(b[at:])
	return b
}

// parseRecordHeader returns how long the parts of a record are, bytes.
func parseRecordHeader(b []byte) (bodies, sealed int, err error) {
	sealed, cells := int(binary.BigEndian.Uint16(b)), int(b[2])
	switch {
	case b[3] != 0:
		return 0, 0, fmt.Errorf("link: byte 3 of a record is %d, want 0", b[3])
	case cells > recordCells:
		return 0, 0, fmt.Errorf("link: record of %d cells, at most %d", cells, recordCells)
	case sealed < cell.TagSize+cell.HeaderSize || sealed > maxSealed:
		return 0, 0, fmt.Errorf("link: record with %d sealed bytes, at most %d", sealed, maxSealed)
	}
	return cells * cell.Size, sealed, nil
}

var errRecord = errors.New("link: a record's frames and cells do not match")

// readRecord waits for a record and returns what is in it, which is valid until
// the next call.
func (l *Link) readRecord() (frames, bodies []byte, err error) {
	head, err := l.wire.next(recordHeader)
	if err != nil {
		return nil, nil, err
	}
	n, sealed, err := parseRecordHeader(head)
	if err != nil {
		return nil, nil, err
	}
	record, err := l.wire.next(recordHeader + n + sealed)
	if err != nil {
		return nil, nil, err
	}
	l.wire.skip(len(record))
	l.bytesIn.Add(uint64(len(record)))
	bodies, frames = record[recordHeader:recordHeader+n], record[recordHeader+n:]
	if err := l.in.Open(frames, frames); err != nil {
		return nil, nil, errors.New("link: a record was changed on its way")
	}
	return frames[:sealed-cell.TagSize], bodies, nil
}

// recordWaits reports whether a whole record can be read without waiting.
func (l *Link) recordWaits() bool {
	b := l.wire.unread()
	if len(b) < recordHeader {
		return false
	}
	n, sealed, err := parseRecordHeader(b)
	return err == nil && len(b) >= recordHeader+n+sealed
}
