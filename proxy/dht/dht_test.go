package dht

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

var update = flag.Bool("update", false, "write the golden file anew")

var (
	client = netip.MustParseAddrPort("127.0.0.1:21001")
	router = netip.MustParseAddrPort("67.215.246.10:6881")
	peers  = []netip.AddrPort{netip.MustParseAddrPort("198.18.1.2:6881"), netip.MustParseAddrPort("198.18.3.4:6881")}
	start  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

func config() Config {
	return Config{Key: [32]byte{1}, External: netip.MustParseAddrPort("198.18.0.2:6881")}
}

func TestGoldenAnswers(t *testing.T) {
	const file = "testdata/packets.txt"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cfg := config()
	cfg.Nodes = DefaultNodes[:2]
	n, now := NewNode(cfg), start
	for line := range strings.Lines(string(old)) {
		quoted, ok := strings.CutPrefix(line, "> ")
		if !ok {
			if strings.HasPrefix(line, "#") || line == "\n" {
				out.WriteString(line)
			}
			continue
		}
		out.WriteString(line)
		packet, err := strconv.Unquote(strings.TrimSpace(quoted))
		if err != nil {
			t.Fatalf("%s: %v", quoted, err)
		}
		now = now.Add(time.Second)
		eff := n.Handle([]byte(withToken(n, packet, now)), client, router, now)
		for _, h := range eff.Ask {
			fmt.Fprintf(&out, "ask %x\n", h[:])
			eff.Replies = append(eff.Replies, n.Answer(h, peers, now)...)
		}
		for _, a := range eff.Announced {
			fmt.Fprintf(&out, "announced %x port=%d seed=%v\n", a.Hash[:], a.Port, a.Seed)
		}
		if eff.Refused != nil {
			fmt.Fprintf(&out, "refused %v\n", eff.Refused)
		}
		for _, p := range eff.Replies {
			if p.From != router || p.To != client {
				t.Errorf("%s: answered from %v to %v", quoted, p.From, p.To)
			}
			fmt.Fprintf(&out, "< %q\n", p.Data)
		}
	}
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, got := strings.Split(string(old), "\n"), strings.Split(out.String(), "\n")
	for i := range min(len(want), len(got)) {
		if got[i] != want[i] {
			t.Fatalf("%s:%d:\n got %s\nwant %s", file, i+1, got[i], want[i])
		}
	}
	if len(want) != len(got) {
		t.Fatalf("%s: %d lines, want %d", file, len(got), len(want))
	}
}

// withToken puts the token that is good now where a packet has eight T.
func withToken(n *Node, packet string, now time.Time) string {
	at := strings.Index(packet, "9:info_hash20:")
	if at < 0 || len(packet) < at+14+20 {
		return packet
	}
	h := swarm.Hash([]byte(packet[at+14 : at+34]))
	return strings.Replace(packet, "TTTTTTTT", string(n.token(h, client.Addr(), now)), 1)
}

// query builds one from the client.
func packet(method, txn string, args map[string]any) []byte {
	a := map[string]any{"id": "abcdefghij0123456789"}
	for k, v := range args {
		a[k] = v
	}
	return bencode.MustMarshal(map[string]any{"a": a, "q": method, "t": txn, "y": "q"})
}

func hashOf(i int) (h swarm.Hash) {
	copy(h[:], fmt.Sprintf("info-hash-%010d", i))
	return h
}

func getPeers(h swarm.Hash) []byte {
	return packet("get_peers", "gp", map[string]any{"info_hash": string(h[:])})
}

// answer decodes one reply.
func answer(t *testing.T, eff Effects) (r map[string]any) {
	t.Helper()
	if len(eff.Replies) != 1 {
		t.Fatalf("%d replies, want 1", len(eff.Replies))
	}
	return body(t, eff.Replies[0])
}

func body(t *testing.T, p Packet) map[string]any {
	t.Helper()
	var m map[string]any
	if err := bencode.Unmarshal(p.Data, &m); err != nil {
		t.Fatalf("%q: %v", p.Data, err)
	}
	r, _ := m["r"].(map[string]any)
	return r
}

func TestAWholeLookupAsksOnceAndGivesPeersToAll(t *testing.T) {
	n := NewNode(config())
	h := hashOf(1)
	first := n.Handle(getPeers(h), client, router, start)
	if r := answer(t, first); len(first.Ask) != 0 || r["values"] != nil || len(r["nodes"].(string)) != 26*given {
		t.Fatalf("the first query: ask %v, %v", first.Ask, r)
	}
	asks, waiting := 0, 0
	for i := range 5 {
		eff := n.Handle(getPeers(h), client, DefaultNodes[i], start)
		asks += len(eff.Ask)
		waiting += 1 - len(eff.Replies)
	}
	if asks != 1 || waiting != 5 {
		t.Fatalf("%d asks, %d waiting, want 1 and 5", asks, waiting)
	}
	replies := n.Answer(h, peers, start)
	if len(replies) != 5 {
		t.Fatalf("%d replies, want 5", len(replies))
	}
	for i, p := range replies {
		r := body(t, p)
		if p.From != DefaultNodes[i] || len(r["values"].([]any)) != 2 || r["token"] == nil || r["nodes"] == nil {
			t.Errorf("reply %d from %v: %v", i, p.From, r)
		}
	}
	if again := n.Handle(getPeers(h), client, router, start.Add(fresh-1)); len(again.Ask) > 0 || len(answer(t, again)["values"].([]any)) != 2 {
		t.Errorf("soon after: %v", again)
	}
	if later := n.Handle(getPeers(h), client, router, start.Add(fresh)); len(later.Ask) != 1 || len(later.Replies) != 0 {
		t.Errorf("later: %v", later)
	}
	if none := n.Answer(h, nil, start.Add(fresh)); len(none) != 1 || body(t, none[0])["values"] != nil || body(t, none[0])["token"] == nil {
		t.Errorf("no peers: %v", none)
	}
	// An empty answer is kept for one search only.
	if again := n.Handle(getPeers(h), client, router, start.Add(fresh+empty-1)); len(again.Ask) > 0 || len(again.Replies) != 1 {
		t.Errorf("asked again within %v: %+v", empty, again)
	}
	if later := n.Handle(getPeers(h), client, router, start.Add(fresh+empty)); len(later.Ask) != 1 {
		t.Errorf("not asked again after %v: %+v", empty, later)
	}
	if n.Answer(hashOf(2), peers, start) != nil {
		t.Error("an answer that nobody asked for was sent")
	}
}

func TestALostAskIsAskedAgain(t *testing.T) {
	cfg := config()
	cfg.Rule = func(swarm.Hash) Rule { return Joined }
	n := NewNode(cfg)
	h := hashOf(1)
	for i, want := range []int{1, 0, 0, 1, 0} {
		at := start.Add(time.Duration(i) * (lost/2 - time.Second + time.Second/2))
		if got := len(n.Handle(getPeers(h), client, router, at).Ask); got != want {
			t.Errorf("query %d at %v: %d asks, want %d", i, at.Sub(start), got, want)
		}
	}
	if got := len(n.Answer(h, nil, start)); got != 2 {
		t.Errorf("%d replies, want 2: those before the second ask are too old", got)
	}
}

func TestWaitingQueriesAreBounded(t *testing.T) {
	cfg := config()
	cfg.Rule = func(swarm.Hash) Rule { return Joined }
	n := NewNode(cfg)
	for range 10 * maxWaiter {
		n.Handle(getPeers(hashOf(1)), client, router, start)
	}
	if got := len(n.Answer(hashOf(1), peers, start)); got != maxWaiter {
		t.Errorf("%d replies, want %d", got, maxWaiter)
	}
}

func TestTwentyNewSwarmsAnHour(t *testing.T) {
	joined := hashOf(999)
	cfg := config()
	cfg.Rule = func(h swarm.Hash) Rule {
		if h == joined {
			return Joined
		}
		return New
	}
	n := NewNode(cfg)
	ask := func(h swarm.Hash, now time.Time) (asks int, err error) {
		for range 2 {
			eff := n.Handle(getPeers(h), client, router, now)
			asks, err = asks+len(eff.Ask), eff.Refused
		}
		return asks, err
	}
	total := 0
	for i := range 100 {
		got, err := ask(hashOf(i), start.Add(time.Duration(i)*time.Second))
		total += got
		if (err != nil) != (i >= MaxNew) || err != nil && !errors.Is(err, ErrTooMany) {
			t.Errorf("swarm %d: %v", i, err)
		}
	}
	if total != MaxNew {
		t.Errorf("%d asks, want %d", total, MaxNew)
	}
	if got, err := ask(joined, start); got != 1 || err != nil {
		t.Errorf("a joined swarm: %d asks, %v", got, err)
	}
	if r := answer(t, n.Handle(getPeers(hashOf(50)), client, router, start)); r["values"] != nil || r["nodes"] == nil || r["token"] == nil {
		t.Errorf("one too many was answered %v, want nodes and a token", r)
	}
	if got, _ := ask(hashOf(0), start.Add(time.Second)); got != 0 {
		t.Errorf("one of the twenty, asked again: %d more asks while the first is open, want 0", got)
	}
	if got, err := ask(hashOf(200), start.Add(time.Hour+time.Second)); got != 1 || err != nil {
		t.Errorf("an hour later: %d asks, %v", got, err)
	}
}

func TestATokenIsForOneTorrentOneAddressAndTenMinutes(t *testing.T) {
	n, other := NewNode(config()), NewNode(Config{Key: [32]byte{2}})
	h, at := hashOf(1), start.Truncate(tokenWindow)
	token := string(n.token(h, client.Addr(), at))
	for _, c := range []struct {
		name   string
		n      *Node
		h      swarm.Hash
		client string
		after  time.Duration
		want   bool
	}{
		{"its own", n, h, "127.0.0.1", 0, true},
		{"nearly twenty minutes later", n, h, "127.0.0.1", 2*tokenWindow - 1, true},
		{"twenty minutes later", n, h, "127.0.0.1", 2 * tokenWindow, false},
		{"another torrent", n, hashOf(2), "127.0.0.1", 0, false},
		{"another address", n, h, "127.0.0.2", 0, false},
		{"another key", other, h, "127.0.0.1", 0, false},
	} {
		if got := c.n.knows(token, c.h, netip.MustParseAddr(c.client), at.Add(c.after)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if n.knows("", h, client.Addr(), at) || n.knows(token+"x", h, client.Addr(), at) {
		t.Error("an empty or a longer token was taken")
	}
}

func TestAnnouncesToAllNodesAreOne(t *testing.T) {
	n := NewNode(config())
	h := hashOf(1)
	n.Handle(getPeers(h), client, router, start)
	n.Handle(getPeers(h), client, router, start)
	n.Answer(h, nil, start)
	token := string(n.token(h, client.Addr(), start))
	say := func(args map[string]any, at time.Duration) []Announced {
		args["info_hash"], args["token"] = string(h[:]), token
		return n.Handle(packet("announce_peer", "x", args), client, router, start.Add(at)).Announced
	}
	for i, c := range []struct {
		args map[string]any
		at   time.Duration
		want []Announced
	}{
		{map[string]any{"port": 6881}, 0, []Announced{{h, 6881, false}}},
		{map[string]any{"port": 6881}, time.Second, nil},
		{map[string]any{"port": 6881, "seed": 1}, 2 * time.Second, []Announced{{h, 6881, true}}},
		{map[string]any{"port": 6881, "seed": 1}, time.Minute, nil},
		{map[string]any{"port": 6881, "seed": 1}, 63 * time.Second, []Announced{{h, 6881, true}}},
		{map[string]any{"port": 5, "implied_port": 1}, 64 * time.Second, []Announced{{h, 21001, false}}},
		{map[string]any{"port": 1}, 65 * time.Second, []Announced{{h, 0, false}}},
		{map[string]any{"port": 0}, 66 * time.Second, nil},
		{map[string]any{"port": -1}, 67 * time.Second, nil},
		{map[string]any{"port": 65536}, 68 * time.Second, nil},
	} {
		if got := say(c.args, c.at); !slices.Equal(got, c.want) {
			t.Errorf("announce %d: %v, want %v", i, got, c.want)
		}
	}
}

func TestValuesAreBoundedAndIPv4(t *testing.T) {
	n := NewNode(config())
	h := hashOf(1)
	n.Handle(getPeers(h), client, router, start)
	n.Handle(getPeers(h), client, router, start)
	many := []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:5"), netip.MustParseAddrPort("198.18.1.2:0"), netip.MustParseAddrPort("[::ffff:198.18.9.9]:7")}
	for i := range 300 {
		many = append(many, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 4, byte(i)}), 9))
	}
	replies := n.Answer(h, many, start)
	values := body(t, replies[0])["values"].([]any)
	if len(values) != MaxValues || values[0] != "\xc6\x12\x09\x09\x00\x07" {
		t.Errorf("%d values, the first %q", len(values), values[0])
	}
	if len(replies[0].Data) > 1024 {
		t.Errorf("a reply of %d bytes", len(replies[0].Data))
	}
}

func TestMemoryIsBounded(t *testing.T) {
	cfg := config()
	cfg.Rule = func(swarm.Hash) Rule { return Joined }
	n := NewNode(cfg)
	now := start
	for i := range MaxSwarms + 10 {
		n.Handle(getPeers(hashOf(i)), client, router, now)
	}
	if len(n.swarms) != MaxSwarms {
		t.Errorf("%d swarms, want %d", len(n.swarms), MaxSwarms)
	}
	if eff := n.Handle(getPeers(hashOf(-1)), client, router, now.Add(keep)); !errors.Is(eff.Refused, ErrTooMany) {
		t.Errorf("a full table: %v", eff.Refused)
	}
	if eff := n.Handle(getPeers(hashOf(-1)), client, router, now.Add(keep+1)); eff.Refused != nil || len(n.swarms) != 1 {
		t.Errorf("a day later: %v, %d swarms", eff.Refused, len(n.swarms))
	}
	cfg.Rule = nil
	n = NewNode(cfg)
	for i := range 10 * maxOnce {
		id := fmt.Sprintf("%020d", i)
		n.Handle(packet("get_peers", "x", map[string]any{"id": id, "info_hash": fmt.Sprintf("info-hash-%010d", i)}), client, router, now)
	}
	if len(n.once) > maxOnce || len(n.ids) > maxIDs || len(n.swarms) > MaxNew {
		t.Errorf("%d once, %d ids, %d swarms", len(n.once), len(n.ids), len(n.swarms))
	}
}

func TestGreetingsArePingsFromEveryNode(t *testing.T) {
	n := NewNode(config())
	packets := n.Greet(client)
	if len(packets) != MaxNodes {
		t.Fatalf("%d greetings, want %d", len(packets), MaxNodes)
	}
	for i, p := range packets {
		q, err := parse(p.Data)
		if err != nil || q.Method != "ping" || p.From != DefaultNodes[i] || p.To != client {
			t.Errorf("greeting %d: %v, %+v", i, err, p)
		}
		want := n.nodeID(p.From.Addr())
		if a, err := q.arguments(); err != nil || a.ID != string(want[:]) {
			t.Errorf("greeting %d has another id than its node: %v", i, err)
		}
	}
}

// Transmission takes any node's answer to its ping and waits for four.
func TestAllNodesAnswerTransmissionsFirstPing(t *testing.T) {
	n := NewNode(config())
	for i, c := range []struct {
		txn  string
		want int
	}{{"pn\x00\x00", 1 + MaxNodes}, {"pn\x00\x00", 1}} {
		eff := n.Handle(packet("ping", c.txn, nil), client, router, start)
		if len(eff.Replies) != c.want {
			t.Fatalf("%d answers to ping %d, want %d", len(eff.Replies), i, c.want)
		}
		for j, p := range eff.Replies {
			var m struct {
				Txn  string `bencode:"t"`
				Kind string `bencode:"y"`
				Said struct {
					ID string `bencode:"id"`
				} `bencode:"r"`
			}
			id := n.nodeID(p.From.Addr())
			err := bencode.Unmarshal(p.Data, &m)
			if err != nil || m.Txn != c.txn || m.Kind != "r" || m.Said.ID != string(id[:]) || p.To != client {
				t.Errorf("answer %d to ping %d: %q from %v", j, i, p.Data, p.From)
			}
			if j > 0 && p.From != DefaultNodes[j-1] {
				t.Errorf("answer %d comes from %v", j, p.From)
			}
		}
	}
	if eff := NewNode(config()).Handle(packet("ping", "x", nil), client, router, start); len(eff.Replies) != 1 {
		t.Errorf("another client's first ping has %d answers", len(eff.Replies))
	}
}

func TestNodesNextToTheTargetAreGiven(t *testing.T) {
	n := NewNode(config())
	if len(n.nodes) != MaxNodes {
		t.Fatalf("%d nodes, want %d", len(n.nodes), MaxNodes)
	}
	blocks, told := map[netip.Prefix]bool{}, map[string]bool{}
	for _, v := range n.nodes {
		p, _ := v.addr.Addr().Prefix(24)
		blocks[p] = true
		eff := n.Handle(packet("find_node", "x", map[string]any{"target": string(v.id[:])}), client, router, start)
		nodes := answer(t, eff)["nodes"].(string)
		if len(nodes) != 26*given || nodes[:20] != string(v.id[:]) {
			t.Errorf("the node itself is not the first of %q", nodes)
		}
		// Each node says that it is who it was said to be.
		if r := answer(t, n.Handle(packet("ping", "x", nil), client, v.addr, start)); r["id"] != string(v.id[:]) {
			t.Errorf("node at %v has two ids", v.addr)
		}
	}
	for range 2 * MaxNodes / given {
		nodes := answer(t, n.Handle(packet("find_node", "x", map[string]any{"target": "abcdefghij0123456789"}), client, router, start))["nodes"].(string)
		seen := map[string]bool{}
		for i := 0; i < len(nodes); i += 26 {
			seen[nodes[i:i+26]], told[nodes[i:i+26]] = true, true
		}
		if len(seen) != given {
			t.Errorf("%d nodes in one answer, want %d", len(seen), given)
		}
	}
	if len(told) < MaxNodes/2 {
		t.Errorf("a client that asks for its neighbours comes to know %d nodes", len(told))
	}
	if len(blocks) != MaxNodes {
		t.Errorf("nodes in %d blocks, want %d", len(blocks), MaxNodes)
	}
}

// The examples of BEP 42.
func TestNodeIDsFollowBEP42(t *testing.T) {
	for _, c := range []struct {
		ip   string
		last byte
		want string
	}{
		{"124.31.75.21", 1, "5fbfbf"},
		{"21.75.31.124", 86, "5a3ce9"},
		{"65.23.51.170", 22, "a5d432"},
		{"84.124.73.14", 65, "1b0321"},
		{"43.213.53.83", 90, "e56f6c"},
	} {
		want, _ := hex.DecodeString(c.want)
		var id [20]byte
		id[2], id[19] = want[2]&7, c.last // the low three bits are free
		secure(&id, netip.MustParseAddr(c.ip))
		if !bytes.Equal(id[:3], want) {
			t.Errorf("%s, %d: %x, want %x", c.ip, c.last, id[:3], want)
		}
	}
}

func TestAClientOverIPv6FindsNoNodes(t *testing.T) {
	n := NewNode(config())
	eff := n.Handle(packet("find_node", "x", map[string]any{"target": "mnopqrstuvwxyz123456"}), netip.MustParseAddrPort("[::1]:5"), netip.MustParseAddrPort("[2001:db8::1]:6"), start)
	if r := answer(t, eff); r["nodes6"] != "" || r["nodes"] != nil {
		t.Errorf("answered %v", r)
	}
}

func TestTruncatedPacketsAreRefused(t *testing.T) {
	n := NewNode(config())
	for _, whole := range packets(t) {
		if _, err := parse(whole); err != nil {
			continue
		}
		for i := range len(whole) {
			eff := n.Handle(whole[:i], client, router, start)
			if !errors.Is(eff.Refused, ErrMalformed) || len(eff.Replies)+len(eff.Ask) > 0 {
				t.Errorf("took %d of %d bytes of %q: %+v", i, len(whole), whole, eff)
			}
		}
	}
}

func TestCheckRefusesWhatIsNotSmallAndSound(t *testing.T) {
	for _, good := range []string{
		"de", "le", "i0e", "i-1e", "i999999999999999999e", "0:", "3:abc", "d1:ai1ee", "ld1:alleeee", "llllleeeee",
	} {
		if err := check([]byte(good)); err != nil {
			t.Errorf("check(%q): %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "d", "l", "i", "e", "ie", "i-e", "i-0e", "i00e", "i01e", "i-01e", "i1", "i1x", "i 1e", "i1.0e", "i9999999999999999999e",
		"1", "1:", "01:a", "00:", "2:a", "9999:a", "99999999999999999999:a", "-1:a", ":", "a", "di1ei2ee", "d1:ae", "d1:a1:b1:ce", "d1:a", "d1:ai1e", "lle",
		"dee", "i1ei2e", "lllllleeeeee", "d1:ad1:ad1:ad1:ad1:ad1:ai1eeeeeee", "\x00", "d\xff:",
	} {
		if err := check([]byte(bad)); err == nil {
			t.Errorf("check(%q) took it", bad)
		}
	}
	deep := bytes.Repeat([]byte("l"), MaxPacket)
	if err := check(deep); err == nil {
		t.Error("check took lists without an end")
	}
	long := packet("ping", "x", map[string]any{"pad": strings.Repeat("x", MaxPacket)})
	if _, err := parse(long); !errors.Is(err, ErrMalformed) {
		t.Errorf("a packet of %d bytes: %v", len(long), err)
	}
	if _, err := parse(packet("ping", strings.Repeat("t", maxTxn+1), nil)); !errors.Is(err, ErrMalformed) {
		t.Error("a long transaction id was taken")
	}
}

func TestOtherProtocolsDoNotLookLikeTheDHT(t *testing.T) {
	for _, b := range []string{"", "d", "\x41\x00\x51\x8b\x2c\x49\xfb\x00", "\x00\x00\x04\x17\x27\x10\x19\x80", "GET /"} {
		if IsPacket([]byte(b)) {
			t.Errorf("%q looks like a DHT packet", b)
		}
	}
}

// packets are those of the golden file.
func packets(t testing.TB) (out [][]byte) {
	b, err := os.ReadFile("testdata/packets.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if quoted, ok := strings.CutPrefix(line, "> "); ok {
			p, err := strconv.Unquote(strings.TrimSpace(quoted))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, []byte(p))
		}
	}
	return out
}

func FuzzHandle(f *testing.F) {
	for _, p := range packets(f) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		n := NewNode(config())
		for range 2 { // a torrent is asked for twice
			eff := n.Handle(in, client, router, start)
			for _, h := range eff.Ask {
				eff.Replies = append(eff.Replies, n.Answer(h, peers, start)...)
			}
			if len(eff.Replies) > 1 {
				t.Fatalf("%d replies to %q", len(eff.Replies), in)
			}
			for _, p := range eff.Replies {
				if err := check(p.Data); err != nil {
					t.Fatalf("%q answered %q: %v", in, p.Data, err)
				}
				if len(p.Data) > MaxPacket {
					t.Fatalf("%d bytes answered %d", len(in), len(p.Data))
				}
			}
		}
	})
}

func BenchmarkHandle(b *testing.B) {
	n := NewNode(config())
	h := hashOf(1)
	p := getPeers(h)
	n.Handle(p, client, router, start)
	n.Handle(p, client, router, start)
	n.Answer(h, peers, start)
	for b.Loop() {
		n.Handle(p, client, router, start)
	}
}
