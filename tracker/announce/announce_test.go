package announce

import (
	"bytes"
	"context"
	"encoding/hex"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

var (
	testHash    = [20]byte([]byte("a torrent's 20 bytes"))
	otherHash   = [20]byte([]byte("another's 20 bytes.."))
	testTracker = filled(0x11)
	testRelays  = []onion.ID{onion.ID(filled(0x21)), onion.ID(filled(0x22)), onion.ID(filled(0x23))}
	testNow     = time.Date(2026, 5, 13, 12, 0, 0, 0, time.UTC)
)

func filled(b byte) (k [32]byte) {
	copy(k[:], bytes.Repeat([]byte{b}, 32))
	return k
}

func testMember(b byte) *Member { return newMember(filled(b), testHash) }

// testRecord is what m might publish at testNow under testDay.
func testRecord(m *Member) Record {
	r := Record{Sequence: 7, Expiry: testNow.Add(time.Hour).Unix(), Seeder: true}
	for _, relay := range testRelays {
		r.Meetings = append(r.Meetings, m.Meeting(relay, testDay()))
	}
	return r
}

func testDay() Day { return Days(testHash, testNow)[0] }

func testOuter(t testing.TB, m *Member) Outer {
	t.Helper()
	o, err := Seal(m, testTracker, testDay(), testRecord(m), 0)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestMemberReadsWhatAnotherSealed(t *testing.T) {
	m := testMember(1)
	o := testOuter(t, m)
	got, err := OpenRecord(testHash, testTracker, testDay(), &o, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if got.S != m.S() || got.E != m.E() || got.Sequence != 7 || !got.Seeder || len(got.Meetings) != 3 {
		t.Errorf("opened another record than was sealed")
	}
	for i, meeting := range got.Meetings {
		if meeting != m.Meeting(testRelays[i], testDay()) {
			t.Errorf("meeting %d differs", i)
		}
	}
}

func TestRecordWithEachNumberOfMeetingRelaysRoundTrips(t *testing.T) {
	m := testMember(1)
	for n := range MaxMeetings + 2 {
		r := testRecord(m)
		for len(r.Meetings) < n {
			r.Meetings = append(r.Meetings, Meeting{Relay: onion.ID(filled(byte(len(r.Meetings))))})
		}
		r.Meetings = r.Meetings[:n]
		o, err := Seal(m, testTracker, testDay(), r, 0)
		if want := n >= 1 && n <= MaxMeetings; (err == nil) != want {
			t.Errorf("Seal with %d meeting relays: %v", n, err)
		}
		if err != nil {
			continue
		}
		if got, err := OpenRecord(testHash, testTracker, testDay(), &o, testNow); err != nil || len(got.Meetings) != n {
			t.Errorf("OpenRecord with %d meeting relays: %d, %v", n, len(got.Meetings), err)
		}
	}
}

func TestRecordIsRefusedInAnotherPlace(t *testing.T) {
	o := testOuter(t, testMember(1))
	for name, open := range map[string]func() (Record, error){
		"swarm":   func() (Record, error) { return OpenRecord(otherHash, testTracker, testDay(), &o, testNow) },
		"tracker": func() (Record, error) { return OpenRecord(testHash, filled(0x12), testDay(), &o, testNow) },
		"day":     func() (Record, error) { return OpenRecord(testHash, testTracker, testDay()+1, &o, testNow) },
		"later": func() (Record, error) {
			return OpenRecord(testHash, testTracker, testDay(), &o, testNow.Add(time.Hour))
		},
		"early": func() (Record, error) {
			return OpenRecord(testHash, testTracker, testDay(), &o, testNow.Add(-MaxLifetime))
		},
	} {
		if _, err := open(); err == nil {
			t.Errorf("opened under another %s", name)
		}
	}
}

// resign is what a tracker, or a member who knows the torrent, could send with
// a record of its own making: change alters the record inside.
func forge(m *Member, change func(r *Record, o *Outer)) Outer {
	r := testRecord(m)
	key := m.TrackerKey(testTracker, testDay())
	r.S, r.E, r.T, r.Tracker, r.Day = m.S(), m.E(), public(key), testTracker, testDay()
	o := Outer{T: r.T, Expiry: r.Expiry, Seeder: r.Seeder}
	change(&r, &o)
	plain := r.appendSigned(nil)
	plain = append(plain, sign(m, plain)...)
	plain = append(plain, make([]byte, recordSize-len(plain))...)
	o.seal(boxKey(testHash, testDay()), plain)
	copy(o.Sig[:], signOuter(key, &o))
	return o
}

func TestForgedRecordsAreRefused(t *testing.T) {
	m, victim := testMember(1), testMember(2)
	for name, change := range map[string]func(r *Record, o *Outer){
		"nothing":                 func(r *Record, o *Outer) {},
		"another's S":             func(r *Record, o *Outer) { r.S = victim.S() },
		"another's T inside":      func(r *Record, o *Outer) { r.T = filled(9) },
		"another tracker inside":  func(r *Record, o *Outer) { r.Tracker = filled(9) },
		"another day inside":      func(r *Record, o *Outer) { r.Day++ },
		"another expiry inside":   func(r *Record, o *Outer) { r.Expiry++ },
		"seeder outside only":     func(r *Record, o *Outer) { r.Seeder = false },
		"E of low order":          func(r *Record, o *Outer) { r.E = [32]byte{} },
		"E of low order, one":     func(r *Record, o *Outer) { r.E = [32]byte{1} },
		"ends too late":           func(r *Record, o *Outer) { r.Expiry += 1e6; o.Expiry += 1e6 },
		"one meeting relay twice": func(r *Record, o *Outer) { r.Meetings[1] = r.Meetings[0] },
		"no meeting relay":        func(r *Record, o *Outer) { r.Meetings = nil },
	} {
		o := forge(m, change)
		_, err := OpenRecord(testHash, testTracker, testDay(), &o, testNow)
		if (err == nil) != (name == "nothing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryFlippedBitOfARecordIsRefused(t *testing.T) {
	o := testOuter(t, testMember(1))
	wire := o.Append(nil)
	for i := range wire {
		wire[i] ^= 1 << (i % 8)
		got, err := ParseOuter(wire)
		if err == nil {
			_, err = OpenRecord(testHash, testTracker, testDay(), &got, testNow)
		}
		if err == nil {
			t.Errorf("opened with bit %d of byte %d flipped", i%8, i)
		}
		wire[i] ^= 1 << (i % 8)
	}
}

func TestRecordsOfOneMemberShareNoBytesBetweenTrackersAndDays(t *testing.T) {
	m := testMember(1)
	seal := func(tracker [32]byte, day Day) Outer {
		o, err := Seal(m, tracker, day, testRecord(m), 0)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	a, b, c := seal(testTracker, 5), seal(filled(0x12), 5), seal(testTracker, 6)
	if a.T == b.T || a.T == c.T || b.T == c.T {
		t.Error("one T at two trackers or on two days")
	}
	if Name(testHash, testTracker, 5) == Name(testHash, filled(0x12), 5) || Name(testHash, testTracker, 5) == Name(testHash, testTracker, 6) {
		t.Error("one name at two trackers or on two days")
	}
	if a.Box == b.Box || a.Box == c.Box {
		t.Error("one box twice")
	}
}

func TestMembersOfTwoSwarmsShareNoKey(t *testing.T) {
	a, b := newMember(filled(1), testHash), newMember(filled(1), otherHash)
	if a.S() == b.S() || a.E() == b.E() || public(a.RelayKey(testRelays[0], 5)) == public(b.RelayKey(testRelays[0], 5)) {
		t.Error("two swarms see one key")
	}
}

func TestDayChangesOnceADayWithAnHourOfBoth(t *testing.T) {
	for i := range 50 {
		hash := [20]byte{byte(i)}
		both, changes, last := 0, 0, Day(0)
		start := time.Date(2026, 5, 13, 0, 0, 0, 0, time.UTC)
		today := dayOf(start)
		for minute := range 24 * 60 {
			days := Days(hash, start.Add(time.Duration(minute)*time.Minute))
			if len(days) == 2 {
				both++
				if days[0] != days[1]+1 {
					t.Fatalf("days %v do not follow one another", days)
				}
			}
			if last != 0 && days[0] != last {
				changes++
			}
			last = days[0]
			for _, d := range days {
				if d != today && d+1 != today {
					t.Fatalf("day %d in use on day %d: a relay would refuse it", d, today)
				}
			}
		}
		if both != 60 || changes != 1 {
			t.Fatalf("%d minutes of two days and %d changes, want 60 and 1", both, changes)
		}
	}
}

func TestDaysOfSwarmsChangeAtDifferentTimes(t *testing.T) {
	seen := map[uint32]bool{}
	for i := range 100 {
		seen[dayOffset([20]byte{byte(i)})] = true
	}
	if len(seen) < 95 {
		t.Errorf("100 swarms have %d offsets", len(seen))
	}
}

func TestRequestFitsTheEarlyBoxOfCreate(t *testing.T) {
	if n := cell.HeaderSize + 1 + MaxRequest; n > cell.EarlySize || MaxRequest > cell.MaxMessage-1 {
		t.Errorf("a request takes %d bytes, the early box has %d and a message %d", n, cell.EarlySize, cell.MaxMessage)
	}
}

func requests(t testing.TB) map[string]*Request {
	m := testMember(1)
	o := testOuter(t, m)
	name := Name(testHash, testTracker, testDay())
	return map[string]*Request{
		"asks":      {Name: name, NumWant: 50},
		"stores":    {Name: name, Outer: &o, NumWant: 30},
		"withdraws": {Name: name, Withdraw: Withdraw(m, testTracker, testDay())},
	}
}

func TestRequestRoundTripsAndEveryPrefixIsRefused(t *testing.T) {
	for what, r := range requests(t) {
		wire := r.Append(nil)
		if len(wire) > MaxRequest {
			t.Errorf("%s: %d bytes, at most %d", what, len(wire), MaxRequest)
		}
		got, err := ParseRequest(wire)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !bytes.Equal(got.Append(nil), wire) {
			t.Errorf("%s: round trip differs", what)
		}
		for i := range len(wire) {
			if _, err := ParseRequest(wire[:i]); err == nil {
				t.Errorf("%s: accepted %d of %d bytes", what, i, len(wire))
			}
		}
		if _, err := ParseRequest(append(wire, 0)); err == nil {
			t.Errorf("%s: accepted a byte too many", what)
		}
	}
}

func TestTrackerVerifiesWhatItStoresAndRemoves(t *testing.T) {
	r := requests(t)
	name := r["stores"].Name
	if err := r["stores"].Outer.Verify(name, testNow); err != nil {
		t.Error(err)
	}
	if err := r["withdraws"].Withdraw.Verify(name); err != nil {
		t.Error(err)
	}
	if r["stores"].Outer.Verify(filled(3), testNow) == nil || r["withdraws"].Withdraw.Verify(filled(3)) == nil {
		t.Error("accepted under another name")
	}
	forged := *r["withdraws"].Withdraw
	forged.T = filled(4)
	if forged.Verify(name) == nil {
		t.Error("accepted a withdrawal of another's record")
	}
}

func testAnswer(t testing.TB) *Answer {
	return &Answer{
		Status: StampNeeded, StampBits: 12, Interval: 20 * time.Minute, Seeders: 3, Leechers: 1 << 30,
		Records: []Outer{testOuter(t, testMember(1)), testOuter(t, testMember(2))},
	}
}

func TestAnswerRoundTripsAndEveryPrefixIsRefused(t *testing.T) {
	a := testAnswer(t)
	wire := a.Append(nil)
	got, err := ParseAnswer(wire)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Append(nil), wire) || got.Interval != a.Interval || len(got.Records) != 2 {
		t.Error("round trip differs")
	}
	for i := range len(wire) {
		if _, err := ParseAnswer(wire[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes", i, len(wire))
		}
	}
	if _, err := ParseAnswer(append(wire, 0)); err == nil {
		t.Error("accepted a byte too many")
	}
}

func TestAnswerBeyondItsBoundsIsRefused(t *testing.T) {
	for name, at := range map[string]struct {
		offset int
		bytes  []byte
	}{
		"status":   {0, []byte{4}},
		"stamp":    {1, []byte{MaxStampBits + 1}},
		"interval": {2, []byte{0xff, 0xff, 0xff, 0xff}},
		"records":  {14, []byte{MaxRecords + 1}},
	} {
		wire := testAnswer(t).Append(nil)
		copy(wire[at.offset:], at.bytes)
		if _, err := ParseAnswer(wire); err == nil {
			t.Errorf("accepted a %s beyond its bound", name)
		}
	}
}

func TestStampIsFoundAndHoldsForItsNameAndKeyAlone(t *testing.T) {
	name, key := filled(1), filled(2)
	stamp, err := Mint(context.Background(), name, key, 12)
	if err != nil {
		t.Fatal(err)
	}
	if !Check(name, key, stamp, 12) || !Check(name, key, stamp, 0) {
		t.Error("own stamp refused")
	}
	misses := 0
	for i := range 8 {
		if !Check(filled(byte(10+i)), key, stamp, 12) && !Check(name, filled(byte(10+i)), stamp, 12) {
			misses++
		}
	}
	if misses < 7 {
		t.Error("a stamp holds elsewhere too")
	}
}

func TestMintEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Mint(ctx, filled(1), filled(2), MaxStampBits); err != context.Canceled {
		t.Errorf("Mint = %v, want %v", err, context.Canceled)
	}
	if _, err := Mint(context.Background(), filled(1), filled(2), MaxStampBits+1); err == nil {
		t.Error("minted a stamp beyond the bound")
	}
}

func TestRegistrationHoldsForItsCircuitRelayAndDays(t *testing.T) {
	m, relay, confirm := testMember(1), testRelays[0], filled(0x31)
	today := dayOf(testNow)
	r := SignRegister(m, relay, confirm, today)
	token, err := VerifyRegister(r, relay, confirm, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if meeting := m.Meeting(relay, today); token != Token(meeting.R, meeting.Relay, today) {
		t.Error("visitors would ask for another token")
	}
	if _, err := VerifyRegister(r, relay, confirm, testNow.Add(24*time.Hour)); err != nil {
		t.Errorf("yesterday's: %v", err)
	}
	for name, verify := range map[string]func() ([32]byte, error){
		"circuit": func() ([32]byte, error) { return VerifyRegister(r, relay, filled(0x32), testNow) },
		"relay":   func() ([32]byte, error) { return VerifyRegister(r, testRelays[1], confirm, testNow) },
		"future":  func() ([32]byte, error) { return VerifyRegister(r, relay, confirm, testNow.Add(-24*time.Hour)) },
		"old":     func() ([32]byte, error) { return VerifyRegister(r, relay, confirm, testNow.Add(48*time.Hour)) },
	} {
		if _, err := verify(); err == nil {
			t.Errorf("registration holds for another %s", name)
		}
	}
	if end := RegistrationEnds(today); !testNow.Add(24*time.Hour).Before(end) || !end.Before(testNow.Add(48*time.Hour)) {
		t.Errorf("registration ends at %v", end)
	}
}

func TestRegistrationRoundTripsAndEveryPrefixIsRefused(t *testing.T) {
	r := SignRegister(testMember(1), testRelays[0], filled(0x31), 5)
	wire := r.Append(nil)
	if got, err := ParseRegister(wire); err != nil || got != r {
		t.Errorf("round trip differs: %v", err)
	}
	for i := range len(wire) {
		if _, err := ParseRegister(wire[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes", i, len(wire))
		}
	}
}

func TestPrologueBindsSwarmRelayAndToken(t *testing.T) {
	p := Prologue(testHash, testRelays[0], filled(1))
	for _, other := range [][]byte{
		Prologue(otherHash, testRelays[0], filled(1)),
		Prologue(testHash, testRelays[1], filled(1)),
		Prologue(testHash, testRelays[0], filled(2)),
	} {
		if bytes.Equal(p, other) {
			t.Error("two prologues are equal")
		}
	}
	if bytes.Contains(p, testHash[:]) {
		t.Error("the prologue holds the info-hash")
	}
}

func TestUnionKeepsTheGreatestSequenceAndSkipsItsOwn(t *testing.T) {
	own, a, b := filled(1), filled(2), filled(3)
	u := NewUnion(2, own)
	for i, step := range []struct {
		record Record
		news   bool
	}{
		{Record{S: own, Sequence: 9, Expiry: 100}, false},
		{Record{S: a, Sequence: 5, Expiry: 100}, true},
		{Record{S: a, Sequence: 4, Expiry: 900}, false},
		{Record{S: a, Sequence: 5, Expiry: 200}, false},
		{Record{S: a, Sequence: 6, Expiry: 150}, true},
		{Record{S: b, Sequence: 1, Expiry: 300}, true},
		{Record{S: filled(4), Sequence: 1, Expiry: 300}, false}, // no room
	} {
		if got := u.Add(step.record); got != step.news {
			t.Errorf("step %d: Add = %v, want %v", i, got, step.news)
		}
	}
	if u.Len() != 2 || u.records[a].Sequence != 6 {
		t.Errorf("%d records, sequence %d", u.Len(), u.records[a].Sequence)
	}
	u.Expire(time.Unix(150, 0))
	if rs := u.Records(); len(rs) != 1 || rs[0].S != b {
		t.Errorf("after expiry %d records", len(rs))
	}
}

func TestNothingPrintsAKeyOrATorrent(t *testing.T) {
	m := testMember(1)
	if s := m.String() + testRecord(m).String() + newSecret(testNow).String(); s != "(member)(record)(secret)" {
		t.Errorf("printed %q", s)
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, r := range requests(f) {
		f.Add(r.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err == nil && !bytes.Equal(r.Append(nil), b) {
			t.Errorf("ParseRequest accepts what Append would not write: %s", hex.EncodeToString(b))
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	f.Add(testAnswer(f).Append(nil))
	f.Add((&Answer{}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAnswer(b)
		if err == nil && !bytes.Equal(a.Append(nil), b) {
			t.Error("ParseAnswer accepts what Append would not write")
		}
	})
}

func FuzzParseRegister(f *testing.F) {
	f.Add(SignRegister(testMember(1), testRelays[0], filled(0x31), 5).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRegister(b)
		if err == nil && !bytes.Equal(r.Append(nil), b) {
			t.Error("ParseRegister accepts what Append would not write")
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	m := testMember(1)
	r := testRecord(m)
	plain := r.appendSigned(nil)
	f.Add(append(plain, make([]byte, recordSize-len(plain))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, sig, err := parseRecord(b)
		if err != nil {
			return
		}
		again := append(r.appendSigned(nil), sig...)
		if again = append(again, make([]byte, recordSize-len(again))...); !bytes.Equal(again, b) {
			t.Error("parseRecord accepts what Seal would not write")
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	m := testMember(1)
	for b.Loop() {
		testOuter(b, m)
	}
}

func BenchmarkOpenRecord(b *testing.B) {
	o := testOuter(b, testMember(1))
	for b.Loop() {
		if _, err := OpenRecord(testHash, testTracker, testDay(), &o, testNow); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOuterVerify(b *testing.B) {
	o := testOuter(b, testMember(1))
	name := Name(testHash, testTracker, testDay())
	for b.Loop() {
		if err := o.Verify(name, testNow); err != nil {
			b.Fatal(err)
		}
	}
}
