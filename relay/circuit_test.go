package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/stream"
)

// network is a few relays on loopback that know each other without a directory.
type network struct {
	relays  []path.Relay
	servers []*hop.Server
}

// verify takes any body as a registration under its own bytes.
func verify(_ [32]byte, body []byte) (token [cell.TokenSize]byte, err error) {
	copy(token[:], body)
	return token, nil
}

func step() uint32 { return onion.Step(time.Now()) }

func startNetwork(t testing.TB, n int) *network {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done []chan struct{}
	t.Cleanup(func() {
		cancel()
		for _, d := range done {
			<-d
		}
	})
	net_ := &network{}
	run := func(f func()) {
		d := make(chan struct{})
		done = append(done, d)
		go func() { f(); close(d) }()
	}
	for range n {
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
		links := &link.Pool{Certificate: &cert}
		m := newMeeting(verify, nil)
		s, err := hop.New(hop.Config{
			Identity: identity,
			Key:      func(byte) *onion.PrivateKey { return key },
			Step:     step,
			Next: func(id onion.ID) (netip.AddrPort, bool) {
				for _, r := range net_.relays {
					if r.ID == id {
						return r.Addr, true
					}
				}
				return netip.AddrPort{}, false
			},
			Known: func(onion.ID) bool { return true },
			Last:  m.Last,
			Links: links,
			Requests: map[byte]func(*hop.Circuit, []byte) ([]byte, error){
				cell.RequestEcho: func(_ *hop.Circuit, b []byte) ([]byte, error) { return bytes.Repeat(b, 1000), nil },
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		run(func() { links.Run(ctx) })
		run(func() { s.Serve(ctx, ln) })
		net_.servers = append(net_.servers, s)
		net_.relays = append(net_.relays, path.Relay{ID: s.ID(), Addr: ln.Addr().(*net.TCPAddr).AddrPort(), Key: key.Public(), Weight: 1 << 20})
	}
	return net_
}

func (n *network) client(t testing.TB, own int) *circuit.Client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	links := &link.Pool{}
	done := make(chan struct{})
	go func() { links.Run(ctx); close(done) }()
	c := circuit.New(circuit.Config{
		Links:   links,
		Chooser: path.New(path.Rules{Test: true, SameNet: true}, path.NewRand(), nil, nil),
		Relays:  func() []path.Relay { return n.relays },
		Step:    step,
		Own:     own,
		Budget:  link.NewBudget(1 << 20),
	})
	t.Cleanup(func() { c.Close(); cancel(); <-done })
	for len(links.Links()) == 0 { // Run has begun once Get no longer says closed
		if _, err := links.Get(ctx, n.relays[0].ID, n.relays[0].Addr); err == nil {
			break
		}
	}
	return c
}

func TestLastHopAnswersRequestsAtEveryLength(t *testing.T) {
	n := startNetwork(t, 8)
	for own := range path.MaxOwn + 1 {
		c := n.client(t, own)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		ask := []byte("0123456789abcdef0123456789abcdef")
		built, got, err := c.Request(ctx, circuit.Want{Use: circuit.ForTracker, Last: n.relays[7]}, cell.RequestEcho, ask, 1<<20)
		if err != nil {
			t.Fatalf("%d own relays: %v", own, err)
		}
		if want := bytes.Repeat(ask, 1000); !bytes.Equal(got, want) {
			t.Errorf("%d own relays: answer of %d bytes, want %d", own, len(got), len(want))
		}
		if built.Hops() != own+1 {
			t.Errorf("%d own relays: %d hops, want %d", own, built.Hops(), own+1)
		}
		cancel()
	}
}

// pair returns the two ends of a stream between two clients that meet at a relay.
func pair(t testing.TB, n *network, ownA, ownB int) (a, b *stream.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	keyA, _ := stream.GenerateKey()
	keyB, _ := stream.GenerateKey()
	token := sha256.Sum256([]byte(t.Name()))
	meet := n.relays[len(n.relays)-1]
	prologue := []byte("test")
	arrived := make(chan *stream.Conn, 1)
	inbound, err := n.client(t, ownB).Build(ctx, circuit.Want{Use: circuit.ForInbound, Key: path.Key{2}, Last: meet, Visit: func(c *circuit.Circuit, v circuit.Visitor) {
		keys, answer, peer, _, err := stream.Respond(keyB, prologue, v.Message)
		if err != nil || peer != keyA.Public() {
			t.Errorf("Respond: %v", err)
			return
		}
		conn, err := c.Accept(v, keys, answer, nil)
		if err != nil {
			t.Error(err)
			return
		}
		<-conn.Confirmed()
		arrived <- conn
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := inbound.Register(ctx, token[:]); err != nil {
		t.Fatal(err)
	}
	_, a, err = n.client(t, ownA).Dial(ctx, circuit.Want{Use: circuit.ForPeer, Key: path.Key{1}, Last: meet},
		circuit.Call{Static: keyA, Remote: keyB.Public(), Token: token, Prologue: prologue, Counter: 1})
	if err != nil {
		t.Fatal(err)
	}
	return a, <-arrived
}

func TestStreamCarriesBytesBothWaysAndCloses(t *testing.T) {
	n := startNetwork(t, 6)
	a, b := pair(t, n, 2, 2)
	data := make([]byte, 8<<20)
	rand.Read(data)
	for _, way := range []struct{ from, to *stream.Conn }{{a, b}, {b, a}} {
		go func() {
			way.from.Write(data)
			way.from.CloseWrite()
		}()
		got, err := io.ReadAll(way.to)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read %d bytes of %d: %v", len(got), len(data), err)
		}
	}
	a.Close()
	b.Close()
}

func TestUnknownTokenIsRefused(t *testing.T) {
	n := startNetwork(t, 5)
	key, _ := stream.GenerateKey()
	_, _, err := n.client(t, 2).Dial(t.Context(), circuit.Want{Last: n.relays[4]}, circuit.Call{Static: key, Remote: key.Public()})
	refused, ok := err.(*circuit.RefusedError)
	if !ok || refused.Reason != cell.UnknownToken {
		t.Errorf("Dial = %v, want %v", err, cell.UnknownToken)
	}
}

func BenchmarkStreamOverFiveRelays(b *testing.B) {
	n := startNetwork(b, 7)
	x, y := pair(b, n, 2, 2)
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	go func() {
		for range b.N {
			if _, err := x.Write(buf); err != nil {
				return
			}
		}
		x.CloseWrite()
	}()
	b.ResetTimer()
	if n, err := io.Copy(io.Discard, y); err != nil || n != int64(b.N)*int64(len(buf)) {
		b.Fatalf("copied %d: %v", n, err)
	}
}
