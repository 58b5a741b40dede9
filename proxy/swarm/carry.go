package swarm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/tracker/announce"
)

// What one sidecar tells another in a GOSSIP, rumourSize bytes:
//
//	  0 626  a record, as its owner published it at a tracker
//	626  32  that tracker
//	658   4  and the day, big endian
const rumourSize = announce.OuterSize + 32 + 4

const (
	gossipHour  = 20  // records per peer and hour, each way
	gossipFirst = 8   // of these, such as were known when the first stream began; the others are for news
	maxCarried  = 128 // records that a member can pass on
	maxTalks    = 256 // peers whom it remembers what it told

	renewGossip = recordLife / 3   // a record that ends sooner is told again when a later one is known
	tooLate     = 10 * time.Minute // a record that ends sooner isn't told at all
)

// rumour is a record that can be passed on.
type rumour struct {
	outer  announce.Outer
	record announce.Record
	sum    [32]byte // of what a peer wants to know of it
	met    bool     // the one who signed it has proven its E to this member
	since  time.Time
}

func newRumour(o announce.Outer, r announce.Record, met bool) *rumour {
	places := make([][]byte, len(r.Meetings))
	for i, at := range r.Meetings {
		places[i] = append(append([]byte(nil), at.Relay[:]...), at.R[:]...)
	}
	slices.SortFunc(places, bytes.Compare)
	all := append(bytes.Join(places, nil), r.E[:]...)
	if r.Seeder {
		all = append(all, 1)
	}
	return &rumour{outer: o, record: r, sum: sha256.Sum256(all), met: met, since: time.Now()}
}

// append appends the wire form to b.
func (r *rumour) append(b []byte) []byte {
	b = r.outer.Append(b)
	b = append(b, r.record.Tracker[:]...)
	return binary.BigEndian.AppendUint32(b, uint32(r.record.Day))
}

// parseRumour reads what append wrote. The record is as yet anyone's.
func parseRumour(b []byte) (o announce.Outer, tracker [32]byte, day announce.Day, err error) {
	if len(b) != rumourSize {
		return o, tracker, 0, fmt.Errorf("swarm: gossip of %d bytes, want %d", len(b), rumourSize)
	}
	if o, err = announce.ParseOuter(b[:announce.OuterSize]); err != nil {
		return o, tracker, 0, err
	}
	copy(tracker[:], b[announce.OuterSize:])
	return o, tracker, announce.Day(binary.BigEndian.Uint32(b[announce.OuterSize+32:])), nil
}

// carrier decides which records go to whom. It is for one goroutine at a time.
type carrier struct {
	own   *rumour // as published last; nil: none
	known map[[32]byte]*rumour
	talks map[Key]*talk
	skip  [][32]byte // own S: nothing of these is known
}

func newCarrier(skip ...[32]byte) *carrier {
	return &carrier{known: make(map[[32]byte]*rumour), talks: make(map[Key]*talk), skip: skip}
}

// carry keeps a record that OpenRecord returned, and reports whether peers may
// want to hear of it: its owner is met, and it says something new.
func (c *carrier) carry(r *rumour) (news bool) {
	s := r.record.S
	if slices.Contains(c.skip, s) {
		return false
	}
	old := c.known[s]
	if old != nil {
		r.met = r.met || old.met && old.record.E == r.record.E
		if r.record.Sequence <= old.record.Sequence {
			news = r.met && !old.met && r.sum == old.sum
			if news {
				old.met, old.since = true, r.since
			}
			return news
		}
		if r.sum == old.sum && old.met {
			r.since = old.since
		}
	} else if len(c.known) >= maxCarried && !c.evict(r.met) {
		return false
	}
	c.known[s] = r
	return r.met && (old == nil || !old.met || r.sum != old.sum)
}

// evict makes room: someone not met goes, or else, if hard, anyone.
func (c *carrier) evict(hard bool) bool {
	var any [32]byte
	for s, r := range c.known { // in no order
		if !r.met {
			delete(c.known, s)
			return true
		}
		any = s
	}
	if hard {
		delete(c.known, any)
	}
	return hard
}

// meet notes that the signer of r has proven its E.
func (c *carrier) meet(r announce.Record) (news bool) {
	known := c.known[r.S]
	if known == nil || known.met || known.record.E != r.E {
		return false
	}
	known.met, known.since = true, time.Now()
	return true
}

// expire forgets records that have ended, and peers that nothing is open to
// and nothing was said to for an hour.
func (c *carrier) expire(now time.Time) {
	for s, r := range c.known {
		if r.outer.Expired(now) {
			delete(c.known, s)
		}
	}
	for k, t := range c.talks {
		if t.streams == 0 && t.sent.count(now)+t.heard.count(now) == 0 {
			delete(c.talks, k)
		}
	}
}

// begin opens a talk with a peer whose stream has begun; nil when there are
// too many.
func (c *carrier) begin(peer Key, now time.Time) *talk {
	t := c.talks[peer]
	if t == nil {
		if len(c.talks) >= maxTalks {
			return nil
		}
		t = &talk{peer: peer, told: make(map[[32]byte]note), began: now}
		c.talks[peer] = t
	}
	t.streams++
	return t
}

// next returns what to tell next, own record first, and counts it; or nil.
func (c *carrier) next(t *talk, now time.Time) *rumour {
	if !t.sent.may(now) {
		return nil
	}
	pick := (*rumour)(nil)
	if c.own != nil && t.lacks(c.own, now) {
		pick = c.own
	} else {
		var all []*rumour
		for _, r := range c.known {
			late := r.since.After(t.began) || t.sent.count(now) < gossipFirst
			if r.met && late && r.record.E != t.peer && t.lacks(r, now) {
				all = append(all, r)
			}
		}
		if len(all) > 0 {
			pick = all[rand.IntN(len(all))]
		}
	}
	if pick != nil {
		t.sent.add(now)
	}
	return pick
}

// talk is what was said to one peer and heard from it.
type talk struct {
	peer        Key
	began       time.Time
	streams     int // open
	sent, heard hourly
	told        map[[32]byte]note // by S: what the peer knows, by this member or from it
}

// note is which record of somebody a peer knows.
type note struct {
	sequence uint64
	expiry   int64
	sum      [32]byte
}

// lacks reports whether the peer should hear of r.
func (t *talk) lacks(r *rumour, now time.Time) bool {
	ends := time.Unix(r.record.Expiry, 0)
	if ends.Sub(now) < tooLate {
		return false
	}
	old, ok := t.told[r.record.S]
	switch {
	case !ok:
		return true
	case r.record.Sequence <= old.sequence:
		return false
	case r.sum != old.sum:
		return true
	}
	had := time.Unix(old.expiry, 0)
	return had.Sub(now) < renewGossip && ends.Sub(had) > tooLate
}

// tell notes that the peer knows r.
func (t *talk) tell(r *rumour) {
	if old, ok := t.told[r.record.S]; ok && old.sequence >= r.record.Sequence {
		return
	}
	if len(t.told) >= 2*maxCarried { // one may hear something twice then
		for s := range t.told {
			delete(t.told, s)
			break
		}
	}
	t.told[r.record.S] = note{r.record.Sequence, r.record.Expiry, r.sum}
}

// hourly lets gossipHour things happen within any hour.
type hourly struct {
	times [gossipHour]int64 // seconds since 1970
	next  int
}

func (h *hourly) may(now time.Time) bool { return now.Unix()-h.times[h.next] >= 3600 }

func (h *hourly) add(now time.Time) {
	h.times[h.next] = now.Unix()
	h.next = (h.next + 1) % gossipHour
}

// count returns how often it happened within the last hour.
func (h *hourly) count(now time.Time) (n int) {
	for _, t := range h.times {
		if now.Unix()-t < 3600 {
			n++
		}
	}
	return n
}
