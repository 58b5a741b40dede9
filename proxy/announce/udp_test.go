package announce

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// How a tracker is addressed: by name, IPv4 or IPv6.
var byName, byIPv4, byIPv6 = netip.Addr{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")

// connect returns the id that u gives to a client.
func connect(t testing.TB, u *UDP) uint64 {
	t.Helper()
	b := binary.BigEndian.AppendUint64(nil, magic)
	b = append(b, 0, 0, 0, actConnect, 1, 2, 3, 4)
	answer := u.Answer(t.Context(), b, byName)
	if len(answer) != 16 || string(answer[:8]) != "\x00\x00\x00\x00\x01\x02\x03\x04" {
		t.Fatalf("connect answered %x", answer)
	}
	return binary.BigEndian.Uint64(answer[8:])
}

// announcePacket is one without options.
func announcePacket(id uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, id)
	b = append(b, 0, 0, 0, actAnnounce, 5, 6, 7, 8)
	b = append(b, hash...)
	return append(b, make([]byte, announceSize-len(b))...)
}

func action(answer []byte) int {
	if len(answer) < 8 {
		return -1
	}
	return int(binary.BigEndian.Uint32(answer))
}

// TestAnyConnectionIDIsTaken: one of an earlier run of the sidecar, and one of
// an hour ago, from anywhere on this computer.
func TestAnyConnectionIDIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := NewUDP(twoPeers()), NewUDP(twoPeers())
		id := connect(t, first)
		time.Sleep(time.Hour)
		for name, id := range map[string]uint64{"its own": id, "another": 0x0102030405060708, "none": 0} {
			if got := action(second.Answer(t.Context(), announcePacket(id), byName)); got != actAnnounce {
				t.Errorf("%s: action %d, want %d", name, got, actAnnounce)
			}
		}
	})
}

func TestUDPFailuresAreTheSameWords(t *testing.T) {
	for err, text := range map[error]string{
		swarm.ErrNotReady:           TextNotReady,
		swarm.ErrNoTracker:          TextNoTracker,
		&Failure{Text: TextNoPeers}: TextNoPeers,
		context.DeadlineExceeded:    TextSlow,
	} {
		u := NewUDP(&fake{err: err})
		id := connect(t, u)
		answer := u.Answer(t.Context(), announcePacket(id), byName)
		if action(answer) != actError || string(answer[8:]) != text || string(answer[4:8]) != "\x05\x06\x07\x08" {
			t.Errorf("%v: answered %q, want %q", err, answer, text)
		}
		scrape := append(announcePacket(id)[:16], hash...)
		scrape[11] = actScrape
		if answer := u.Answer(t.Context(), scrape, byName); action(answer) != actError || string(answer[8:]) != text {
			t.Errorf("%v: scrape answered %q, want %q", err, answer, text)
		}
	}
}

func TestUDPEventsAndNumbersAreRead(t *testing.T) {
	h := twoPeers()
	u := NewUDP(h)
	id := connect(t, u)
	for wire, want := range []swarm.Event{swarm.None, swarm.Completed, swarm.Started, swarm.Stopped, swarm.None} {
		b := announcePacket(id)
		binary.BigEndian.PutUint32(b[80:], uint32(wire))
		binary.BigEndian.PutUint64(b[64:], 12345)
		binary.BigEndian.PutUint32(b[92:], 0xfffffff0)
		binary.BigEndian.PutUint16(b[96:], 6881)
		u.Answer(t.Context(), b, byName)
		if got := (Request{Hash: swarm.Hash([]byte(hash)), Port: 6881, Event: want, Left: 12345, NumWant: -1}); h.last != got {
			t.Errorf("event %d: %+v, want %+v", wire, h.last, got)
		}
	}
}

// TestEntriesHaveTheSizeOfTheTrackersAddress: a client reads 18 bytes for each
// peer from a tracker that it addressed as IPv6 (BEP 15).
func TestEntriesHaveTheSizeOfTheTrackersAddress(t *testing.T) {
	for to, want := range map[netip.Addr]int{byName: 3, byIPv4: 3, byIPv6: 0, netip.MustParseAddr("::ffff:192.0.2.1"): 0} {
		h := twoPeers()
		b := announcePacket(connection)
		binary.BigEndian.PutUint32(b[92:], 0xffffffff)
		answer := NewUDP(h).Answer(t.Context(), b, to)
		if action(answer) != actAnnounce || len(answer) != 20+6*want {
			t.Errorf("to %v: answered %x, want %d peers", to, answer, want)
		}
		if h.last.NoPeers != (want == 0) {
			t.Errorf("to %v: asked for %+v", to, h.last)
		}
	}
}

// TestAScrapeOfMoreIsAnsweredWithTheFirst74, which is what BEP 15 has room for.
func TestAScrapeOfMoreIsAnsweredWithTheFirst74(t *testing.T) {
	for asked, want := range map[int]int{1: 1, 74: 74, 75: 74, 100: 74} {
		for _, rest := range []int{0, 7} { // bytes of half a hash
			h := twoPeers()
			b := append(announcePacket(connection)[:headerSize], bytes.Repeat([]byte(hash), asked)...)
			b = append(b, make([]byte, rest)...)
			b[11] = actScrape
			answer := NewUDP(h).Answer(t.Context(), b, byName)
			if !IsUDP(b) || action(answer) != actScrape || len(answer) != 8+12*want {
				t.Errorf("a scrape of %d and %d bytes: answered %x, want %d torrents", asked, rest, answer, want)
			}
		}
	}
}

func TestAnAnnounceFitsOneSmallDatagram(t *testing.T) {
	h := &fake{}
	for i := range 1000 {
		h.response.Peers = append(h.response.Peers, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 1))
	}
	u := NewUDP(h)
	b := announcePacket(connect(t, u))
	binary.BigEndian.PutUint32(b[92:], 0xffffffff)
	if n := len(u.Answer(t.Context(), b, byName)); n != 20+6*MaxPeers {
		t.Errorf("%d bytes", n)
	}
}

func TestATruncatedPacketAsksNothing(t *testing.T) {
	h := twoPeers()
	u := NewUDP(h)
	whole := announcePacket(connect(t, u))
	for i := range len(whole) {
		if answer := u.Answer(t.Context(), whole[:i], byName); action(answer) == actAnnounce || len(h.asked) > 0 {
			t.Errorf("took %d of %d bytes", i, len(whole))
		}
		if i < headerSize && IsUDP(whole[:i]) {
			t.Errorf("%d bytes look like a packet", i)
		}
	}
}

func TestAFloodIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := NewUDP(slow{})
		b := announcePacket(connect(t, u))
		var wg sync.WaitGroup
		for range maxWaiting {
			wg.Go(func() { u.Answer(t.Context(), b, byName) })
		}
		synctest.Wait()
		if answer := u.Answer(t.Context(), b, byName); answer != nil {
			t.Errorf("one too many was answered %q", answer)
		}
		wg.Wait()
		if answer := u.Answer(t.Context(), b, byName); string(answer[8:]) != TextSlow {
			t.Errorf("afterwards: %q", answer)
		}
	})
}

func TestOtherProtocolsDoNotLookLikeATracker(t *testing.T) {
	utp := []byte{0x41, 0, 0x51, 0x8b, 0x2c, 0x49, 0xfb, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa7, 0x5b, 0, 0}
	for name, b := range map[string][]byte{
		"nothing":    nil,
		"µTP SYN":    utp,
		"µTP data":   append([]byte{1}, utp[1:]...),
		"DHT":        []byte("d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q4:ping1:t2:aa1:y1:qe"),
		"no connect": append([]byte{0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x81}, make([]byte, 8)...),
	} {
		if IsUDP(b) {
			t.Errorf("%s looks like a tracker packet", name)
		}
	}
}

func FuzzUDP(f *testing.F) {
	u := NewUDP(twoPeers())
	b, err := os.ReadFile("testdata/udp.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if packet, ok := strings.CutPrefix(line, "> "); ok {
			p, err := unhex(packet)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(p, true)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, good bool) {
		if good && len(b) >= 8 && binary.BigEndian.Uint64(b) != magic {
			binary.BigEndian.PutUint64(b, connection)
		}
		answer := u.Answer(t.Context(), b, byName)
		if answer == nil {
			return
		}
		if len(answer) < 8 || string(answer[4:8]) != string(b[12:16]) {
			t.Errorf("%x answered %x", b, answer)
		}
		if a := action(answer); a != actError && a != int(binary.BigEndian.Uint32(b[8:])) {
			t.Errorf("action %d answered by %d", binary.BigEndian.Uint32(b[8:]), a)
		}
	})
}

func BenchmarkUDPAnnounce(b *testing.B) {
	u := NewUDP(twoPeers())
	p := announcePacket(connect(b, u))
	h := u.handler.(*fake)
	for b.Loop() {
		u.Answer(b.Context(), p, byName)
		h.asked = h.asked[:0]
	}
}
