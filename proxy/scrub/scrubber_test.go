package scrub

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

var (
	testHash    = swarm.Hash([]byte("an info-hash of this"))
	testConfig  = Config{Hash: testHash, Self: PeerID([32]byte{1}), Peer: PeerID([32]byte{2})}
	allReserved = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// hello writes a handshake.
func hello(hash swarm.Hash, reserved [8]byte, id ID) []byte {
	b := append([]byte(protocol), reserved[:]...)
	b = append(b, hash[:]...)
	return append(b, id[:]...)
}

// message writes a message.
func message(id byte, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(body)))
	return append(append(b, id), body...)
}

func extendedMessage(number byte, body string) []byte {
	return message(msgExtended, string([]byte{number})+body)
}

// pair returns both directions after their handshakes; the receiver of out
// takes ut_metadata as 3, that of in as 5.
func pair(t testing.TB) (out, in *Scrubber) {
	t.Helper()
	out, in = NewPair(testConfig)
	for s, m := range map[*Scrubber]string{out: "d1:md11:ut_metadatai5eee", in: "d1:md11:ut_metadatai3eee"} {
		if _, err := s.Feed(append(hello(testHash, allReserved, ID{}), extendedMessage(0, m)...)); err != nil {
			t.Fatal(err)
		}
	}
	return out, in
}

func TestTheFarSideSeesNoMoreThanTheTableSays(t *testing.T) {
	ext := func(body string) string { return string(extendedMessage(0, body)) }
	const rest = "4:reqqi500e11:upload_onlyi0ee"
	const m = "d1:md11:ut_metadatai1ee"
	same := "\x00same"
	for _, row := range []struct{ name, sent, seen string }{
		{"keep-alive", "\x00\x00\x00\x00", same},
		{"choke", string(message(0, "")), same},
		{"unchoke", string(message(1, "")), same},
		{"interested", string(message(2, "")), same},
		{"not interested", string(message(3, "")), same},
		{"have", string(message(4, "\x00\x00\x00\x07")), same},
		{"bitfield", string(message(5, strings.Repeat("\xff", 1000))), same},
		{"request", string(message(6, "\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x40\x00")), same},
		{"piece, asked for or not", string(message(7, "\x00\x00\x00\x07\x00\x00\x00\x00data")), same},
		{"cancel", string(message(8, "\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x40\x00")), same},
		{"PORT", string(message(9, "\x1a\xe1")), ""},
		{"PORT of an odd length", string(message(9, "\x1a\xe1port 6881")), ""},
		{"suggest", string(message(13, "\x00\x00\x00\x07")), same},
		{"have all", string(message(14, "")), same},
		{"have none", string(message(15, "")), same},
		{"reject", string(message(16, "\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x40\x00")), same},
		{"allowed fast, computed from an address", string(message(17, "\x00\x00\x00\x07")), ""},
		{"hash request", string(message(21, strings.Repeat("h", 48))), same},
		{"hashes", string(message(22, strings.Repeat("h", 4096))), same},
		{"hash reject", string(message(23, strings.Repeat("h", 48))), same},
		{"an unknown message", string(message(99, "who knows")), same},

		{"ut_metadata request", string(extendedMessage(1, "d8:msg_typei0e5:piecei2ee")), string(extendedMessage(3, "d8:msg_typei0e5:piecei2ee"))},
		{"ut_metadata data", string(extendedMessage(1, "d8:msg_typei1e5:piecei2e10:total_sizei9eedata")), string(extendedMessage(3, "d8:msg_typei1e5:piecei2e10:total_sizei9eedata"))},
		{"ut_metadata reject", string(extendedMessage(1, "d8:msg_typei2e5:piecei2ee")), string(extendedMessage(3, "d8:msg_typei2e5:piecei2ee"))},
		{"ut_metadata with other keys, out of order", string(extendedMessage(1, "d5:piecei2e8:msg_typei0e1:v9:Client 1.e")), string(extendedMessage(3, "d8:msg_typei0e5:piecei2ee"))},
		{"ut_metadata with something behind a request", string(extendedMessage(1, "d8:msg_typei0e5:piecei2eeClient 1")), string(extendedMessage(3, "d8:msg_typei0e5:piecei2ee"))},
		{"ut_metadata of an unknown type", string(extendedMessage(1, "d8:msg_typei9e5:piecei2eeClient 1")), ""},
		{"ut_metadata without a piece", string(extendedMessage(1, "d8:msg_typei0ee")), ""},
		{"ut_metadata that is no dictionary", string(extendedMessage(1, "i7e")), ""},
		{"ut_metadata that is too long", string(extendedMessage(1, "d8:msg_typei1e5:piecei2ee"+strings.Repeat("x", maxMetadata))), ""},
		{"ut_pex by its usual number elsewhere", string(extendedMessage(2, "d5:added6:\x01\x02\x03\x04\x1a\xe1e")), ""},
		{"ut_pex by the number of ut_metadata", string(extendedMessage(1, "d5:added6:\x01\x02\x03\x04\x1a\xe1e")), ""},
		{"ut_holepunch", string(extendedMessage(4, "\x00\x00\x01\x02\x03\x04\x1a\xe1")), ""},
		{"lt_donthave", string(extendedMessage(7, "\x00\x00\x00\x07")), ""},
		{"the receiver's own number, which was never shown", string(extendedMessage(3, "d8:msg_typei0e5:piecei2ee")), ""},
		{"an extended message without a number", string(message(20, "")), ""},
		{"an extended message without a body", string(extendedMessage(1, "")), ""},

		{"extended handshake", ext(m + "e"), ext(m + rest)},
		{"v", ext(m + "1:v17:qBittorrent/4.5.2e"), ext(m + rest)},
		{"p", ext(m + "1:pi6881ee"), ext(m + rest)},
		{"yourip", ext(m + "6:yourip4:\x01\x02\x03\x04e"), ext(m + rest)},
		{"ipv4 and ipv6", ext("d4:ipv44:\x01\x02\x03\x044:ipv616:0123456789abcdef" + m[1:] + "e"), ext(m + rest)},
		{"complete_ago, e, share_mode", ext("d12:complete_agoi-1e1:ei1e" + m[1:] + "10:share_modei1ee"), ext(m + rest)},
		{"an unknown key with depth", ext(m + "1:xd1:yl1:zi1eeee"), ext(m + rest)},
		{"m of libtorrent", ext("d1:md11:lt_donthavei7e10:share_modei8e11:upload_onlyi3e12:ut_holepunchi4e11:ut_metadatai2e6:ut_pexi1eee"), ext(m + rest)},
		{"metadata_size", ext(m + "13:metadata_sizei31337ee"), ext(m + "13:metadata_sizei31337e" + rest)},
		{"metadata_size below zero", ext(m + "13:metadata_sizei-5ee"), ext(m + rest)},
		{"metadata_size beyond reason", ext(m + "13:metadata_sizei99999999999ee"), ext(m + rest)},
		{"metadata_size beyond int64", ext(m + "13:metadata_sizei99999999999999999999ee"), ext(m + rest)},
		{"reqq of qBittorrent", ext(m + "4:reqqi2000ee"), ext(m + rest)},
		{"reqq of Transmission", ext(m + "4:reqqi512ee"), ext(m + rest)},
		{"reqq of BEP 10", ext(m + "4:reqqi250ee"), ext(m + "4:reqqi250e" + rest[11:])},
		{"reqq that is small", ext(m + "4:reqqi50ee"), ext(m + "4:reqqi32e" + rest[11:])},
		{"reqq of one", ext(m + "4:reqqi1ee"), ext(m + "4:reqqi1e" + rest[11:])},
		{"reqq of zero", ext(m + "4:reqqi0ee"), ext(m + rest)},
		{"reqq that is a string", ext(m + "4:reqq3:250e"), ext(m + rest)},
		{"upload_only", ext(m + "11:upload_onlyi1ee"), ext(m + rest[:11] + "11:upload_onlyi1ee")},
		{"upload_only of 7", ext(m + "11:upload_onlyi7ee"), ext(m + rest[:11] + "11:upload_onlyi1ee")},
		{"keys out of order, as some write them", ext("d4:reqqi300e" + m[1:] + "1:ai1ee"), ext(m + "4:reqqi250e" + rest[11:])},
		{"m without ut_metadata says nothing new", ext("d1:md6:ut_pexi1eee"), ext(m + rest)},
		{"ut_metadata taken back", ext("d1:md11:ut_metadatai0eee"), ext("d1:md11:ut_metadatai0ee" + rest)},
		{"ut_metadata beyond a byte", ext("d1:md11:ut_metadatai256eee"), ext(m + rest)},
		{"something behind the dictionary", ext(m + "eClient 1"), ext(m + rest)},
		{"an extended handshake that is not bencode", ext("Client 1"), ""},
		{"an extended handshake cut short", ext(m), ""},
		{"an extended handshake that nests too deep", ext(m + "1:x" + strings.Repeat("l", 50) + strings.Repeat("e", 51)), ""},
		{"an extended handshake that is too long", ext(m + fmt.Sprintf("1:x%d:%se", maxExtended, make([]byte, maxExtended))), ""},
	} {
		want := row.seen
		if want == same {
			want = row.sent
		}
		out, _ := pair(t)
		// What follows must come through whatever came before.
		after := string(message(4, "\x00\x00\x00\x09"))
		got, err := out.Feed([]byte(row.sent + after))
		if err != nil || string(got) != want+after {
			t.Errorf("%s: %q shows %q, %v, want %q", row.name, row.sent, got, err, want+after)
		}
	}
}

func TestTheHandshakeKeepsOnlyWhatWorksHere(t *testing.T) {
	for _, far := range []bool{false, true} {
		out, in := NewPair(testConfig)
		s, id := out, testConfig.Self
		if far {
			s, id = in, testConfig.Peer
		}
		own := ID([]byte("-qB4520-0123456789ab"))
		got, err := s.Feed(hello(testHash, allReserved, own))
		want := hello(testHash, [8]byte{5: 0x10, 7: 0x04}, id)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("far %v: Feed = %q, %v, want %q", far, got, err, want)
		}
	}
	out, _ := NewPair(testConfig)
	got, err := out.Feed(hello(testHash, [8]byte{}, ID{}))
	if want := hello(testHash, [8]byte{}, testConfig.Self); err != nil || !bytes.Equal(got, want) {
		t.Errorf("Feed = %q, %v, want %q: a bit that the client does not set stays unset", got, err, want)
	}
}

func TestNothingComesOutBeforeTheWholeHandshake(t *testing.T) {
	out, _ := NewPair(testConfig)
	wire := hello(testHash, allReserved, ID{})
	for i, b := range wire {
		got, err := out.Feed([]byte{b})
		if err != nil {
			t.Fatal(err)
		}
		if last := i == len(wire)-1; (len(got) > 0) != last || out.Greeted() != last {
			t.Fatalf("after %d bytes %d came out, Greeted() = %v", i+1, len(got), out.Greeted())
		}
	}
}

func TestBytesThatAreNoBitTorrentAreRefused(t *testing.T) {
	good := string(hello(testHash, allReserved, ID{}))
	for _, row := range []struct {
		name, sent string
		want       error
	}{
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", ErrNotBitTorrent},
		{"TLS", "\x16\x03\x01\x02\x00\x01", ErrNotBitTorrent},
		{"one wrong byte", "\x13BitTorrent Protocol", ErrNotBitTorrent},
		{"the first byte", "\x00", ErrNotBitTorrent},
		{"another torrent", string(hello([20]byte{1}, allReserved, ID{})), ErrWrongSwarm},
		{"another torrent, as soon as it shows", good[:hashAt] + "aN", ErrWrongSwarm},
		{"a message longer than any", good + "\x01\x00\x00\x01\x05", ErrNotBitTorrent},
		{"a length below zero", good + "\xff\xff\xff\xff", ErrNotBitTorrent},
		{"a second handshake", good + good, ErrNotBitTorrent},
	} {
		for _, in := range []bool{false, true} {
			s, far := NewPair(testConfig)
			if in {
				s = far
			}
			got, err := s.Feed([]byte(row.sent))
			if !errors.Is(err, row.want) || len(got) > 0 {
				t.Errorf("%s: Feed = %q, %v, want %v", row.name, got, err, row.want)
			}
			if got, err := s.Feed([]byte(good)); !errors.Is(err, row.want) || len(got) > 0 {
				t.Errorf("%s: Feed after the error = %q, %v, want %v", row.name, got, err, row.want)
			}
		}
	}
	out, _ := pair(t)
	if _, err := out.Feed(message(5, strings.Repeat("x", MaxMessage-1))); err != nil {
		t.Errorf("the longest bitfield: %v", err)
	}
}

// TestALateBitfieldBecomesHaves: aria2 sends one in place of several haves, and
// where it is shorter than a single one.
func TestALateBitfieldBecomesHaves(t *testing.T) {
	haves := func(pieces ...uint32) (b []byte) {
		for _, p := range pieces {
			b = append(b, message(msgHave, string(binary.BigEndian.AppendUint32(nil, p)))...)
		}
		return b
	}
	out, in := pair(t)
	for _, s := range []*Scrubber{out, in} {
		for i, step := range []struct{ sent, seen []byte }{
			{message(msgBitfield, "\x00\x40"), message(msgBitfield, "\x00\x40")}, // as BEP 3 has it
			{message(2, ""), message(2, "")},
			{message(msgBitfield, "\x00\xc1"), haves(8, 9, 15)},
			{message(msgBitfield, "\x80\xc1"), haves(0)}, // the others were told
			{message(msgBitfield, "\x80\xc1"), nil},
			{message(msgBitfield, ""), nil},
			{message(msgBitfield, "\x00\x00\x01"), haves(23)},
			{message(msgBitfield, strings.Repeat("\xff", maxBitfield+1)), nil},
			{haves(3), haves(3)},
		} {
			got, err := feedAll(s, step.sent)
			if err != nil || !bytes.Equal(got, step.seen) {
				t.Errorf("step %d: %q, %v, want %q", i, got, err, step.seen)
			}
		}
	}

	// Without any before, as aria2 does when its first piece is whole.
	out, _ = pair(t)
	got, err := feedAll(out, slices.Concat(message(2, ""), message(msgBitfield, "\x10")))
	if want := slices.Concat(message(2, ""), haves(3)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

func TestNumbersFollowWhatEachSideAskedFor(t *testing.T) {
	out, in := NewPair(testConfig)
	feed := func(s *Scrubber, b []byte, want []byte) {
		t.Helper()
		got, err := s.Feed(b)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("Feed(%q) = %q, %v, want %q", b, got, err, want)
		}
	}
	const request = "d8:msg_typei0e5:piecei0ee"
	m := func(n int) []byte {
		return extendedMessage(0, fmt.Sprintf("d1:md11:ut_metadatai%dee4:reqqi500e11:upload_onlyi0ee", n))
	}
	ask := extendedMessage(1, request)
	for _, s := range []*Scrubber{out, in} {
		if _, err := s.Feed(hello(testHash, allReserved, ID{})); err != nil {
			t.Fatal(err)
		}
	}
	feed(in, ask, nil) // the client has said nothing yet
	feed(out, m(9), m(1))
	feed(in, ask, extendedMessage(9, request))
	feed(out, ask, nil) // nor has the far side
	feed(in, m(200), m(1))
	feed(out, ask, extendedMessage(200, request))
	feed(out, m(2), m(1)) // changed
	feed(in, ask, extendedMessage(2, request))
	feed(out, m(0), m(0)) // taken back
	feed(in, ask, nil)
	feed(out, m(4), m(1))
	feed(in, ask, extendedMessage(4, request))
}

func TestALaterHandshakePromisesNoMoreThanTheFirst(t *testing.T) {
	out, _ := NewPair(testConfig)
	if _, err := out.Feed(hello(testHash, allReserved, ID{})); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		said  string
		shown int
	}{{"d4:reqqi50ee", 32}, {"de", 32}, {"d4:reqqi0ee", 32}, {"d4:reqq3:500e", 32}, {"d4:reqqi400ee", 250}, {"d1:v1:ae", 250}} {
		got, err := out.Feed(extendedMessage(0, c.said))
		if want := extendedMessage(0, fmt.Sprintf("d1:mde4:reqqi%de11:upload_onlyi0ee", c.shown)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", c.said, got, err, want)
		}
	}
}

func TestExtendedHandshakesAreCounted(t *testing.T) {
	out, _ := NewPair(testConfig)
	if _, err := out.Feed(hello(testHash, allReserved, ID{})); err != nil {
		t.Fatal(err)
	}
	small := extendedMessage(0, "de")
	got, err := out.Feed(bytes.Repeat(small, 1000))
	if want := maxHandshakes * 100; err != nil || len(got) == 0 || len(got) > want {
		t.Errorf("1000 of %d bytes became %d, %v, want at most %d", len(small), len(got), err, want)
	}
}

// busyStream is a peer's bytes with everything in them.
func busyStream() []byte {
	b := hello(testHash, allReserved, ID([]byte("-XX0000-0123456789ab")))
	b = append(b, extendedMessage(0, "d1:md11:ut_metadatai2e6:ut_pexi1ee1:pi6881e4:reqqi2000e1:v6:Client6:yourip4:\x01\x02\x03\x04e")...)
	b = append(b, message(5, strings.Repeat("\xf0", 300))...)
	b = append(b, message(9, "\x1a\xe1")...)
	b = append(b, 0, 0, 0, 0)
	b = append(b, extendedMessage(1, "d8:msg_typei1e5:piecei0e10:total_sizei2000ee"+strings.Repeat("m", 2000))...)
	b = append(b, extendedMessage(2, "d5:added6:\x01\x02\x03\x04\x1a\xe1e")...)
	b = append(b, message(17, "\x00\x00\x00\x01")...)
	for i := range 5 {
		b = append(b, message(6, "\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x40\x00")...)
		b = append(b, message(7, strings.Repeat(string(rune('a'+i)), 700))...)
	}
	b = append(b, message(20, "")...)
	return append(b, message(99, "unknown")...)
}

func TestFeedingInPartsEqualsFeedingAtOnce(t *testing.T) {
	streams := [][]byte{busyStream()}
	for _, x := range transcripts(t) {
		sent := bytes.Clone(x.sent)
		copy(sent[hashAt:], testHash[:])
		streams = append(streams, sent)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, wire := range streams {
		run := func(next func() int) []byte {
			out, in := NewPair(testConfig)
			if _, err := in.Feed(append(hello(testHash, allReserved, ID{}), extendedMessage(0, "d1:md11:ut_metadatai3eee")...)); err != nil {
				t.Fatal(err)
			}
			var all []byte
			for rest := wire; len(rest) > 0; {
				n := min(next(), len(rest))
				part := bytes.Clone(rest[:n])
				got, err := out.Feed(part)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, got...)
				if !bytes.Equal(part, rest[:n]) {
					t.Fatal("Feed changed what it was fed")
				}
				clear(part) // nothing is kept of it
				rest = rest[n:]
			}
			return all
		}
		want := run(func() int { return len(wire) })
		if got := run(func() int { return 1 }); !bytes.Equal(got, want) {
			t.Errorf("byte by byte:\n%q\nat once:\n%q", got, want)
		}
		for range 200 {
			size := 1 + random.IntN(400)
			if got := run(func() int { return 1 + random.IntN(size) }); !bytes.Equal(got, want) {
				t.Fatalf("in parts up to %d:\n%q\nat once:\n%q", size, got, want)
			}
		}
	}
}

func TestEveryPrefixShowsAPrefix(t *testing.T) {
	wire := busyStream()
	whole, _ := NewPair(testConfig)
	want, err := feedAll(whole, wire)
	if err != nil {
		t.Fatal(err)
	}
	for i := range wire {
		out, _ := NewPair(testConfig)
		got, err := out.Feed(wire[:i])
		if err != nil || !bytes.HasPrefix(want, got) {
			t.Fatalf("the first %d bytes show %q, %v", i, got, err)
		}
	}
}

// pieces returns n piece messages of 16 KiB.
func pieces(n int) []byte {
	return bytes.Repeat(message(7, "\x00\x00\x00\x07\x00\x00\x00\x00"+strings.Repeat("x", 16<<10)), n)
}

func TestPiecesPassWithoutCopyOrAllocation(t *testing.T) {
	out, _ := pair(t)
	wire := pieces(8)
	got, err := out.Feed(wire)
	if err != nil || len(got) != len(wire) || &got[0] != &wire[0] {
		t.Fatalf("Feed returned %d of %d bytes, %v, want the very slice", len(got), len(wire), err)
	}
	at := 0
	allocs := testing.AllocsPerRun(200, func() {
		part := wire[at:min(len(wire), at+60_000)] // heads fall on the edges
		at = (at + len(part)) % len(wire)
		if _, err := out.Feed(part); err != nil {
			t.Fatal(err)
		}
	})
	if allocs >= 1 && !raceEnabled {
		t.Errorf("Feed allocates %v times", allocs)
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	out, _ := pair(t)
	for _, wire := range [][]byte{
		extendedMessage(0, "d1:x"+strings.Repeat("x", maxExtended)),
		extendedMessage(1, strings.Repeat("x", maxMetadata+1)),
		message(99, strings.Repeat("x", 1<<20)),
		extendedMessage(77, strings.Repeat("x", 1<<20)),
	} {
		for _, b := range wire {
			if _, err := out.Feed([]byte{b}); err != nil {
				t.Fatal(err)
			}
			if cap(out.body) > 2*maxExtended {
				t.Fatalf("%d bytes are kept", cap(out.body))
			}
		}
		if len(out.body) > 0 {
			t.Errorf("%d bytes are kept after the message", len(out.body))
		}
	}
}

func TestPeerIDsDifferByKeyAlone(t *testing.T) {
	a, b := PeerID([32]byte{1}), PeerID([32]byte{2})
	if a == b || a != PeerID([32]byte{1}) || a[0] != '-' || string(a[:8]) != string(b[:8]) {
		t.Errorf("PeerID gives %q and %q", a[:], b[:])
	}
	if got := string(a[:]); got != "-SH0000-YFvMOn3MbzC9" {
		t.Errorf("PeerID = %q: it changed, and with it how peers of older versions are told apart", got)
	}
	if fmt.Sprint(a) != "(peer)" {
		t.Errorf("an ID prints as %v", a)
	}
}
