package socks

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/status"
)

var trackerConnect = binary.BigEndian.AppendUint64(nil, 0x41727101980)

func TestTrackerPacketsAreAnsweredFromWhereTheyWent(t *testing.T) {
	s := start(t, Config{})
	s.tracker = func(from Origin, to netip.Addr, b []byte) []byte {
		if from.Client != "client 1" || from.Assoc == nil || !from.Assoc.Addr().IsValid() {
			t.Errorf("asked by %v", from)
		}
		return append([]byte("answer by "+to.String()+" to "), b[8:]...)
	}
	a := associate(t, s, "")
	for _, host := range []string{"tracker.invalid", "192.0.2.7", "2001:db8::1"} {
		a.packet(t, host, 6969, append(trackerConnect, 0, 0, 0, 0, 't', 'e', 's', 't'))
		h, b := a.answer(t)
		if got := h.name + h.addr.String(); h.port != 6969 || got != host+"invalid IP" && got != host || !bytes.HasSuffix(b, []byte("test")) ||
			!bytes.HasPrefix(b, []byte("answer by "+h.addr.String())) {
			t.Errorf("%q from %+v, want %s", b, h, host)
		}
	}
}

func TestDHTPacketsReachTheHandler(t *testing.T) {
	s := start(t, Config{})
	a := associate(t, s, "")
	a.packet(t, "192.0.2.7", 6881, []byte("d1:q4:ping1:y1:qe"))
	if got := <-s.dht; got.String() != "192.0.2.7:6881" {
		t.Errorf("asked for %v", got)
	}
	a.packet(t, standIn, 6881, []byte("d1:q4:ping1:y1:qe"))
	if got := <-s.dht; got.String() != standIn+":6881" {
		t.Errorf("asked for %v", got)
	}
	s.Association("client 1").WriteFrom(netip.MustParseAddrPort("192.0.2.7:6881"), []byte("pong"))
	if h, b := a.answer(t); h.addrPort().String() != "192.0.2.7:6881" || string(b) != "pong" {
		t.Errorf("%q from %v", b, h)
	}
}

func TestBadPacketsAreCountedAndDropped(t *testing.T) {
	s := start(t, Config{})
	a := associate(t, s, "")
	bad := 0
	for _, b := range [][]byte{nil, {0, 0, 0}, {0, 0, 1, 1, 198, 18, 5, 5, 0, 80, 'x'}, {0, 0, 0, 9, 1, 2, 3, 4}} {
		a.raw(t, b)
		bad++
	}
	s.counted(t, status.Datagram, bad)
	assoc := s.Association("client 1")
	if assoc.Known() {
		t.Error("a bad packet told the client's address")
	}
	a.packet(t, "192.0.2.7", 80, []byte("nothing known"))
	a.packet(t, standIn, 80, []byte("nothing known"))
	bad += 2
	s.counted(t, status.Datagram, bad)
	stranger, err := net.Dial("udp", a.relay.String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.Write(udpHeader{name: "tracker.invalid", port: 1}.append(nil))
	s.counted(t, status.Datagram, bad+1)
	if got, _ := netip.ParseAddrPort(a.LocalAddr().String()); assoc.Addr() != got {
		t.Errorf("the client is at %v, want %v", assoc.Addr(), got)
	}
}

func TestAssociationKnowsAnAddressThatTheClientNames(t *testing.T) {
	s := start(t, Config{})
	c := dial(t, s)
	c.login("", "")
	c.request(3, "0.0.0.0", 5555)
	a := s.Association("client 1")
	if got := a.Addr().String(); got != "127.0.0.1:5555" {
		t.Errorf("the client is at %s", got)
	}
	if _, ok := a.TakeBeacon(); !ok {
		t.Error("no beacon although the address was not seen yet")
	}
}

// TestBeaconTellsTheAddress: the client's SYN to it is refused at once, and
// says where the client is.
func TestBeaconTellsTheAddress(t *testing.T) {
	s := start(t, Config{})
	a := associate(t, s, "")
	assoc := s.Association("client 1")
	b, ok := assoc.TakeBeacon()
	if !ok || !peers.IsBeacon(b.Addr()) || assoc.Known() {
		t.Fatalf("beacon %v, %v", b, ok)
	}
	if _, again := assoc.TakeBeacon(); again {
		t.Error("the beacon was given twice")
	}
	a.packet(t, b.Addr().String(), b.Port(), []byte("A\x00\x12\x34\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x05\x00\x00"))
	h, reset := a.answer(t)
	if h.addrPort() != b || reset[0] != reset0 || !bytes.Equal(reset[2:4], []byte{0x12, 0x34}) {
		t.Errorf("%x from %v", reset, h)
	}
	if !assoc.Known() {
		t.Error("the address is not known")
	}
	other := associate(t, s, "bob")
	if b2, ok := s.Association("user bob").TakeBeacon(); !ok || b2 == b {
		t.Errorf("another association has beacon %v, %v", b2, ok)
	}
	other.packet(t, "tracker.invalid", 1, nil)
	until(t, s.Association("user bob").Known, func() string { return "the address is not known" })
}

// TestPeersComeInByUTP: each from its stand-in, all at once, each with 64 KiB
// there and back. Package utp has the test with sixty, in virtual time: on a
// machine that is busy enough its µTP package gives up.
func TestPeersComeInByUTP(t *testing.T) {
	const peerCount = 6
	s := start(t, Config{})
	a := associate(t, s, "")
	sock := a.utp(t)
	go func() {
		for {
			c, err := sock.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, io.LimitReader(c, 64<<10))
				io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
	a.packet(t, "tracker.invalid", 1, nil) // the client's first packet
	assoc := s.Association("client 1")
	want := make([]byte, 64<<10)
	rand.NewChaCha8([32]byte{}).Read(want)
	var dialled, wg sync.WaitGroup
	dialled.Add(peerCount)
	for i := range peerCount {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			from := netip.AddrFrom4([4]byte{198, 18, 9, byte(i + 1)})
			if i == 0 {
				from = peers.Beacon(9) // the sidecar itself
			}
			c, err := assoc.Dial(ctx, netip.AddrPortFrom(from, 6881))
			dialled.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			dialled.Wait()
			go c.Write(want)
			got := make([]byte, len(want))
			c.SetReadDeadline(time.Now().Add(patience))
			if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	wg.Wait()
}

func TestDialIntoAClientThatIsNotKnownOrGone(t *testing.T) {
	s := start(t, Config{})
	a := associate(t, s, "")
	assoc := s.Association("client 1")
	from := netip.MustParseAddrPort(standIn + ":6881")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := assoc.Dial(ctx, from); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial = %v, want a deadline", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := assoc.Dial(t.Context(), from)
		done <- err
	}()
	a.control.conn.Close()
	if err := <-done; err == nil {
		t.Error("dialled a client that is gone")
	}
	var none *Association
	if _, err := none.Dial(t.Context(), from); err == nil {
		t.Error("dialled a client without an association")
	}
}

// TestUTPIsRefusedOnceAndThenTaken: a client that can do TCP turns to it at
// the first reset, one that can't comes again.
func TestUTPIsRefusedOnceAndThenTaken(t *testing.T) {
	s := start(t, Config{})
	s.peer = func(_ context.Context, from Origin, a netip.AddrPort) (Session, error) {
		if from.Client != "client 1" || a.String() != standIn+":6881" {
			t.Errorf("asked for %v by %v", a, from)
		}
		return serving(echo), nil
	}
	a := associate(t, s, "")
	for i, want := range []byte{reset0, state0, reset0} {
		if i == 2 {
			connect(t, s, "", standIn, 6881) // so it can do TCP
		}
		syn := make([]byte, 20) // as libtorrent's: without a window
		syn[0], syn[3] = 0x41, byte(10*i)
		a.packet(t, standIn, 6881, syn)
		if h, got := a.answer(t); got[0] != want || h.addrPort().String() != standIn+":6881" {
			t.Errorf("SYN %d is answered by %x from %v, want %x", i, got, h, want)
		}
	}
}

// How packets of µTP begin.
const (
	state0 = 0x21
	reset0 = 0x31
)

func TestAssociationsAreBounded(t *testing.T) {
	s := start(t, Config{})
	for i := range maxAssocs {
		associate(t, s, string(rune('A'+i)))
	}
	c := dial(t, s)
	c.login("one more", "")
	if code, _ := c.request(3, "0.0.0.0", 0); code != 1 {
		t.Errorf("one more is reply %d, want 1", code)
	}
	c.ended()
	s.counted(t, status.Full, 1)
}

// TestSilentClientIsLookedForWhereItWas: after a restart of either side.
func TestSilentClientIsLookedForWhereItWas(t *testing.T) {
	learned := make(chan Known, 1)
	s := start(t, Config{Learned: func(k Known) { learned <- k }})
	a := associate(t, s, "alice")
	a.packet(t, "tracker.invalid", 1, nil)
	known := <-learned
	at := known.UDP
	if at.String() != a.LocalAddr().String() || known.Client != "user alice" {
		t.Errorf("remembered %v, want %v", known, a.LocalAddr())
	}
	for _, s := range []*sidecar{s, start(t, Config{Earlier: []Known{known}})} {
		associate(t, s, "alice")
		again := s.Association("user alice")
		if again.Addr() != at {
			t.Errorf("it is looked for at %v, want %v", again.Addr(), at)
		}
		if _, ok := again.TakeBeacon(); !ok {
			t.Error("a guess is taken for knowledge")
		}
		if associate(t, s, "bob"); s.Association("user bob").Known() {
			t.Error("another client is taken for it")
		}
	}
}
