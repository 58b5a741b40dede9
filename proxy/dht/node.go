package dht

import (
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// Node answers one client. It has no clock, no sockets and no goroutines, and
// is not safe for concurrent use.
type Node struct {
	cfg    Config
	nodes  []node // those of cfg
	turn   int    // which nodes are told of next
	swarms map[swarm.Hash]*entry
	newest []time.Time  // when the last MaxNew new swarms were asked for, oldest first
	once   []swarm.Hash // asked for once so far, oldest first
	ids    []string     // the client's own node ids, latest last
}

// node is one of those that the client is told of.
type node struct {
	addr netip.AddrPort
	id   [20]byte
}

// entry is an info-hash that the client asked for.
type entry struct {
	used     time.Time // last query
	asked    time.Time // the Ask that is not answered yet; zero: none
	answered time.Time
	peers    []netip.AddrPort
	waiting  []waiter
	told     time.Time // last Announced
	last     Announced
}

// waiter is a get_peers that an Answer will reply to.
type waiter struct {
	client, to netip.AddrPort
	txn        string
	want       want
}

// want is which nodes a query looks for (BEP 32).
type want struct{ four, six bool }

// NewNode returns a Node.
func NewNode(cfg Config) *Node {
	if len(cfg.Nodes) == 0 {
		cfg.Nodes = DefaultNodes
	}
	if cfg.Rule == nil {
		cfg.Rule = func(swarm.Hash) Rule { return New }
	}
	n := &Node{cfg: cfg, swarms: make(map[swarm.Hash]*entry)}
	for _, addr := range cfg.Nodes {
		if addr.Addr().Unmap().Is4() && len(n.nodes) < MaxNodes {
			n.nodes = append(n.nodes, node{addr, n.nodeID(addr.Addr())})
		}
	}
	return n
}

// Handle reads packet b that client sent to the node at to. It doesn't keep b.
func (n *Node) Handle(b []byte, client, to netip.AddrPort, now time.Time) Effects {
	q, err := parse(b)
	if err != nil {
		return Effects{Refused: err}
	}
	if q.Kind != "q" {
		return Effects{} // an answer to Greet
	}
	c := call{n, q.Txn, client, to, now}
	a, err := q.arguments()
	if err != nil {
		return c.fail(codeProtocol, err.Error())
	}
	first := n.meet(a.ID)
	eff := c.answer(q.Method, a)
	if first {
		eff.Replies = append(eff.Replies, c.chorus(q.Method)...)
	}
	return eff
}

// answer answers a query.
func (c call) answer(method string, a arguments) Effects {
	switch method {
	case "ping":
		return c.reply(result{})
	case "find_node":
		if len(a.Target) != 20 {
			return c.fail(codeProtocol, "target is not 20 bytes")
		}
		return c.reply(c.n.near([20]byte([]byte(a.Target)), c.want(a)))
	case "get_peers", "announce_peer":
		if len(a.InfoHash) != 20 {
			return c.fail(codeProtocol, "info_hash is not 20 bytes")
		}
		h := swarm.Hash([]byte(a.InfoHash))
		if method == "get_peers" {
			return c.getPeers(h, c.want(a))
		}
		return c.announce(h, a)
	}
	// Storage (BEP 44) and sampling (BEP 51) among them.
	return c.fail(codeMethod, "method unknown")
}

// Answer gives the peers of h, stand-ins, best first, and returns the replies
// that waited for them. No peers is an answer too.
func (n *Node) Answer(h swarm.Hash, peers []netip.AddrPort, now time.Time) []Packet {
	e := n.swarms[h]
	if e == nil {
		return nil
	}
	e.peers = e.peers[:0:0]
	for _, p := range peers {
		if p.Addr().Unmap().Is4() && p.Port() != 0 && len(e.peers) < MaxValues {
			e.peers = append(e.peers, p)
		}
	}
	e.asked, e.answered = time.Time{}, now
	var out []Packet
	for _, w := range e.waiting {
		c := call{n, w.txn, w.client, w.to, now}
		out = append(out, c.reply(c.found(h, e.peers, w.want)).Replies...)
	}
	e.waiting = nil
	return out
}

// Greet returns a ping from each of the nodes to a client that never sent a DHT
// packet: its routing table is empty, and pings fill it.
func (n *Node) Greet(client netip.AddrPort) []Packet {
	var out []Packet
	for i, v := range n.nodes {
		g := greeting{Args: greetingArgs{string(v.id[:])}, Method: "ping", Txn: string([]byte{'g', byte(i)}), Kind: "q"}
		out = append(out, Packet{From: v.addr, To: client, Data: bencode.MustMarshal(g)})
	}
	return out
}

// call is a query that is being answered.
type call struct {
	n          *Node
	txn        string
	client, to netip.AddrPort
	now        time.Time
}

func (c call) reply(r result) Effects {
	id := c.n.nodeID(c.to.Addr())
	r.ID = string(id[:])
	return c.send(reply{compact(c.n.cfg.External), r, c.txn, "r"})
}

func (c call) fail(code int, text string) Effects {
	return c.send(failure{[]any{code, text}, compact(c.n.cfg.External), c.txn, "e"})
}

func (c call) send(m any) Effects {
	return Effects{Replies: []Packet{{From: c.to, To: c.client, Data: bencode.MustMarshal(m)}}}
}

func (c call) want(a arguments) want {
	if len(a.Want) == 0 {
		four := c.client.Addr().Unmap().Is4()
		return want{four, !four}
	}
	return want{slices.Contains(a.Want, "n4"), slices.Contains(a.Want, "n6")}
}

// chorus has all nodes answer a client's first ping, when it is of the library
// that Transmission uses, which takes an answer from whomever. It asks for no
// torrent before four nodes have answered and nine are known, and would look
// for them one by one, every 5 to 15 s.
func (c call) chorus(method string) (out []Packet) {
	if method != "ping" || c.txn != "pn\x00\x00" {
		return nil
	}
	for _, v := range c.n.nodes {
		c.to = v.addr
		out = append(out, c.reply(result{}).Replies...)
	}
	return out
}

// near returns nodes for a client that looks for target: half of them next to
// it, as it expects, and half in turn. A client asks again and again for what
// is next to itself, and Transmission asks for no torrent before it knows more
// than those. There are no IPv6 nodes.
func (n *Node) near(target [20]byte, w want) (r result) {
	if w.six {
		r.Nodes6 = []byte{}
	}
	if !w.four {
		return r
	}
	list := slices.SortedFunc(slices.Values(n.nodes), func(a, b node) int {
		for i, t := range target {
			if d := int(a.id[i]^t) - int(b.id[i]^t); d != 0 {
				return d
			}
		}
		return 0
	})
	r.Nodes = []byte{}
	for i := range min(given, len(list)) {
		if rest := list[i:]; i >= given/2 {
			k := n.turn % len(rest)
			rest[0], rest[k] = rest[k], rest[0]
			n.turn++
		}
		r.Nodes = append(append(r.Nodes, list[i].id[:]...), compact(list[i].addr)...)
	}
	return r
}

// getPeers answers at once where the peers are known, else when Answer comes.
func (c call) getPeers(h swarm.Hash, w want) Effects {
	if !c.n.isMeant(h) {
		return c.reply(c.found(h, nil, w))
	}
	e, err := c.n.enter(h, c.now)
	if err != nil {
		eff := c.reply(c.found(h, nil, w))
		eff.Refused = err
		return eff
	}
	if !e.answered.IsZero() && c.now.Sub(e.answered) < e.keeps() {
		return c.reply(c.found(h, e.peers, w))
	}
	var eff Effects
	if e.asked.IsZero() || c.now.Sub(e.asked) > lost {
		e.asked, e.waiting = c.now, nil
		eff.Ask = []swarm.Hash{h}
	}
	if len(e.waiting) < maxWaiter {
		e.waiting = append(e.waiting, waiter{c.client, c.to, c.txn, w})
	}
	return eff
}

// keeps returns how long the answer holds. A client whose torrent starts anew,
// as each magnet of qBittorrent does once its description is there, asks once
// and then not for a quarter of an hour.
func (e *entry) keeps() time.Duration {
	if len(e.peers) == 0 {
		return empty
	}
	return fresh
}

// found is the result of a get_peers. There is a token in each: aria2 takes no
// answer without one. What may be announced is decided when it is.
func (c call) found(h swarm.Hash, peers []netip.AddrPort, w want) result {
	r := c.n.near(h, w)
	r.Token = c.n.token(h, c.client.Addr(), c.now)
	for _, p := range peers {
		r.Values = append(r.Values, compact(p))
	}
	return r
}

// meet remembers the node ids that the client has. It changes its own when it
// is told another address (BEP 42). It reports whether id is a new one.
func (n *Node) meet(id string) bool {
	if slices.Contains(n.ids, id) {
		return false
	}
	if len(n.ids) == maxIDs {
		n.ids = slices.Delete(n.ids, 0, 1)
	}
	n.ids = append(n.ids, id)
	return true
}

// isMeant says if a get_peers for h is for a torrent. libtorrent also sends it
// for made-up info-hashes, in place of find_node: to refresh one bucket, and
// then once only; to find its neighbours, and then h starts as its own node id
// does. A torrent's is sent to one node after the other, and all are this one.
func (n *Node) isMeant(h swarm.Hash) bool {
	if n.swarms[h] != nil || n.cfg.Rule(h) != New {
		return true
	}
	for _, id := range n.ids {
		if id[:8] == string(h[:8]) {
			return false
		}
	}
	if i := slices.Index(n.once, h); i >= 0 {
		n.once = slices.Delete(n.once, i, i+1)
		return true
	}
	if len(n.once) == maxOnce {
		n.once = slices.Delete(n.once, 0, 1)
	}
	n.once = append(n.once, h)
	return false
}

// enter returns h's entry, made if the rules allow.
func (n *Node) enter(h swarm.Hash, now time.Time) (*entry, error) {
	rule := n.cfg.Rule(h)
	e := n.swarms[h]
	if e == nil {
		if len(n.swarms) >= MaxSwarms {
			n.sweep(now)
		}
		if len(n.swarms) >= MaxSwarms || rule == New && !n.mayAdd(now) {
			return nil, ErrTooMany
		}
		e = &entry{}
		n.swarms[h] = e
	}
	e.used = now
	return e, nil
}

// mayAdd says if one more new swarm is within MaxNew an hour, and counts it.
func (n *Node) mayAdd(now time.Time) bool {
	n.newest = slices.DeleteFunc(n.newest, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
	if len(n.newest) >= MaxNew {
		return false
	}
	n.newest = append(n.newest, now)
	return true
}

func (n *Node) sweep(now time.Time) {
	for h, e := range n.swarms {
		if now.Sub(e.used) > keep {
			delete(n.swarms, h)
		}
	}
}

// announce takes what the client says of itself. It says so to each node that
// it found, which are all this one: it is passed on once a minute.
func (c call) announce(h swarm.Hash, a arguments) Effects {
	if !c.n.knows(a.Token, h, c.client.Addr(), c.now) {
		eff := c.fail(codeProtocol, "bad token")
		eff.Refused = ErrToken
		return eff
	}
	if a.Port < 0 || a.Port > 65535 {
		return c.fail(codeProtocol, "bad port")
	}
	told := Announced{Hash: h, Port: uint16(a.Port), Seed: a.Seed == 1}
	if a.Implied != 0 {
		told.Port = c.client.Port()
	}
	if told.Port == 1 { // libtorrent's for: no listener
		told.Port = 0
	}
	eff := c.reply(result{})
	e := c.n.swarms[h]
	if e == nil { // not one that was asked for in earnest, or one too many
		return eff
	}
	if e.told.IsZero() || e.last != told || c.now.Sub(e.told) >= time.Minute {
		e.told, e.last = c.now, told
		eff.Announced = []Announced{told}
	}
	return eff
}

// tokenWindow is how long tokens are made alike; BEP 5 wants one taken for ten minutes.
const tokenWindow = 10 * time.Minute

// token lets client announce h.
func (n *Node) token(h swarm.Hash, client netip.Addr, t time.Time) []byte {
	window := binary.BigEndian.AppendUint64(nil, uint64(t.UnixNano()/int64(tokenWindow)))
	return n.mac("token", h[:], window, client.Unmap().AsSlice())[:8]
}

func (n *Node) knows(token string, h swarm.Hash, client netip.Addr, now time.Time) bool {
	is := func(t time.Time) int {
		return subtle.ConstantTimeCompare([]byte(token), n.token(h, client, t))
	}
	return is(now)|is(now.Add(-tokenWindow)) == 1
}

// compact returns a's 4 bytes address and 2 bytes port, or nil where it is not IPv4.
func compact(a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	if !ip.Is4() {
		return nil
	}
	return binary.BigEndian.AppendUint16(ip.AsSlice(), a.Port())
}
