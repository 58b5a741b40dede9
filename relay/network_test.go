package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/stream"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// network is a few relays that know each other without a directory: on
// loopback, or in memory and then in the time of testing/synctest, too.
type network struct {
	relays  []path.Relay
	servers []*hop.Server
	meets   []*meeting
	memory  *linktest.Net // nil: loopback
	limit   uint64        // of each relay, bytes a second; 0: none
	run     func(func())
}

// registered is how long a registration of a test holds.
const registered = 10 * time.Minute

// verify takes any body as a registration under its own bytes.
func verify(_ [32]byte, body []byte) (token [cell.TokenSize]byte, life time.Duration, err error) {
	if len(body) == 0 {
		return token, 0, errors.New("empty")
	}
	copy(token[:], body)
	return token, registered, nil
}

// patience is how long a test waits for what must happen.
const patience = time.Minute

func step() uint32 { return onion.Step(time.Now()) }

// startNetwork starts n relays; with a nil m, on loopback.
func startNetwork(t testing.TB, n int, m *linktest.Net) *network {
	t.Helper()
	return startLimited(t, n, m, 0)
}

// startLimited starts n relays, each of which sends so many bytes a second.
func startLimited(t testing.TB, n int, m *linktest.Net, limit uint64) *network {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	all := &network{memory: m, limit: limit, run: func(f func()) { wg.Go(f) }}
	for range n {
		all.start(t, ctx)
	}
	return all
}

// start adds a relay.
func (n *network) start(t testing.TB, ctx context.Context) {
	t.Helper()
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := onion.GenerateKey(1)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := link.Certificate(identity)
	if err != nil {
		t.Fatal(err)
	}
	limit := link.NewLimit(n.limit)
	links := &link.Pool{Certificate: &cert, DialTCP: n.dial(), Limit: limit}
	m := newMeeting(verify, window.NewBudget(1<<16))
	s, err := hop.New(hop.Config{
		Identity: identity,
		Key:      func(byte) *onion.PrivateKey { return key },
		Now:      time.Now,
		Next: func(id onion.ID) (netip.AddrPort, bool) {
			for _, r := range n.relays {
				if r.ID == id {
					return r.Addr, true
				}
			}
			return netip.AddrPort{}, false
		},
		Known: func(id onion.ID) bool { return true },
		Last:  m.Last,
		Links: links,
		Limit: limit,
		Requests: map[byte]func(*hop.Circuit, []byte) ([]byte, error){
			cell.RequestEcho: func(_ *hop.Circuit, b []byte) ([]byte, error) { return bytes.Repeat(b, 1000), nil },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, addr := n.listen(t)
	n.run(func() { links.Run(ctx) })
	n.run(func() { s.Serve(ctx, ln) })
	n.servers = append(n.servers, s)
	n.meets = append(n.meets, m)
	n.relays = append(n.relays, path.Relay{ID: s.ID(), Addr: addr, Key: key.Public(), Weight: 1 << 20})
}

func (n *network) listen(t testing.TB) (net.Listener, netip.AddrPort) {
	t.Helper()
	if n.memory != nil {
		return n.memory.Listen()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln, ln.Addr().(*net.TCPAddr).AddrPort()
}

// dial returns a Pool's DialTCP.
func (n *network) dial() func(context.Context, netip.AddrPort) (net.Conn, error) {
	if n.memory == nil {
		return nil
	}
	return n.memory.Dial
}

// links returns a Pool that runs.
func (n *network) links(t testing.TB) *link.Pool {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	links := &link.Pool{DialTCP: n.dial()}
	done := make(chan struct{})
	go func() { links.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return links
}

func (n *network) client(t testing.TB, own int) *circuit.Client {
	t.Helper()
	c := circuit.New(circuit.Config{
		Links:   n.links(t),
		Chooser: path.New(path.Rules{Test: true, SameNet: true}, path.NewRand(), nil, nil),
		Relays:  func() []path.Relay { return n.relays },
		Step:    step,
		Own:     own,
		Budget:  window.NewBudget(1 << 20),
	})
	t.Cleanup(c.Close)
	return c
}

// host is somebody who is registered at the last relay of a network and takes
// the streams of visitors.
type host struct {
	circuit *circuit.Circuit
	client  *circuit.Client
	key     stream.PrivateKey
	token   [cell.TokenSize]byte
	arrived chan *stream.Conn
}

var prologue = []byte("test")

// meet is the relay where all meet.
func (n *network) meet() path.Relay { return n.relays[len(n.relays)-1] }

func (n *network) host(t testing.TB, own int) *host {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h := &host{client: n.client(t, own), arrived: make(chan *stream.Conn, 100)}
	h.key, _ = stream.GenerateKey()
	rand.Read(h.token[:])
	var err error
	h.circuit, err = h.client.Build(ctx, circuit.Want{Use: circuit.ForInbound, Key: path.Key{2}, Last: n.meet(), Visit: h.visit})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.circuit.Register(ctx, h.token[:]); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) visit(c *circuit.Circuit, v circuit.Visitor) {
	keys, answer, _, _, err := stream.Respond(h.key, prologue, v.Message)
	if err != nil {
		c.Refuse(v, cell.Protocol)
		return
	}
	conn, err := c.Accept(v, keys, answer, nil)
	if err != nil {
		return
	}
	select {
	case <-conn.Confirmed():
		h.arrived <- conn
	case <-conn.Done():
	case <-c.Done():
	}
}

// call is what a visitor of h needs.
func (h *host) call() circuit.Call {
	key, _ := stream.GenerateKey()
	return circuit.Call{Static: key, Remote: h.key.Public(), Token: h.token, Prologue: prologue, Counter: 1}
}

// visit opens a stream to h from a client of its own, and returns both ends.
func (n *network) visit(t testing.TB, h *host, own int) (there, here *stream.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, there, err := n.client(t, own).Dial(ctx, circuit.Want{Use: circuit.ForPeer, Key: path.Key{1}, Last: n.meet()}, h.call())
	if err != nil {
		t.Fatal(err)
	}
	return there, <-h.arrived
}

// pair returns the two ends of a stream between two clients that meet at a relay.
func pair(t testing.TB, n *network, ownA, ownB int) (a, b *stream.Conn) {
	t.Helper()
	return n.visit(t, n.host(t, ownB), ownA)
}
