package announce

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden vectors anew")

func sign(m *Member, plain []byte) []byte {
	return ed25519.Sign(m.sign, recordMessage(m.infohash, plain))
}

func signOuter(key ed25519.PrivateKey, o *Outer) []byte {
	return ed25519.Sign(key, o.signed(Name(testHash, testTracker, testDay())))
}

// golden is everything this package puts on the wire for fixed keys: the weekly
// secret is 32 times 01, the nonce 24 times 40, the rest as in announce_test.go.
func golden() []vector {
	m := testMember(1)
	day := testDay()
	r := testRecord(m)
	key := m.TrackerKey(testTracker, day)
	r.S, r.E, r.T, r.Tracker, r.Day = m.S(), m.E(), public(key), testTracker, day
	plain := r.appendSigned(nil)
	plain = append(plain, sign(m, plain)...)
	plain = append(plain, make([]byte, recordSize-len(plain))...)
	o := Outer{T: r.T, Expiry: r.Expiry, Seeder: r.Seeder, Stamp: 0x0102030405060708}
	copy(o.Box[:nonceSize], bytes.Repeat([]byte{0x40}, nonceSize))
	o.sealWith(boxKey(testHash, day), plain)
	copy(o.Sig[:], signOuter(key, &o))

	name := Name(testHash, testTracker, day)
	confirm := filled(0x31)
	reg := SignRegister(m, testRelays[0], confirm, day)
	token := Token(reg.R, testRelays[0], day)
	request := Request{Name: name, Outer: &o, NumWant: 30}
	withdrawal := Request{Name: name, Withdraw: Withdraw(m, testTracker, day)}
	answer := Answer{Interval: 20 * time.Minute, Seeders: 3, Leechers: 4, StampBits: 12, Records: []Outer{o}}
	e := m.E()
	return []vector{
		{"info-hash", testHash[:]},
		{"tracker", testTracker[:]},
		{"day, as the swarm counts at 2026-05-13 12:00 UTC", day.bytes()},
		{"offset of the swarm's day, seconds", []byte(fmt.Sprint(dayOffset(testHash)))},
		{"S", r.S[:]},
		{"E", e[:]},
		{"T", r.T[:]},
		{"R for relay 2121…", reg.R[:]},
		{"name", name[:]},
		{"key of the box", boxKey(testHash, day)},
		{"inside of the box", plain},
		{"record as the tracker stores it", o.Append(nil)},
		{"REQUEST that stores it", request.Append(nil)},
		{"REQUEST that withdraws it", withdrawal.Append(nil)},
		{"ANSWER that hands it out", answer.Append(nil)},
		{"REGISTER at relay 2121…, confirm 3131…", reg.Append(nil)},
		{"token of that registration", token[:]},
		{"prologue of a stream to it", Prologue(testHash, testRelays[0], token)},
	}
}

type vector struct {
	what  string
	bytes []byte
}

func TestGoldenVectorsHold(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Vectors of package announce. Layouts: its package comment. Hex, but for the offset.\n")
	for _, v := range golden() {
		fmt.Fprintf(&b, "\n# %s\n", v.what)
		if strings.HasPrefix(v.what, "offset") {
			fmt.Fprintf(&b, "%s\n", v.bytes)
			continue
		}
		for line := range bytesChunks(v.bytes, 32) {
			fmt.Fprintf(&b, "%s\n", hex.EncodeToString(line))
		}
	}
	const file = "testdata/announce.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		t.Errorf("the wire changed; run with -update if that is meant and say so in docs/protocol.md:\n%s", got)
	}
}

func TestGoldenRecordOpens(t *testing.T) {
	for _, v := range golden() {
		if v.what != "record as the tracker stores it" {
			continue
		}
		o, err := ParseOuter(v.bytes)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := OpenRecord(testHash, testTracker, testDay(), &o, testNow); err != nil || r.Sequence != 7 {
			t.Errorf("OpenRecord: sequence %d, %v", r.Sequence, err)
		}
	}
}

func bytesChunks(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(b[:k]) {
				return
			}
			b = b[k:]
		}
	}
}
