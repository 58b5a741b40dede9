package integration

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"golang.org/x/net/proxy"

	bench "github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/capture"
	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/netns"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

// realAddresses belong to nobody on the Internet (RFC 5737). Whoever dials them
// leaves by the interface that is recorded.
var realAddresses = []netip.Addr{
	netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.AddrFrom4([4]byte{192, 0, 2, 2}), netip.AddrFrom4([4]byte{192, 0, 2, 3}),
}

var realAddress6 = netip.MustParseAddr("2001:db8:1::1")

// exit is a way out of this namespace, with a recorder on it.
type exit struct{ recorder *capture.Recorder }

// watchExit makes a way out that nobody is to take.
func watchExit(t *testing.T) exit {
	t.Helper()
	remove, err := netns.AddExit()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	r, err := capture.Start(netns.Exit, maxTrace)
	if err != nil {
		t.Fatal(err)
	}
	return exit{r}
}

// unused checks that no packet went out but the test's own, one for each
// family, which show that the recorder sees what goes out.
func (e exit) unused(t *testing.T) {
	t.Helper()
	var own []netip.AddrPort
	for _, a := range []netip.Addr{realAddresses[0], realAddress6} {
		conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: a.AsSlice(), Port: 9})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("control")); err != nil {
			t.Fatal(err)
		}
		own = append(own, conn.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	trace := recorded(t, e.recorder)
	seen := 0
	for flow := range trace.Payload {
		switch {
		case slices.Contains(own, flow.From):
			seen++
		case flow.To.Addr().Is6() && flow.To.Addr().IsLinkLocalMulticast() && flow.To.Port() == 0:
			// ICMPv6, the kernel's own: the interface has just come up.
		default:
			t.Errorf("a packet went out: %v, %q", flow, trace.Payload[flow])
		}
	}
	for kind, n := range trace.Other {
		t.Errorf("%d packets of EtherType %#x went out", n, kind)
	}
	if seen != len(own) {
		t.Errorf("the recording shows %d of the test's own %d packets", seen, len(own))
	}
}

// TestABadAppleMakesNobodyDialOut: a peer without any sidecar's manners names
// real addresses in every way that BitTorrent has, to a client that wants a
// file and so wants peers.
func TestABadAppleMakesNobodyDialOut(t *testing.T) {
	network := network(t)
	ctx := deadline(t)
	node := bareNode(t, ctx, network)
	out := watchExit(t)
	before := refused(t, ctx, network.Sidecars[0])
	victim := client(t, ctx, network.Sidecars[0], nil)
	tor := noise(t, 2*farBlock, httpTracker)
	f := visited(t, ctx, node, tor, func() { add(t, ctx, victim, tor) })
	f.say(t, msgHaveAll)
	f.lure(t)
	f.say(t, msgUnchoke)
	f.hearUntil(t, "a request", is(msgRequest)) // it has read all of the above
	f.lure(t)
	if !f.hearFor(4 * time.Second) {
		t.Error("the connection ended before the client could dial")
	}
	out.unused(t)
	after := refused(t, ctx, network.Sidecars[0])
	for _, reason := range []string{"bittorrent", "unreadable", "web_seed", "tls", "datagram", "unknown_standin"} {
		if n := after[reason] - before[reason]; n != 0 {
			t.Errorf("the client tried %d times what is refused as %s", n, reason)
		}
	}
}

// refused returns what a sidecar has refused so far.
func refused(t *testing.T, ctx context.Context, s *testnet.Sidecar) map[string]uint64 {
	t.Helper()
	status, err := s.ReadStatus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return status.Refused
}

// lure names real addresses in an extended handshake (BEP 10), PORT (BEP 5),
// PEX (BEP 11) and holepunch (BEP 55). The last two it sends under the numbers
// that qBittorrent gives them, whether or not it was told.
func (f *farClient) lure(t *testing.T) {
	t.Helper()
	const port = 6881
	first := realAddresses[0].AsSlice()
	hello := everything()
	hello["yourip"], hello["ipv4"], hello["p"] = first, first, port
	hello["ipv6"] = realAddress6.AsSlice()
	f.extended(t, extHandshake, hello)
	f.say(t, msgPort, binary.BigEndian.AppendUint16(nil, port)...)
	f.say(t, msgAllowedFast, 0, 0, 0, 0)
	var added []byte
	for _, a := range realAddresses {
		added = binary.BigEndian.AppendUint16(append(added, a.AsSlice()...), port)
	}
	added6 := binary.BigEndian.AppendUint16(realAddress6.AsSlice(), port)
	f.extended(t, extPEX, map[string]any{"added": added, "added.f": []byte{0, 0, 0}, "added6": added6, "added6.f": []byte{0}})
	const holepunch, rendezvous, connect, ipv4 = 4, 0, 1, 0
	for _, kind := range []byte{rendezvous, connect} {
		f.say(t, msgExtended, slices.Concat([]byte{holepunch, kind, ipv4}, added[:6], make([]byte, 4))...)
	}
}

// TestWhatTheClientHearsOfABadAppleNamesNobody: the same from the client's
// seat, byte by byte.
func TestWhatTheClientHearsOfABadAppleNamesNobody(t *testing.T) {
	network := network(t)
	ctx := deadline(t)
	node := bareNode(t, ctx, network)
	tor := noise(t, 2*farBlock, httpTracker)
	s, err := node.Join(ctx, tor.Hash, true)
	if err != nil {
		t.Fatal(err)
	}
	dialled := make(chan net.Conn, 1)
	go func() {
		defer close(dialled)
		if conn, err := dialStandIn(ctx, network.Sidecars[0], t.Name(), standIns(t, network.Sidecars[0], tor, 1)[0]); err == nil {
			dialled <- conn
		}
	}()
	_, conn, err := s.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	near, ok := <-dialled
	if !ok {
		t.Fatal("the stand-in could not be dialled")
	}
	met := make(chan *farClient)
	go func() { met <- greet(t, ctx, near, tor) }()
	apple := greet(t, ctx, conn, tor)
	client := <-met
	client.peer = s.Self()
	client.extended(t, extHandshake, everything())
	apple.hearUntil(t, "an extended handshake", isExtended(extHandshake)) // so its sidecar knows the numbers
	apple.say(t, msgHaveAll)
	apple.lure(t)
	apple.say(t, msgUnchoke)
	client.hearUntil(t, "what was said last", is(msgUnchoke))
	client.namesNobody(t, 6881, append(realOnes(network), append(realAddresses, realAddress6, bareSource)...))
}

// standIns announces tor behind s and returns n addresses of peers or more.
func standIns(t *testing.T, s *testnet.Sidecar, tor torrent.Torrent, n int) []string {
	t.Helper()
	var known bench.Announced
	order := bench.Announce{SOCKS: s.SOCKS, User: t.Name(), Hashes: []bench.Hash{bench.Hash(tor.Hash)}, Peers: n, Limit: time.Minute}
	if err := new(bench.Peer).Announce(order, &known); err != nil {
		t.Error(err)
	}
	if known.Swarms[0].Trouble != "" {
		t.Errorf("announcing: %s", known.Swarms[0].Trouble)
	}
	return append(known.Swarms[0].Peers, "")
}

func dialStandIn(ctx context.Context, s *testnet.Sidecar, user, at string) (net.Conn, error) {
	d, err := proxy.SOCKS5("tcp", s.SOCKS, &proxy.Auth{User: user, Password: "none"}, new(net.Dialer))
	if err != nil {
		return nil, err
	}
	return d.(proxy.ContextDialer).DialContext(ctx, "tcp", at)
}

// TestAForgedRecordLeadsNowhere: who knows a torrent can make records for its
// swarm, and say in them what it likes. A record has no room for an address:
// only for relays, and those are looked up in what the trackers have signed.
func TestAForgedRecordLeadsNowhere(t *testing.T) {
	network := network(t)
	ctx := deadline(t)
	node := bareNode(t, ctx, network)
	out := watchExit(t)
	tor := noise(t, 2*farBlock, httpTracker)
	s, err := node.Join(ctx, tor.Hash, true)
	if err != nil {
		t.Fatal(err)
	}
	honest := standIns(t, network.Sidecars[0], tor, 1)[0]
	conn, err := dialStandIn(ctx, network.Sidecars[0], t.Name(), honest)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, stream, err := s.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()

	secret, err := announce.LoadSecret(t.TempDir(), "forger", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	member := secret.Member(tor.Hash)
	tracker, day := node.Tracker(), announce.Days(tor.Hash, time.Now())[0]
	var nobody [32]byte
	copy(nobody[:], realAddresses[0].AsSlice())
	forged, err := announce.Seal(member, tracker, day, announce.Record{
		Meetings: []announce.Meeting{member.Meeting(nobody, day)}, Sequence: 1, Expiry: time.Now().Add(time.Hour).Unix(), Seeder: true,
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	rumour := binary.BigEndian.AppendUint32(append(forged.Append(nil), tracker[:]...), uint32(day))
	if err := stream.(interface{ Gossip([]byte) error }).Gossip(rumour); err != nil {
		t.Fatal(err)
	}
	for _, at := range standIns(t, network.Sidecars[0], tor, 2) {
		if at == "" {
			continue
		}
		if a := netip.MustParseAddrPort(at).Addr(); !peers.Is(a) {
			t.Errorf("the client was told of %v", a)
		}
		if at != honest {
			if c, err := dialStandIn(ctx, network.Sidecars[0], t.Name(), at); err == nil {
				c.Close()
				t.Errorf("%s of a forged record could be dialled", at)
			}
		}
	}
	out.unused(t)
}

// lures makes a .torrent of tor's whose trackers (BEP 3, 12, 15), web seeds
// (BEP 17, 19) and DHT nodes (BEP 5) are at real addresses, as somebody would
// make it who wants to know who downloads.
func lures(tor torrent.Torrent) torrent.Torrent {
	a, b, c := realAddresses[0].String(), realAddresses[1].String(), realAddresses[2].String()
	tor.File = bencode.MustMarshal(map[string]any{
		"info":          bencode.Bytes(tor.Info),
		"announce":      "http://" + a + ":6969/announce",
		"announce-list": [][]string{{"http://" + a + ":6969/announce"}, {"udp://" + b + ":6969/announce"}, {"http://[" + realAddress6.String() + "]:6969/announce"}},
		"url-list":      []string{"http://" + c + "/files/", "http://seed.invalid/files/"},
		"httpseeds":     []string{"http://" + b + "/seed"},
		"nodes":         []any{[]any{a, 6881}, []any{b, 6881}},
	})
	return tor
}

// exitRoads are the clients on the roads on which none has another way out.
// Deluge behind SOCKS has: whenever it starts, and before it has read its
// settings, it asks the router for a port and DNS for a node of the DHT. No
// setting keeps it from that.
func exitRoads() (all []end) {
	for _, e := range ends() {
		if e.under || e.Name != clients.Deluge.Name {
			all = append(all, e)
		}
	}
	return all
}

// TestAHostileTorrentLeadsNowhere: its tracker at a real address, which would
// hand out real addresses and redirect, is never asked. The sidecar answers
// every client in its place.
func TestAHostileTorrentLeadsNowhere(t *testing.T) {
	network := network(t)
	out := watchExit(t)
	before := refused(t, deadline(t), network.Sidecars[0])
	t.Run("for", func(t *testing.T) {
		for _, e := range exitRoads() {
			t.Run(e.String(), func(t *testing.T) {
				t.Parallel()
				ctx := deadline(t)
				tor := lures(noise(t, 1<<20))
				c := e.start(t, ctx, network, network.Sidecars[0])
				add(t, ctx, c, tor)
				announced(t, ctx, c, tor)
				if e.under {
					return
				}
				err := process.Until(ctx, 100*time.Millisecond, func() (bool, error) {
					return refused(t, ctx, network.Sidecars[0])["web_seed"] > before["web_seed"], nil
				})
				if err != nil {
					t.Errorf("no web seed was refused: %v", err)
				}
			})
		}
	})
	out.unused(t)
}

// TestNoClientUsesAnotherWay: there is an interface that leads out, and a
// resolver beyond it. Every client seeds, and no packet leaves by it.
func TestNoClientUsesAnotherWay(t *testing.T) {
	network := network(t)
	out := watchExit(t)
	resolveOutside(t)
	other := client(t, deadline(t), network.Sidecars[1], func(c *clients.Config) { c.NoDHT, c.NoQueue = true, true })
	t.Run("through", func(t *testing.T) {
		for _, e := range exitRoads() {
			t.Run(e.String(), func(t *testing.T) {
				t.Parallel()
				ctx := deadline(t)
				tor := noise(t, 1<<20, httpTracker)
				c := e.startWith(t, ctx, network, network.Sidecars[0], func(c *clients.Config) {
					c.NoDHT = !e.under // behind SOCKS its first nodes are looked up outside
				})
				seed(t, ctx, c, tor)
				announced(t, ctx, c, tor)
				add(t, ctx, other, tor)
				arrives(t, ctx, other, tor)
			})
		}
	})
	out.unused(t)
}

// resolveOutside has this namespace look up names beyond the exit, as a
// computer does. Before, none are looked up.
func resolveOutside(t *testing.T) {
	t.Helper()
	for file, content := range map[string]string{
		"/etc/nsswitch.conf": "hosts: files dns\n",
		"/etc/resolv.conf":   "nameserver 203.0.113.1\noptions timeout:1 attempts:1\n",
	} {
		old, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(old), "127.0.0.1") && !strings.Contains(string(old), "hosts: files\n") {
			t.Fatalf("%s is the machine's own", file) // package netns has put its own there
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(file, old, 0o644); err != nil {
				t.Error(err)
			}
		})
	}
}
