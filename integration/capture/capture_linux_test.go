package capture

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/shoal-p2p/shoal/integration/netns"
)

func TestMain(m *testing.M) { netns.Tests(m, nil) }

func TestARecordingHoldsWhoTalkedToWhomAndWhat(t *testing.T) {
	secret := make([]byte, 4<<20)
	rand.Read(secret)

	recorder, err := Start("lo", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.2.1.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 3, 1, 1)}}).Dial("tcp", ln.Addr().String())
		if err == nil {
			conn.Write(secret)
			conn.Close()
		}
	}()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, conn)
	conn.Close()
	datagram, err := net.Dial("udp", "127.4.1.1:9")
	if err != nil {
		t.Fatal(err)
	}
	datagram.Write([]byte("a name in clear"))
	trace, err := recorder.Stop()
	if err != nil {
		t.Fatal(err)
	}

	flows := trace.Flows(func(f Flow) bool { return f.To == netip.MustParseAddrPort("127.2.1.1:7000") })
	if len(flows) != 1 || flows[0].From.Addr() != netip.MustParseAddr("127.3.1.1") || flows[0].Protocol != TCP {
		t.Fatalf("flows to the listener: %v, want one from 127.3.1.1", flows)
	}
	if got := trace.Payload[flows[0]]; !bytes.Equal(got, secret) {
		t.Errorf("%d bytes recorded, want the %d that were sent", len(got), len(secret))
	}
	if got := trace.Contacts(netip.MustParseAddr("127.3.1.1")); len(got) != 1 {
		t.Errorf("127.3.1.1 talked to %v, want the listener alone", got)
	}
	// It is in the answer too: port unreachable.
	if got := trace.Contains([]byte("name in")); len(got) != 2 || got[0].Protocol != 1 || got[1].Protocol != UDP {
		t.Errorf("the datagram was found in %v", got)
	}
	if trace.Cut != 0 {
		t.Errorf("%d bytes are missing", trace.Cut)
	}
}

func TestAFullRecordingSaysHowMuchIsMissing(t *testing.T) {
	recorder, err := Start("lo", 10)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	conn.Write(make([]byte, 25))
	trace, err := recorder.Stop()
	if err != nil {
		t.Fatal(err)
	}
	got := trace.Flows(func(f Flow) bool { return f.Protocol == UDP })
	// The answer, port unreachable, repeats the datagram.
	if len(got) != 1 || len(trace.Payload[got[0]]) != 10 || trace.Cut < 15 {
		t.Errorf("flows %v, %d missing, want one of 10 bytes with 15 missing", got, trace.Cut)
	}
}

func TestAFinderFindsAnyPiece(t *testing.T) {
	secret := make([]byte, 1<<16)
	rand.Read(secret)
	finder := NewFinder(secret)
	noise := make([]byte, 1<<16)
	rand.Read(noise)
	if at := finder.Find(noise); at != -1 {
		t.Errorf("found in noise at %d", at)
	}
	for _, at := range []int{0, 1, 1000, len(secret) - 8} { // of noise, practically every piece is telling
		if got := finder.Find(slices.Concat(noise[:777], secret[at:at+8], noise[:3])); got != 777 {
			t.Errorf("the piece at %d was found at %d, want 777", at, got)
		}
	}
	if at := NewFinder(make([]byte, 100)).Find(make([]byte, 100)); at != -1 {
		t.Errorf("zeros were found, at %d", at)
	}
	if finder.Find(nil) != -1 || finder.Find(secret[:7]) != -1 {
		t.Error("found in too few bytes")
	}
}

func TestParseTakesAnyBytes(t *testing.T) {
	packet := make([]byte, 60)
	for i := range len(packet) {
		for first := range 256 {
			packet[0] = byte(first)
			for _, protocol := range []byte{TCP, UDP, 1} {
				packet[6], packet[9] = protocol, protocol
				packet[3] = byte(i)
				parse(0x0800, packet[:i])
				parse(0x86dd, packet[:i])
			}
		}
	}
}
