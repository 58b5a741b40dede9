package announce

import (
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

var client = netip.MustParseAddrPort("127.0.0.1:21001")

// connect returns the id that u gives to a client.
func connect(t testing.TB, u *UDP, from netip.AddrPort) uint64 {
	t.Helper()
	b := binary.BigEndian.AppendUint64(nil, magic)
	b = append(b, 0, 0, 0, actConnect, 1, 2, 3, 4)
	answer := u.Answer(t.Context(), b, from)
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

func TestAConnectionIDIsForOneAddressAndThreeMinutesAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := NewUDP(twoPeers())
		id := connect(t, u, client)
		if id == connect(t, u, netip.MustParseAddrPort("127.0.0.1:21002")) {
			t.Error("two addresses have one id")
		}
		other := NewUDP(twoPeers())
		for _, c := range []struct {
			name string
			u    *UDP
			from netip.AddrPort
			want int
		}{
			{"its own", u, client, actAnnounce},
			{"another port", u, netip.MustParseAddrPort("127.0.0.1:21002"), actError},
			{"another address", u, netip.MustParseAddrPort("127.0.0.2:21001"), actError},
			{"another key", other, client, actError},
		} {
			if got := action(c.u.Answer(t.Context(), announcePacket(id), c.from)); got != c.want {
				t.Errorf("%s: action %d, want %d", c.name, got, c.want)
			}
		}
		time.Sleep(2 * time.Minute)
		if got := action(u.Answer(t.Context(), announcePacket(id), client)); got != actAnnounce {
			t.Errorf("after two minutes: action %d, want %d", got, actAnnounce)
		}
		time.Sleep(time.Minute)
		if got := action(u.Answer(t.Context(), announcePacket(id), client)); got != actError {
			t.Errorf("after three minutes: action %d, want %d", got, actError)
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
		id := connect(t, u, client)
		answer := u.Answer(t.Context(), announcePacket(id), client)
		if action(answer) != actError || string(answer[8:]) != text || string(answer[4:8]) != "\x05\x06\x07\x08" {
			t.Errorf("%v: answered %q, want %q", err, answer, text)
		}
		scrape := append(announcePacket(id)[:16], hash...)
		scrape[11] = actScrape
		if answer := u.Answer(t.Context(), scrape, client); action(answer) != actError || string(answer[8:]) != text {
			t.Errorf("%v: scrape answered %q, want %q", err, answer, text)
		}
	}
}

func TestUDPEventsAndNumbersAreRead(t *testing.T) {
	h := twoPeers()
	u := NewUDP(h)
	id := connect(t, u, client)
	for wire, want := range []swarm.Event{swarm.None, swarm.Completed, swarm.Started, swarm.Stopped, swarm.None} {
		b := announcePacket(id)
		binary.BigEndian.PutUint32(b[80:], uint32(wire))
		binary.BigEndian.PutUint64(b[64:], 12345)
		binary.BigEndian.PutUint32(b[92:], 0xfffffff0)
		binary.BigEndian.PutUint16(b[96:], 6881)
		u.Answer(t.Context(), b, client)
		if got := (Request{swarm.Hash([]byte(hash)), 6881, want, 12345, -1}); h.last != got {
			t.Errorf("event %d: %+v, want %+v", wire, h.last, got)
		}
	}
}

func TestOverIPv6ThereAreNoPeers(t *testing.T) {
	u := NewUDP(twoPeers())
	from := netip.MustParseAddrPort("[::1]:21001")
	answer := u.Answer(t.Context(), announcePacket(connect(t, u, from)), from)
	if action(answer) != actAnnounce || len(answer) != 20 {
		t.Errorf("answered %x", answer)
	}
	mapped := netip.MustParseAddrPort("[::ffff:127.0.0.1]:21001")
	answer = u.Answer(t.Context(), announcePacket(connect(t, u, mapped)), mapped)
	if len(answer) != 20+6 { // numwant is 0: the beacon alone
		t.Errorf("a mapped address got %x", answer)
	}
}

func TestAnAnnounceFitsOneSmallDatagram(t *testing.T) {
	h := &fake{}
	for i := range 1000 {
		h.response.Peers = append(h.response.Peers, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 1))
	}
	u := NewUDP(h)
	b := announcePacket(connect(t, u, client))
	binary.BigEndian.PutUint32(b[92:], 0xffffffff)
	if n := len(u.Answer(t.Context(), b, client)); n != 20+6*MaxPeers {
		t.Errorf("%d bytes", n)
	}
}

func TestATruncatedPacketAsksNothing(t *testing.T) {
	h := twoPeers()
	u := NewUDP(h)
	whole := announcePacket(connect(t, u, client))
	for i := range len(whole) {
		if answer := u.Answer(t.Context(), whole[:i], client); action(answer) == actAnnounce || len(h.asked) > 0 {
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
		b := announcePacket(connect(t, u, client))
		var wg sync.WaitGroup
		for range maxWaiting {
			wg.Go(func() { u.Answer(t.Context(), b, client) })
		}
		synctest.Wait()
		if answer := u.Answer(t.Context(), b, client); answer != nil {
			t.Errorf("one too many was answered %q", answer)
		}
		wg.Wait()
		if answer := u.Answer(t.Context(), b, client); string(answer[8:]) != TextSlow {
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
			p, err := unhex(packet, u, client)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(p, true)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, good bool) {
		if good && len(b) >= 8 && binary.BigEndian.Uint64(b) != magic {
			binary.BigEndian.PutUint64(b, u.id(client, time.Now()))
		}
		answer := u.Answer(t.Context(), b, client)
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
	p := announcePacket(connect(b, u, client))
	h := u.handler.(*fake)
	for b.Loop() {
		u.Answer(b.Context(), p, client)
		h.asked = h.asked[:0]
	}
}
