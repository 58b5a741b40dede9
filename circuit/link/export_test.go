package link

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Raw is the record layer of a link, which never runs: an end that costs next to
// nothing.
type Raw struct{ l *Link }

// DialRaw is Dial.
func DialRaw(ctx context.Context, conn net.Conn, id onion.ID) (Raw, error) {
	l, err := Dial(ctx, conn, id, nil)
	return Raw{l}, err
}

// AcceptRaw is Accept.
func AcceptRaw(ctx context.Context, conn net.Conn, cert tls.Certificate) (Raw, error) {
	l, err := Accept(ctx, conn, cert, time.Now(), nil)
	return Raw{l}, err
}

// RecordCells is the most cells of one record.
const RecordCells = recordCells

// Append appends the record of frames that are no cells, then cells.
func (r Raw) Append(b, control []byte, cells ...*cell.Frame) []byte {
	return appendRecord(b, &r.l.out, control, cells)
}

// Write writes records.
func (r Raw) Write(b []byte) (int, error) { return r.l.wire.Write(b) }

// Read returns the frames of the next record.
func (r Raw) Read() (frames []byte, err error) {
	frames, _, err = r.l.readRecord()
	return frames, err
}

// Skip reads the next record, opens nothing, and returns how many cells it has.
// Read does not work afterwards.
func (r Raw) Skip() (cells int, err error) {
	head, err := r.l.wire.next(recordHeader)
	if err != nil {
		return 0, err
	}
	n, sealed, err := parseRecordHeader(head)
	if err != nil {
		return 0, err
	}
	if _, err := r.l.wire.next(recordHeader + n + sealed); err != nil {
		return 0, err
	}
	r.l.wire.skip(recordHeader + n + sealed)
	return n / cell.Size, nil
}

// Close ends the link.
func (r Raw) Close() { r.l.Close() }
