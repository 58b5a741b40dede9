package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/shoal-p2p/shoal/integration/bare"
	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
	"github.com/shoal-p2p/shoal/proxy/scrub"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// The messages of BEP 3, 5, 6 and 10 that are said or heard here.
const (
	msgUnchoke      = 1
	msgInterested   = 2
	msgHave         = 4
	msgBitfield     = 5
	msgRequest      = 6
	msgPiece        = 7
	msgCancel       = 8
	msgPort         = 9
	msgSuggest      = 13
	msgHaveAll      = 14
	msgHaveNone     = 15
	msgReject       = 16
	msgAllowedFast  = 17
	msgExtended     = 20
	extHandshake    = 0 // numbers of extended messages
	extPEX          = 1
	extMetadata     = 2 // as the far client asks for it
	farHello        = 68
	farMessage      = 1 << 20  // bytes of a message at most
	farBlock        = 16 << 10 // bytes of a block
	fastAndExtended = "\x00\x00\x00\x00\x00\x10\x00\x04"
)

// farClient is a torrent client that writes down what it hears. It offers
// everything in its handshake: extended messages, fast and the DHT.
type farClient struct {
	net.Conn
	tor   torrent.Torrent
	peer  swarm.Key // whom it talks to; zero behind a sidecar
	at    string    // the stand-in that it dialled; "" without a sidecar
	hello []byte    // the other's handshake
	heard [][]byte  // every message after it, without its length
}

// greet says and hears the handshakes on a conn.
func greet(t *testing.T, ctx context.Context, conn net.Conn, tor torrent.Torrent) *farClient {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	f := &farClient{Conn: conn, tor: tor, hello: make([]byte, farHello)}
	if err := f.greets(ctx, tor.Hash); err != nil {
		t.Fatalf("the handshakes: %v", err)
	}
	return f
}

func (f *farClient) greets(ctx context.Context, h torrent.Hash) error {
	limit, _ := ctx.Deadline()
	f.SetDeadline(limit)
	hello := append([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x05"), h[:]...)
	if _, err := f.Write(append(hello, "-XX0001-farfarfarfar"...)); err != nil {
		return err
	}
	_, err := io.ReadFull(f, f.hello)
	return err
}

// dialFar announces tor behind s, and dials the peer that it learns of.
func dialFar(t *testing.T, ctx context.Context, s *testnet.Sidecar, tor torrent.Torrent) *farClient {
	t.Helper()
	f := &farClient{tor: tor, at: standIns(t, s, tor, 1)[0], hello: make([]byte, farHello)}
	if err := f.dial(t, ctx, s, tor.Hash); err != nil {
		t.Fatal(err)
	}
	return f
}

// dial dials f's stand-in, and says and hears the handshakes for h.
func (f *farClient) dial(t *testing.T, ctx context.Context, s *testnet.Sidecar, h torrent.Hash) error {
	t.Helper()
	conn, err := dialStandIn(ctx, s, t.Name(), f.at)
	if err != nil {
		return err
	}
	t.Cleanup(func() { conn.Close() })
	f.Conn = conn
	return f.greets(ctx, h)
}

// letters reports whether b could be text by chance, as a port's bytes may.
func letters(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// visit dials a member of tor's swarm from node. Both may dial at once, and
// then the smaller key's stream is the one: whichever says hello is taken.
func visit(t *testing.T, ctx context.Context, node *bare.Node, tor torrent.Torrent) *farClient {
	t.Helper()
	s, err := node.Join(ctx, tor.Hash, false)
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	t.Cleanup(func() { cancel(); all.Wait() })
	met := make(chan *farClient)
	hello := func(peer swarm.Key, conn net.Conn) {
		f := &farClient{Conn: conn, tor: tor, peer: peer, hello: make([]byte, farHello)}
		all.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(over, func() { conn.Close() })
			defer stop()
			if f.greets(ctx, tor.Hash) != nil {
				return
			}
			select {
			case met <- f:
				<-over.Done()
			case <-over.Done():
			}
		})
	}
	all.Go(func() {
		for {
			peer, conn, err := s.Accept(over)
			if err != nil {
				return
			}
			hello(peer, conn)
		}
	})
	all.Go(func() {
		if peer, conn, err := node.Dial(over, s); err == nil {
			hello(peer, conn)
		}
	})
	select {
	case f := <-met:
		return f
	case <-ctx.Done():
		t.Fatal("nobody said hello")
		return nil
	}
}

// visited joins tor's swarm, and takes the member that dials once begin was called.
func visited(t *testing.T, ctx context.Context, node *bare.Node, tor torrent.Torrent, begin func()) *farClient {
	t.Helper()
	s, err := node.Join(ctx, tor.Hash, true)
	if err != nil {
		t.Fatal(err)
	}
	begin()
	peer, conn, err := s.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f := greet(t, ctx, conn, tor)
	f.peer = peer
	return f
}

func (f *farClient) say(t *testing.T, id byte, body ...byte) {
	t.Helper()
	b := append(binary.BigEndian.AppendUint32(nil, uint32(1+len(body))), id)
	if _, err := f.Write(append(b, body...)); err != nil {
		t.Fatal(err)
	}
}

// extended says an extended message (BEP 10).
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

// hearUntil reads messages up to one that enough says true of, and returns it.
func (f *farClient) hearUntil(t *testing.T, what string, enough func([]byte) bool) []byte {
	t.Helper()
	for {
		b, err := f.hear()
		if err != nil {
			t.Fatalf("waiting for %s after %d other messages: %v", what, len(f.heard), err)
		}
		if enough(b) {
			return b
		}
	}
}

func is(id byte) func([]byte) bool { return func(b []byte) bool { return b[0] == id } }

func isExtended(number byte) func([]byte) bool {
	return func(b []byte) bool { return len(b) > 1 && b[0] == msgExtended && b[1] == number }
}

// hearFor reads what comes during d, and reports whether the connection lives.
func (f *farClient) hearFor(d time.Duration) (lives bool) {
	f.SetReadDeadline(time.Now().Add(d))
	for {
		if _, err := f.hear(); err != nil {
			e, ok := err.(net.Error)
			return ok && e.Timeout()
		}
	}
}

// everything is what a client with every extension says in its own extended
// handshake, so that the other has somebody to say it to.
func everything() map[string]any {
	return map[string]any{
		"m": map[string]int{"ut_pex": extPEX, "ut_metadata": extMetadata, "upload_only": 3, "ut_holepunch": 4, "lt_donthave": 7},
		"v": "Far 1.0", "reqq": 500,
	}
}

// asks is the far client without the file: it wants the torrent's description
// and takes what else comes.
func (f *farClient) asks(t *testing.T) {
	t.Helper()
	f.extended(t, extHandshake, everything())
	if f.hello[27]&fastAndExtended[7] != 0 {
		f.say(t, msgHaveNone)
	}
	f.say(t, msgInterested)
	f.hearUntil(t, "an extended handshake", isExtended(extHandshake))
	const shown = 1 // for ut_metadata, by package scrub
	f.extended(t, shown, map[string]int{"msg_type": 0, "piece": 0})
	f.hearUntil(t, "the description", isExtended(extMetadata))
	f.hearFor(time.Second)
}

// gives is the far client with the file: it serves the one piece there is,
// until the other has it, and takes what else comes.
func (f *farClient) gives(t *testing.T) {
	t.Helper()
	f.extended(t, extHandshake, everything())
	f.say(t, msgBitfield, 0x80)
	f.say(t, msgUnchoke)
	f.hearUntil(t, "the last request", func(b []byte) bool {
		if b[0] != msgRequest || len(b) != 13 {
			return false
		}
		begin := int(binary.BigEndian.Uint32(b[5:]))
		if begin+farBlock <= len(f.tor.Data) {
			f.say(t, msgPiece, append(slices.Clone(b[1:9]), f.tor.Data[begin:begin+farBlock]...)...)
		}
		return begin+farBlock == len(f.tor.Data)
	})
	f.hearFor(time.Second) // some leave: both have it all
}

// names is what clients call themselves, whole or in a peer id.
var names = regexp.MustCompile(`(?i)-qB|-TR[0-9]|A2-[0-9]|-lt[0-9]|-DE[0-9]|bittorrent/|qbittorrent|libtorrent|transmission|aria2|rtorrent|deluge|[0-9]+\.[0-9]+`)

// namesNobody checks every byte that f has heard. Each message must be one
// that any client could have sent about this torrent, in the one form that
// there is of it: nothing else is in the stream that could say anything. Then
// it looks for what must not be in there, wherever it is.
func (f *farClient) namesNobody(t *testing.T, port uint16, addresses []netip.Addr) {
	t.Helper()
	want := slices.Concat([]byte("\x13BitTorrent protocol"), f.hello[20:28], f.tor.Hash[:])
	id := scrub.PeerID(f.peer)
	if want = append(want, id[:]...); !bytes.Equal(f.hello, want) {
		t.Errorf("the handshake is %q, want %q", f.hello, want)
	}
	for i, b := range f.hello[20:28] {
		if b&^fastAndExtended[i] != 0 {
			t.Errorf("the reserved bits are %x", f.hello[20:28])
		}
	}
	plain := [][]byte{f.hello[:28], f.hello[48:56]} // the rest are hashes
	extended := 0
	for _, b := range f.heard {
		if why := f.odd(b); why != "" {
			t.Errorf("it received %q: %s", b[:min(len(b), 200)], why)
		}
		if isExtended(extHandshake)(b) {
			extended++
		}
		plain = append(plain, f.withoutFile(b))
	}
	if extended == 0 {
		t.Error("no extended handshake came")
	}
	var words [][]byte
	for _, a := range addresses {
		words = append(words, a.AsSlice(), []byte(a.String()))
	}
	words = append(words, fmt.Append(nil, port))
	for _, b := range plain {
		if at := names.FindIndex(b); at != nil {
			t.Errorf("it received %q, which holds %q", b, b[at[0]:at[1]])
		}
		for _, w := range words {
			if bytes.Contains(b, w) {
				t.Errorf("it received %q, which holds %q", b, w)
			}
		}
		if two := binary.BigEndian.AppendUint16(nil, port); b[0] == msgExtended && !letters(two) && bytes.Contains(b, two) {
			t.Errorf("it received %q, which holds the port %d", b, port)
		}
	}
}

// withoutFile returns b without what is the torrent's own.
func (f *farClient) withoutFile(b []byte) []byte {
	if b[0] == msgPiece && len(b) > 9 {
		return b[:9]
	}
	return bytes.TrimSuffix(b, f.tor.Info)
}

// odd says what is wrong with a message; "" when nothing is.
func (f *farClient) odd(b []byte) string {
	sizes := map[byte]int{0: 1, 1: 1, 2: 1, 3: 1, msgHave: 5, msgBitfield: 2, msgRequest: 13, msgCancel: 13,
		msgSuggest: 5, msgHaveAll: 1, msgHaveNone: 1, msgReject: 13}
	switch size, known := sizes[b[0]]; {
	case b[0] == msgExtended && len(b) > 1:
		return f.oddExtended(b[1], b[2:])
	case b[0] == msgPiece && len(b) > 9:
		begin := int(binary.BigEndian.Uint32(b[5:]))
		if binary.BigEndian.Uint32(b[1:]) != 0 || begin > len(f.tor.Data) || !bytes.HasPrefix(f.tor.Data[begin:], b[9:]) {
			return "not the file"
		}
		return ""
	case !known:
		return "a message that tells"
	case len(b) != size:
		return fmt.Sprintf("%d bytes, want %d", len(b), size)
	case b[0] == msgBitfield && b[1]&0x7f != 0:
		return "bits of no piece"
	case size >= 5 && binary.BigEndian.Uint32(b[1:]) != 0:
		return "no such piece"
	case size == 13 && int(binary.BigEndian.Uint32(b[5:])+binary.BigEndian.Uint32(b[9:])) > len(f.tor.Data):
		return "no such block"
	}
	return ""
}

// oddExtended is odd for an extended message: written again from what it says
// it must be the same.
func (f *farClient) oddExtended(number byte, b []byte) string {
	var again []byte
	switch number {
	case extHandshake:
		var said struct {
			M struct {
				Metadata *int `bencode:"ut_metadata,omitempty"`
			} `bencode:"m"`
			Size       int `bencode:"metadata_size,omitempty"`
			Reqq       int `bencode:"reqq"`
			UploadOnly int `bencode:"upload_only"`
		}
		if err := bencode.Unmarshal(b, &said); err != nil {
			return err.Error()
		}
		usual := said.Reqq == 500 || said.Reqq == 250 || said.Reqq > 0 && said.Reqq < 250 && said.Reqq&(said.Reqq-1) == 0
		if said.M.Metadata != nil && *said.M.Metadata != 1 || said.Size != 0 && said.Size != len(f.tor.Info) || !usual || said.UploadOnly&^1 != 0 {
			return "an unusual number"
		}
		again = bencode.MustMarshal(said)
	case extMetadata:
		if bytes.HasSuffix(b, f.tor.Info) {
			again = fmt.Appendf(nil, "d8:msg_typei1e5:piecei0e10:total_sizei%dee%s", len(f.tor.Info), f.tor.Info)
		} else {
			again = []byte("d8:msg_typei0e5:piecei0ee") // it wants the description itself
		}
	default:
		return "an extended message that tells"
	}
	if !bytes.Equal(b, again) {
		return fmt.Sprintf("it also says something else than %q", again)
	}
	return ""
}

// realOnes are the addresses that nobody may hear of.
func realOnes(network *testnet.Net) []netip.Addr {
	all := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	for _, s := range network.Sidecars {
		all = append(all, s.Source)
	}
	for _, r := range network.Relays {
		all = append(all, netip.MustParseAddrPort(r.Addr).Addr())
	}
	for _, tr := range network.Trackers {
		all = append(all, netip.MustParseAddrPort(tr.Addr).Addr())
	}
	return all
}

// road is how people use k: behind the SOCKS proxy where it has a setting for
// it, else under `shoal run`.
func road(k clients.Kind) end { return end{k, !k.SOCKS} }

// bareNode starts a node that dials from an address of its own.
func bareNode(t *testing.T, ctx context.Context, network *testnet.Net) *bare.Node {
	t.Helper()
	n, err := bare.Start(ctx, network.Network, t.TempDir(), bareSource)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

var bareSource = netip.AddrFrom4([4]byte{127, 3, 251, 1})

// TestWhatTheFarClientReceivesNamesNobody: every client, plain and encrypted,
// gives a file to one that writes down every byte, and takes another one from
// it. Between the two is the client's own sidecar alone.
func TestWhatTheFarClientReceivesNamesNobody(t *testing.T) {
	network := network(t)
	node := bareNode(t, deadline(t), network)
	t.Run("from", func(t *testing.T) { // returns when all in it are over
		for _, kind := range clients.All {
			for _, encryption := range []clients.Encryption{clients.Disable, clients.Require} {
				t.Run(fmt.Sprintf("%s-%v", kind.Name, encryption), func(t *testing.T) {
					t.Parallel()
					ctx := deadline(t)
					near := road(kind).startWith(t, ctx, network, network.Sidecars[0], func(c *clients.Config) {
						c.Encryption = encryption
						if c.SOCKS != "" {
							c.User, c.Password = fmt.Sprintf("%s-%v", kind.Name, encryption), "none" // a client of its own
						}
					})
					gives, takes := noise(t, 2*farBlock, httpTracker), noise(t, 3*farBlock, httpTracker)
					addresses := realOnes(network)

					seed(t, ctx, near, gives)
					announced(t, ctx, near, gives) // before it can hear of the other
					visitor := visit(t, ctx, node, gives)
					visitor.asks(t)
					visitor.namesNobody(t, near.Config().Port, addresses)

					host := visited(t, ctx, node, takes, func() { add(t, ctx, near, takes) })
					host.gives(t)
					arrives(t, ctx, near, takes)
					host.namesNobody(t, near.Config().Port, addresses)
					t.Logf("%d and %d messages", len(visitor.heard), len(host.heard))
				})
			}
		}
	})
}
