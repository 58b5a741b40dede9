package directory

import (
	"encoding/binary"
	"fmt"
)

// Have is a tracker, and the number of the newest of its views that someone
// has, 0 for none.
type Have struct {
	Tracker [32]byte
	Number  uint64
}

const haveSize = 32 + 8

// AppendHave appends the body of a request for views to b: at most MaxTrackers.
func AppendHave(b []byte, have []Have) []byte {
	if len(have) > MaxTrackers {
		panic(fmt.Sprintf("directory: request for views of %d trackers", len(have)))
	}
	b = append(b, byte(len(have)))
	for _, h := range have {
		b = append(b, h.Tracker[:]...)
		b = binary.BigEndian.AppendUint64(b, h.Number)
	}
	return b
}

// ParseHave reads what AppendHave wrote and keeps no reference to b.
func ParseHave(b []byte) ([]Have, error) {
	r := reader{b: b}
	have := make([]Have, r.count("trackers", 0, MaxTrackers))
	for i := range have {
		have[i] = Have{Tracker: r.key(), Number: r.uint64()}
	}
	if r.end(); r.err != nil {
		return nil, r.err
	}
	return have, nil
}

// MaxViews is the longest answer to a request for the views of so many
// trackers, bytes.
func MaxViews(trackers int) int { return trackers * (4 + MaxView) }

// AppendView appends one view, in its wire form, to an answer.
func AppendView(b, view []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(view)))
	return append(b, view...)
}

// ParseViews splits an answer into views in their wire form; they point into b
// and are as yet anyone's: Keeper.Add tells.
func ParseViews(b []byte) ([][]byte, error) {
	var views [][]byte
	r := reader{b: b}
	for len(r.b) > 0 && r.err == nil {
		n := r.uint32()
		if n > MaxView || len(views) == MaxTrackers {
			return nil, fmt.Errorf("directory: view of %d bytes behind %d others, at most %d and %d", n, len(views), MaxView, MaxTrackers)
		}
		views = append(views, r.next(int(n)))
	}
	if r.err != nil {
		return nil, r.err
	}
	return views, nil
}

// Standing is a tracker's answer to a descriptor: how the relay stands with it.
type Standing uint8

// The standings.
const (
	Untested    Standing = 1 // taken; a circuit through it is yet to be tried
	Reachable   Standing = 2 // taken; a circuit through it stood lately
	Unreachable Standing = 3 // taken; no circuit through it could be built
	Rejected    Standing = 4 // not taken: its address, time or signature is wrong, or there is no room
)

func (s Standing) String() string {
	switch s {
	case Untested:
		return "not tested yet"
	case Reachable:
		return "reachable"
	case Unreachable:
		return "not reachable from outside"
	case Rejected:
		return "refused"
	}
	return fmt.Sprintf("standing %d", uint8(s))
}

// ParseStanding reads the answer to a descriptor.
func ParseStanding(b []byte) (Standing, error) {
	if len(b) != 1 || Standing(b[0]) < Untested || Standing(b[0]) > Rejected {
		return 0, fmt.Errorf("directory: answer of %d bytes is no standing", len(b))
	}
	return Standing(b[0]), nil
}
