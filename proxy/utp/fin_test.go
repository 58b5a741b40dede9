package utp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// TestFINOnAClosedConnectionIsAcknowledged: libtorrent 2.0.8 would not close before.
func TestFINOnAClosedConnectionIsAcknowledged(t *testing.T) {
	packet := func(kind byte, id, seq uint16) []byte {
		b := make([]byte, headerSize)
		b[0] = kind<<4 | 1
		binary.BigEndian.PutUint16(b[2:], id)
		binary.BigEndian.PutUint16(b[16:], seq)
		return b
	}
	now := time.Unix(1000, 0)
	a, b := netip.MustParseAddrPort("198.18.5.5:6881"), netip.MustParseAddrPort("198.18.5.6:6881")
	f := make(fins)
	f.sent(a, packet(typeData, 101, 7), now)
	if f.answer(a, packet(typeFin, 100, 55), now) != nil {
		t.Error("a FIN was answered on a connection that is open")
	}
	f.sent(a, packet(typeFin, 101, 8), now)
	for name, c := range map[string]struct {
		from netip.AddrPort
		p    []byte
		at   time.Time
	}{
		"data":               {a, packet(typeData, 100, 55), now},
		"another connection": {a, packet(typeFin, 103, 55), now},
		"another stand-in":   {b, packet(typeFin, 100, 55), now},
		"long after":         {a, packet(typeFin, 100, 55), now.Add(2 * finFor)},
	} {
		if f.answer(c.from, c.p, c.at) != nil {
			t.Errorf("%s was answered", name)
		}
	}
	for _, id := range []uint16{100, 102} { // whoever opened it
		p := packet(typeFin, id, 55)
		ack := f.answer(a, p, now)
		if ack == nil || kind(ack) != typeState || connection(ack) != 101 || sequence(ack) != 8 || binary.BigEndian.Uint16(ack[18:]) != 55 || !Is(ack) {
			t.Errorf("answered %x", ack)
		}
		if kind(p) != typeState {
			t.Errorf("the FIN goes on as %x", p)
		}
	}
	for i := range maxFlows + 10 {
		f.sent(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 1), packet(typeFin, 1, 1), now)
	}
	if len(f) > maxFlows {
		t.Errorf("%d are remembered", len(f))
	}
	f.sent(b, packet(typeFin, 1, 1), now.Add(2*finFor))
	if len(f) != 1 {
		t.Errorf("%d are remembered that are long over", len(f))
	}
}
