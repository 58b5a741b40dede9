package announce

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// What follows the name in a Request.
const (
	withNothing    = 0
	withRecord     = 1
	withWithdrawal = 2
)

// Withdrawal takes a member's record out of a swarm at one tracker.
type Withdrawal struct {
	T   [32]byte
	Sig [ed25519.SignatureSize]byte
}

// Withdraw signs the withdrawal of what m published at tracker under day.
func Withdraw(m *Member, tracker [32]byte, day Day) *Withdrawal {
	t := m.TrackerKey(tracker, day)
	w := &Withdrawal{T: public(t)}
	copy(w.Sig[:], ed25519.Sign(t, w.signed(Name(m.infohash, tracker, day))))
	return w
}

// Verify reports whether w was signed by its T for the swarm that name stands for.
func (w *Withdrawal) Verify(name [32]byte) error {
	if !ed25519.Verify(w.T[:], w.signed(name), w.Sig[:]) {
		return errors.New("announce: withdrawal not signed by its own key")
	}
	return nil
}

func (w *Withdrawal) signed(name [32]byte) []byte {
	b := append([]byte(labelWithdraw), name[:]...)
	return append(b, w.T[:]...)
}

// Request is what a member asks of a tracker: to store its record or take it
// out, or neither, and to name some other members.
type Request struct {
	Name     [32]byte
	Outer    *Outer      // to store, or nil
	Withdraw *Withdrawal // or nil; not both
	NumWant  int         // records wanted, 0 to MaxRecords
}

// Append appends r's wire form, at most MaxRequest bytes, to b. A NumWant out of
// its bounds is cut to them.
func (r *Request) Append(b []byte) []byte {
	kind := byte(withNothing)
	switch {
	case r.Outer != nil && r.Withdraw != nil:
		panic("announce: request both stores and withdraws")
	case r.Outer != nil:
		kind = withRecord
	case r.Withdraw != nil:
		kind = withWithdrawal
	}
	b = append(b, kind, byte(min(max(r.NumWant, 0), MaxRecords)))
	b = append(b, r.Name[:]...)
	switch kind {
	case withRecord:
		b = r.Outer.Append(b)
	case withWithdrawal:
		b = append(b, r.Withdraw.T[:]...)
		b = append(b, r.Withdraw.Sig[:]...)
	}
	return b
}

// ParseRequest reads what Append wrote and keeps no reference to b. Signatures
// are for Outer.Verify and Withdrawal.Verify.
func ParseRequest(b []byte) (*Request, error) {
	if len(b) < requestHeader {
		return nil, fmt.Errorf("announce: request of %d bytes, want at least %d", len(b), requestHeader)
	}
	in := reader{b: b}
	kind := in.byte()
	r := &Request{NumWant: int(in.byte()), Name: in.key()}
	if r.NumWant > MaxRecords {
		return nil, fmt.Errorf("announce: %d records wanted, at most %d", r.NumWant, MaxRecords)
	}
	switch kind {
	case withNothing:
		if len(in.b) != 0 {
			return nil, fmt.Errorf("announce: %d bytes after the request", len(in.b))
		}
	case withRecord:
		o, err := ParseOuter(in.b)
		if err != nil {
			return nil, err
		}
		r.Outer = &o
	case withWithdrawal:
		if len(in.b) != withdrawalSize {
			return nil, fmt.Errorf("announce: withdrawal of %d bytes, want %d", len(in.b), withdrawalSize)
		}
		r.Withdraw = &Withdrawal{T: in.key()}
		copy(r.Withdraw.Sig[:], in.b)
	default:
		return nil, fmt.Errorf("announce: unknown request %d", kind)
	}
	return r, nil
}

// Status says what became of the record in a request.
type Status uint8

// The statuses.
const (
	Done        Status = 0 // stored or taken out; or there was none
	StampNeeded Status = 1 // not stored: it lacks a stamp of Answer.StampBits
	Full        Status = 2 // not stored: the tracker's limits are reached
	Invalid     Status = 3 // not stored: signature or times are wrong; maybe a clock is
	maxStatus          = Invalid
)

func (s Status) String() string {
	switch s {
	case Done:
		return "done"
	case StampNeeded:
		return "stamp needed"
	case Full:
		return "tracker is full"
	case Invalid:
		return "record refused"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Answer is what a tracker says to a Request.
type Answer struct {
	Status    Status
	StampBits int           // what a record must be stamped with here, 0 to MaxStampBits
	Interval  time.Duration // until the next announce; whole milliseconds, at most MaxInterval
	Seeders   uint32        // hints, like Leechers
	Leechers  uint32
	Records   []Outer // at most MaxRecords
}

// Append appends a's wire form, at most MaxAnswer bytes, to b.
func (a *Answer) Append(b []byte) []byte {
	b = slices.Grow(b, AnswerHeader+len(a.Records)*OuterSize)
	b = a.appendHeader(b, len(a.Records))
	for i := range a.Records {
		b = a.Records[i].Append(b)
	}
	return b
}

// PutHeader makes b an answer where the records lie in their wire form already,
// after AnswerHeader bytes for what a says beside them. a.Records is not looked at.
func (a *Answer) PutHeader(b []byte) { a.appendHeader(b[:0], (len(b)-AnswerHeader)/OuterSize) }

func (a *Answer) appendHeader(b []byte, records int) []byte {
	if records > MaxRecords || a.StampBits < 0 || a.StampBits > MaxStampBits {
		panic(fmt.Sprintf("announce: answer with %d records and %d bits", records, a.StampBits))
	}
	b = append(b, byte(a.Status), byte(a.StampBits))
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(a.Interval, 0), MaxInterval).Milliseconds()))
	b = binary.BigEndian.AppendUint32(b, a.Seeders)
	b = binary.BigEndian.AppendUint32(b, a.Leechers)
	return append(b, byte(records))
}

// ParseAnswer reads what Append wrote and keeps no reference to b. The records
// in it are as yet anyone's: OpenRecord tells.
func ParseAnswer(b []byte) (*Answer, error) {
	if len(b) < AnswerHeader {
		return nil, fmt.Errorf("announce: answer of %d bytes, want at least %d", len(b), AnswerHeader)
	}
	in := reader{b: b}
	a := &Answer{Status: Status(in.byte()), StampBits: int(in.byte())}
	interval := time.Duration(in.uint32()) * time.Millisecond
	a.Interval, a.Seeders, a.Leechers = interval, in.uint32(), in.uint32()
	n := int(in.byte())
	switch {
	case a.Status > maxStatus:
		return nil, fmt.Errorf("announce: unknown status %d", a.Status)
	case a.StampBits > MaxStampBits:
		return nil, fmt.Errorf("announce: stamp of %d bits asked for, at most %d", a.StampBits, MaxStampBits)
	case interval > MaxInterval:
		return nil, fmt.Errorf("announce: interval %v, at most %v", interval, MaxInterval)
	case n > MaxRecords:
		return nil, fmt.Errorf("announce: %d records, at most %d", n, MaxRecords)
	case len(in.b) != n*OuterSize:
		return nil, fmt.Errorf("announce: %d bytes for %d records, want %d", len(in.b), n, n*OuterSize)
	}
	a.Records = make([]Outer, n)
	for i := range a.Records {
		o, err := ParseOuter(in.next(OuterSize))
		if err != nil {
			return nil, err
		}
		a.Records[i] = o
	}
	return a, nil
}
