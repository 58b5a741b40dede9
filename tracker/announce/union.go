package announce

import "time"

// Union is what a member knows of the other members of its swarm, from all
// trackers, days and gossip together. Two records may claim the same E: only
// the one who holds its private half completes a handshake, so a caller who
// dials E tries the meeting relays of each. The zero value is no Union: see
// NewUnion. It is for one goroutine at a time.
type Union struct {
	own     map[[32]byte]bool
	max     int
	records map[[32]byte]Record // by S
}

// NewUnion returns an empty union of at most max records that skips those
// signed by own: this week's S of the reader itself, and last week's.
func NewUnion(max int, own ...[32]byte) *Union {
	u := &Union{own: make(map[[32]byte]bool), max: max, records: make(map[[32]byte]Record)}
	for _, s := range own {
		u.own[s] = true
	}
	return u
}

// Skip makes u skip s too, the reader's in a new week.
func (u *Union) Skip(s [32]byte) { u.own[s] = true }

// Add takes r, from OpenRecord, and reports whether it told anything new: a
// member not known before, or a greater sequence of one that is. Of equal
// sequences, which differ by where they were published, the later expiry stays
// and is no news.
func (u *Union) Add(r Record) bool {
	if u.own[r.S] {
		return false
	}
	old, known := u.records[r.S]
	switch {
	case !known && len(u.records) >= u.max:
		return false
	case !known, r.Sequence > old.Sequence:
		u.records[r.S] = r
		return true
	case r.Sequence == old.Sequence && r.Expiry > old.Expiry:
		u.records[r.S] = r
	}
	return false
}

// Expire forgets the records that ended.
func (u *Union) Expire(now time.Time) {
	for s, r := range u.records {
		if r.Expiry <= now.Unix() {
			delete(u.records, s)
		}
	}
}

// Knows reports whether a record claims e.
func (u *Union) Knows(e [32]byte) bool {
	for _, r := range u.records {
		if r.E == e {
			return true
		}
	}
	return false
}

// Len returns how many members are known.
func (u *Union) Len() int { return len(u.records) }

// Records returns what is known, in no order. The caller owns the slice, not
// what its Meetings point to.
func (u *Union) Records() []Record {
	rs := make([]Record, 0, len(u.records))
	for _, r := range u.records {
		rs = append(rs, r)
	}
	return rs
}
