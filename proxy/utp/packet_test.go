package utp

import (
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/vectortest"
)

// packets returns the lines of testdata/packets.txt.
func packets(t testing.TB) [][3]string { return vectortest.Lines(t, "testdata/packets.txt") }

func describe(b []byte) string {
	if !Is(b) {
		return "no"
	}
	s := fmt.Sprintf("type %d connection %d", kind(b), connection(b))
	if kind(b) == typeSyn && turns(b) {
		s += ", turns to TCP"
	}
	return s
}

func TestGoldenPackets(t *testing.T) {
	for _, l := range packets(t) {
		b := []byte(l[1])
		got := describe(b)
		if l[0] == "reset" {
			got = hex.EncodeToString(resetFor(b))
		}
		if got != l[2] {
			t.Errorf("%s %x is %s, want %s", l[0], b, got, l[2])
		}
	}
}

func TestTruncatedPacketsAreRefused(t *testing.T) {
	for _, l := range packets(t) {
		if l[0] != "utp" || l[2] == "no" {
			continue
		}
		for i := range headerSize {
			if Is([]byte(l[1][:i])) {
				t.Errorf("took %d bytes of %x", i, l[1])
			}
		}
	}
	if Is(append([]byte{0x41, 0}, make([]byte, maxPacket)...)) {
		t.Error("took a packet that is too long")
	}
}

func FuzzPacket(f *testing.F) {
	for _, l := range packets(f) {
		f.Add([]byte(l[1]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if Is(b) {
			turns(b)
			sequence(b)
			if r := resetFor(b); !Is(r) || kind(r) != typeReset || connection(r) != connection(b) {
				t.Errorf("the reset for %x is %x", b, r)
			}
		}
	})
}
