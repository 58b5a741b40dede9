package directory

import (
	"encoding/binary"
	"fmt"
	"net/netip"
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

// Standing is how a relay stands with a tracker.
type Standing uint8

// The standings. From WrongAddress on the tracker does not take the descriptor.
const (
	Untested     Standing = 1 // a circuit through it is yet to be tried
	Reachable    Standing = 2 // a circuit through it stood lately
	Unreachable  Standing = 3 // no circuit through it could be built
	WrongAddress Standing = 4 // no relay of this network can be at its address
	WrongTime    Standing = 5 // its time is too far from the tracker's
	Outdated     Standing = 6 // a newer one has come
	Full         Standing = 7 // there is no room
	Invalid      Standing = 8 // the signature or the key is wrong
)

var standings = map[Standing]string{
	Untested: "not tested yet", Reachable: "reachable", Unreachable: "not reachable from outside",
	WrongAddress: "refused: wrong address", WrongTime: "refused: wrong time", Outdated: "refused: a newer descriptor is known",
	Full: "refused: no room", Invalid: "refused: not signed by the relay",
}

func (s Standing) String() string {
	if text, ok := standings[s]; ok {
		return text
	}
	return fmt.Sprintf("standing %d", uint8(s))
}

// Taken reports whether the tracker has taken the descriptor.
func (s Standing) Taken() bool { return s < WrongAddress }

// Published is a tracker's answer to a descriptor:
//
//	0  1  standing
//	1  …  4 or 6 and the address that the relay's link came from, or 0
//
// The address is told to the relay itself alone: to the one whose identity the
// link showed. The tracker does not keep it.
type Published struct {
	Standing Standing
	Seen     netip.Addr // zero: not told
}

// MaxPublished is the longest wire form, bytes.
const MaxPublished = 1 + 1 + 16

// Append appends p's wire form to b.
func (p Published) Append(b []byte) []byte {
	b = append(b, byte(p.Standing))
	if !p.Seen.IsValid() {
		return append(b, 0)
	}
	return appendIP(b, p.Seen)
}

// ParsePublished reads what Append wrote.
func ParsePublished(b []byte) (Published, error) {
	r := reader{b: b}
	p := Published{Standing: Standing(r.byte())}
	if _, ok := standings[p.Standing]; !ok {
		r.fail("directory: unknown %v", p.Standing)
	}
	if len(r.b) == 1 && r.b[0] == 0 {
		return p, r.err
	}
	p.Seen = r.ip()
	if p.Seen.Is4In6() || p.Seen.IsUnspecified() || p.Seen.IsMulticast() {
		r.fail("directory: seen at %v", p.Seen)
	}
	if r.end(); r.err != nil {
		return Published{}, r.err
	}
	return p, nil
}
