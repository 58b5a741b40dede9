package swarm

import (
	"bytes"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/tracker/announce"
)

// made returns a record that somebody might have signed.
func made(n byte, sequence uint64, met bool) *rumour {
	r := announce.Record{S: [32]byte{n, 1}, E: [32]byte{n, 2}, Sequence: sequence,
		Expiry: time.Now().Add(recordLife).Unix(), Meetings: []announce.Meeting{{Relay: [32]byte{n}}}}
	return newRumour(announce.Outer{Expiry: r.Expiry}, r, met)
}

func TestAPeerIsToldTwentyRecordsAnHourAndNoneTwice(t *testing.T) {
	c, now := newCarrier(), time.Now()
	talk := c.begin(Key{200}, now.Add(-time.Second))
	c.own = made(100, 1, true)
	for n := range byte(60) {
		c.carry(made(n, 1, n%4 != 0))
	}
	told := make(map[[32]byte]bool)
	for r := c.next(talk, now); r != nil; r = c.next(talk, now) {
		switch {
		case len(told) == 0 && r != c.own:
			t.Error("its own record is not the first")
		case !r.met:
			t.Error("told of somebody whom it has not met")
		case told[r.record.S]:
			t.Error("told twice")
		}
		told[r.record.S] = true
		talk.tell(r)
	}
	if len(told) != gossipHour {
		t.Errorf("told %d records, want %d", len(told), gossipHour)
	}
	if c.next(talk, now.Add(59*time.Minute)) != nil {
		t.Error("told one more within the hour")
	}
}

func TestWhatWasKnownBeforeLeavesRoomForNews(t *testing.T) {
	c, now := newCarrier(), time.Now()
	for n := range byte(60) {
		c.carry(made(n, 1, true))
	}
	talk := c.begin(Key{200}, now.Add(time.Second))
	n := 0
	for r := c.next(talk, now); r != nil; r = c.next(talk, now) {
		talk.tell(r)
		n++
	}
	if n != gossipFirst {
		t.Errorf("told %d records, want %d", n, gossipFirst)
	}
}

func TestAPeerIsNotToldItsOwnRecordNorWhatItSaid(t *testing.T) {
	c, now := newCarrier(), time.Now()
	mine, his, third := made(1, 1, true), made(2, 1, true), made(3, 1, true)
	talk := c.begin(Key(his.record.E), now)
	c.carry(his)
	c.carry(third)
	talk.tell(third) // it came from there
	if r := c.next(talk, now); r != nil {
		t.Error("told what the peer knows")
	}
	c.own = mine
	if c.next(talk, now) != mine {
		t.Error("not told of the member itself")
	}
}

func TestARecordIsToldAgainWhenItsMeetingsChangeOrItEnds(t *testing.T) {
	c, now := newCarrier(), time.Now()
	c.own = made(1, 1, true)
	talk := c.begin(Key{2}, now)
	talk.tell(c.own)
	c.own = made(1, 2, true)
	if c.next(talk, now) != nil {
		t.Error("told of a renewal that changes nothing")
	}
	moved := made(1, 3, true).record
	moved.Meetings = []announce.Meeting{{Relay: [32]byte{9}}}
	c.own = newRumour(announce.Outer{}, moved, true)
	if c.next(talk, now) == nil {
		t.Error("not told of other meeting relays")
	}
	talk.tell(c.own)
	later := moved
	later.Sequence, later.Expiry = 4, moved.Expiry+3600
	c.own = newRumour(announce.Outer{}, later, true)
	if c.next(talk, now) != nil || c.next(talk, now.Add(recordLife-renewGossip+time.Minute)) == nil {
		t.Error("a record is renewed too soon, or not before it ends")
	}
}

func TestWhatIsCarriedIsBounded(t *testing.T) {
	c := newCarrier([32]byte{7, 1})
	if c.carry(made(7, 1, true)) || len(c.known) != 0 {
		t.Error("carries its own record as another's")
	}
	for i := range 3 * maxCarried {
		r := made(0, 1, i < 10)
		r.record.S = [32]byte{byte(i), byte(i >> 8), 3}
		c.carry(r)
	}
	met := 0
	for _, r := range c.known {
		if r.met {
			met++
		}
	}
	if len(c.known) > maxCarried || met != 10 {
		t.Errorf("carries %d records, %d of members that it met", len(c.known), met)
	}
	for i := range 2 * maxTalks {
		c.begin(Key{byte(i), byte(i >> 8)}, time.Now())
	}
	if len(c.talks) != maxTalks {
		t.Errorf("%d talks", len(c.talks))
	}
}

// TestAnotherKeyIsNotTheOneThatWasMet: the proof was for E.
func TestAnotherKeyIsNotTheOneThatWasMet(t *testing.T) {
	c := newCarrier()
	c.carry(made(1, 1, true))
	other := made(1, 2, false)
	other.record.E = [32]byte{99}
	if c.carry(other) || c.known[other.record.S].met {
		t.Error("a record with another E counts as met")
	}
}

func FuzzParseRumour(f *testing.F) {
	good := made(1, 1, true).append(nil)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		o, tracker, day, err := parseRumour(b)
		if err != nil {
			return
		}
		r := rumour{outer: o, record: announce.Record{Tracker: tracker, Day: day}}
		if got := r.append(nil); !bytes.Equal(got, b) {
			t.Errorf("%x came back as %x", b, got)
		}
	})
}

func TestEveryPrefixOfARumourIsRefused(t *testing.T) {
	good := made(1, 1, true).append(nil)
	for i := range good {
		if _, _, _, err := parseRumour(good[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes", i, len(good))
		}
	}
}
