package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"golang.org/x/net/proxy"

	bench "github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/netns"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
	"github.com/shoal-p2p/shoal/integration/witness"
)

// The messages (BEP 3, 5, 6, 10) that the far client says or hears here.
const (
	msgUnchoke    = 1
	msgInterested = 2
	msgRequest    = 6
	msgPiece      = 7
	msgPort       = 9
	msgHaveAll    = 14
	msgExtended   = 20
)

const (
	farHello   = 68       // bytes of a handshake
	farMessage = 1 << 20  // bytes of a message at most
	farBlock   = 16 << 10 // bytes of a block
)

// farClient is a peer that writes down what it hears. It offers everything in
// its handshake: extended messages, fast and the DHT.
type farClient struct {
	net.Conn
	hello []byte   // the other's handshake
	heard [][]byte // every message after it, without its length
}

// dialFar announces tor behind s, dials the peer that it learns of, and says
// and hears the handshakes.
func dialFar(t *testing.T, ctx context.Context, s *testnet.Sidecar, tor torrent.Torrent) *farClient {
	t.Helper()
	user := t.Name()
	var known bench.Announced
	order := bench.Announce{SOCKS: s.SOCKS, User: user, Hashes: []bench.Hash{bench.Hash(tor.Hash)}, Peers: 1, Limit: 10 * time.Second}
	if err := new(bench.Peer).Announce(order, &known); err != nil {
		t.Fatal(err)
	}
	if known.Swarms[0].Trouble != "" {
		t.Fatalf("announcing: %s", known.Swarms[0].Trouble)
	}
	d, err := proxy.SOCKS5("tcp", s.SOCKS, &proxy.Auth{User: user, Password: "none"}, new(net.Dialer))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", known.Swarms[0].Peers[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	limit, _ := ctx.Deadline()
	conn.SetDeadline(limit)
	f := &farClient{Conn: conn, hello: make([]byte, farHello)}
	hello := append([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x05"), tor.Hash[:]...)
	if _, err := conn.Write(append(hello, "-XX0001-farfarfarfar"...)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, f.hello); err != nil {
		t.Fatalf("the other's handshake: %v", err)
	}
	return f
}

func (f *farClient) say(t *testing.T, id byte, body ...byte) {
	t.Helper()
	b := append(binary.BigEndian.AppendUint32(nil, uint32(1+len(body))), id)
	if _, err := f.Write(append(b, body...)); err != nil {
		t.Fatal(err)
	}
}

// extended says an extended message (BEP 10). 0 is the handshake's number.
func (f *farClient) extended(t *testing.T, number byte, dict any) {
	t.Helper()
	f.say(t, msgExtended, append([]byte{number}, bencode.MustMarshal(dict)...)...)
}

// hear reads one message. Keep-alives are skipped.
func (f *farClient) hear() ([]byte, error) {
	for {
		var head [4]byte
		if _, err := io.ReadFull(f, head[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > farMessage {
			return nil, fmt.Errorf("a message of %d bytes", n)
		}
		if n == 0 {
			continue
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(f, b); err != nil {
			return nil, err
		}
		f.heard = append(f.heard, b)
		return b, nil
	}
}

// hearUntil reads messages up to one with that id, and returns it.
func (f *farClient) hearUntil(t *testing.T, id byte) []byte {
	t.Helper()
	for {
		b, err := f.hear()
		if err != nil {
			t.Fatalf("waiting for message %d after %d others: %v", id, len(f.heard), err)
		}
		if b[0] == id {
			return b
		}
	}
}

// hearFor reads what comes during d.
func (f *farClient) hearFor(t *testing.T, d time.Duration) {
	t.Helper()
	f.SetReadDeadline(time.Now().Add(d))
	for {
		if _, err := f.hear(); err != nil {
			if e, ok := err.(net.Error); !ok || !e.Timeout() {
				t.Errorf("the connection ended: %v", err)
			}
			return
		}
	}
}

// everything is what a client with every extension says in its own extended
// handshake, so that the other has somebody to say it to.
func everything() map[string]any {
	return map[string]any{
		"m": map[string]int{"ut_pex": 1, "ut_metadata": 2, "upload_only": 3, "ut_holepunch": 4, "lt_donthave": 7},
		"v": "Far 1.0", "reqq": 500,
	}
}

// far is the far client's part: it takes every block of tor, and then listens on.
func (f *farClient) far(t *testing.T, tor torrent.Torrent) {
	t.Helper()
	f.extended(t, 0, everything())
	f.say(t, msgInterested)
	f.hearUntil(t, msgUnchoke)
	piece := len(tor.Data)
	for begin := 0; begin < piece; begin += farBlock {
		body := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(begin))
		f.say(t, msgRequest, binary.BigEndian.AppendUint32(body, farBlock)...)
	}
	for begin := 0; begin < piece; begin += farBlock {
		b := f.hearUntil(t, msgPiece)
		at := int(binary.BigEndian.Uint32(b[5:]))
		if at+farBlock > piece || !bytes.Equal(b[9:], tor.Data[at:at+farBlock]) {
			t.Fatal("a block is not the file's")
		}
	}
	f.hearFor(t, 2*time.Second)
}

// TestWhatTheFarClientReceivesNamesNobody: a real client gives a file to one
// that writes down every byte.
func TestWhatTheFarClientReceivesNamesNobody(t *testing.T) {
	network := network(t)
	ctx := deadline(t, 30*time.Second)
	seeder := client(t, ctx, network.Sidecars[0], nil)
	tor := noise(t, 2*farBlock, httpTracker) // smaller than a piece
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	f := dialFar(t, ctx, network.Sidecars[1], tor)
	f.far(t, tor)
	f.namesNobody(t, network, seeder.Config().Port)
}

// namesNobody checks everything that f has heard but the file.
func (f *farClient) namesNobody(t *testing.T, network *testnet.Net, port uint16) {
	t.Helper()
	words := [][]byte{[]byte("-qB"), []byte("qBittorrent"), []byte("libtorrent"), []byte("127.")}
	addresses := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	for _, s := range network.Sidecars {
		addresses = append(addresses, s.Source)
	}
	for _, r := range network.Relays {
		addresses = append(addresses, netip.MustParseAddrPort(r.Addr).Addr())
	}
	for _, tr := range network.Trackers {
		addresses = append(addresses, netip.MustParseAddrPort(tr.Addr).Addr())
	}
	for _, a := range addresses {
		words = append(words, a.AsSlice(), []byte(a.String()))
	}
	ports := [][]byte{binary.BigEndian.AppendUint16(nil, port), fmt.Append(nil, port)}
	handshakes := 0
	for _, b := range append([][]byte{f.hello}, f.heard...) {
		seek := words
		switch {
		case &b[0] == &f.hello[0]:
			if !bytes.HasPrefix(b[48:], []byte("-SH0000-")) {
				t.Errorf("the peer id is %q", b[48:])
			}
		case b[0] == msgPiece:
			b = b[:9]
		case b[0] == msgPort:
			t.Errorf("it was told a UDP port: %x", b[1:])
		case b[0] == msgExtended && len(b) > 1 && b[1] == 0:
			handshakes++
			seek = slices.Concat(words, ports)
			mayBeExtended(t, b[2:])
		}
		for _, w := range seek {
			if bytes.Contains(b, w) {
				t.Errorf("it received %q, which holds %q", b, w)
			}
		}
	}
	if handshakes == 0 {
		t.Error("no extended handshake came")
	}
	t.Logf("%d messages, %d of them extended handshakes", len(f.heard), handshakes)
}

// mayBeExtended checks the keys of an extended handshake.
func mayBeExtended(t *testing.T, b []byte) {
	t.Helper()
	var dict map[string]any
	if err := bencode.Unmarshal(b, &dict); err != nil {
		t.Errorf("an extended handshake, %q: %v", b, err)
		return
	}
	for key := range dict {
		if !slices.Contains([]string{"m", "metadata_size", "reqq", "upload_only"}, key) {
			t.Errorf("the extended handshake says %s: %q", key, b)
		}
	}
	m, _ := dict["m"].(map[string]any)
	for name := range m {
		if name != "ut_metadata" {
			t.Errorf("the extended handshake offers %s: %q", name, b)
		}
	}
}

// realAddresses belong to nobody on the Internet (RFC 5737), and in this
// namespace to the loopback interface: whoever dials them is recorded.
var realAddresses = []netip.Addr{
	netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.AddrFrom4([4]byte{192, 0, 2, 2}), netip.AddrFrom4([4]byte{192, 0, 2, 3}),
}

// TestABadAppleMakesNobodyDialOut: a peer names real addresses in every way
// that BitTorrent has, to a client that wants a file and so wants peers.
func TestABadAppleMakesNobodyDialOut(t *testing.T) {
	network := network(t)
	ctx := deadline(t, 30*time.Second)
	for _, a := range realAddresses {
		if err := netns.AddAddress(a); err != nil {
			t.Fatal(err)
		}
	}
	before := refused(t, ctx, network.Sidecars[:2])
	recorder := record(t)
	victim := client(t, ctx, network.Sidecars[0], nil)
	tor := noise(t, 2*farBlock, httpTracker)
	add(t, ctx, victim, tor)
	announced(t, ctx, victim, tor)
	f := dialFar(t, ctx, network.Sidecars[1], tor)
	f.say(t, msgHaveAll)
	f.lure(t)
	f.say(t, msgUnchoke)
	f.hearUntil(t, msgRequest) // it has read all of the above
	f.lure(t)
	f.hearFor(t, 4*time.Second)

	// What a dial would look like: the recording must show this packet alone.
	own, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: realAddresses[0].AsSlice(), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	own.Write([]byte("control"))
	control := own.LocalAddr().(*net.UDPAddr).AddrPort()

	after := refused(t, ctx, network.Sidecars[:2])
	trace := recorded(t, recorder)
	seen := false
	for flow := range trace.Payload {
		switch {
		case flow.From == control:
			seen = true
		case flow.From.Addr() == control.Addr() || flow.To.Addr() == control.Addr(): // the answer that nobody is there
		case !flow.From.Addr().IsLoopback() || !flow.To.Addr().IsLoopback():
			t.Errorf("a packet went out: %v", flow)
		}
	}
	if !seen {
		t.Error("the recording does not show the test's own packet to a real address")
	}
	for _, wrong := range witness.Look(trace, network, nil).Wrong {
		t.Error(wrong)
	}
	for i := range after {
		for _, reason := range []string{"bittorrent", "unreadable", "web_seed", "tls", "datagram", "unknown_standin"} {
			if n := after[i][reason] - before[i][reason]; n != 0 {
				t.Errorf("sidecar %d: the client tried %d times what is refused as %s", i+1, n, reason)
			}
		}
	}
}

// refused returns what each sidecar has refused so far.
func refused(t *testing.T, ctx context.Context, sidecars []*testnet.Sidecar) (all []map[string]uint64) {
	t.Helper()
	for _, s := range sidecars {
		status, err := s.ReadStatus(ctx)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, status.Refused)
	}
	return all
}

// lure names real addresses in an extended handshake (BEP 10), PORT (BEP 5),
// PEX (BEP 11) and holepunch (BEP 55), the last two under the numbers that
// qBittorrent gives them, whether or not we were told.
func (f *farClient) lure(t *testing.T) {
	t.Helper()
	const port = 6881
	first := realAddresses[0].AsSlice()
	hello := everything()
	hello["yourip"], hello["ipv4"], hello["p"] = first, first, port
	hello["ipv6"] = netip.MustParseAddr("2001:db8::1").AsSlice()
	f.extended(t, 0, hello)
	f.say(t, msgPort, binary.BigEndian.AppendUint16(nil, port)...)
	var added []byte
	for _, a := range realAddresses {
		added = binary.BigEndian.AppendUint16(append(added, a.AsSlice()...), port)
	}
	const pex, holepunch = 1, 4
	f.extended(t, pex, map[string]any{"added": added, "added.f": []byte{0, 0, 0}})
	const rendezvous, connect, ipv4 = 0, 1, 0
	for _, kind := range []byte{rendezvous, connect} {
		f.say(t, msgExtended, slices.Concat([]byte{holepunch, kind, ipv4}, added[:6], make([]byte, 4))...)
	}
}
