package circuit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/stream"
)

// script is a last hop that does what a test says.
type script struct {
	c   *hop.Circuit
	key stream.PrivateKey // of whoever is behind it

	on func(s *script, m cell.Message) // told of each message; may be nil

	mu      sync.Mutex
	got     []cell.Message // guarded by mu
	changed chan struct{}  // guarded by mu
}

func (s *script) Early(m cell.Message) { s.take(m) }
func (s *script) Message(f *cell.Frame, m cell.Message) {
	s.take(m)
	f.Free()
}
func (s *script) Room()   {}
func (s *script) Flush()  {}
func (s *script) Closed() {}

// patience is how long a test waits for what must happen.
const patience = time.Minute

func (s *script) take(m cell.Message) {
	m.Body = bytes.Clone(m.Body)
	s.mu.Lock()
	s.got = append(s.got, m)
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	if s.on != nil {
		s.on(s, m)
	}
}

// hears waits for the nth message with this verb, from 1.
func (s *script) hears(t *testing.T, v cell.Verb, nth int) cell.Message {
	t.Helper()
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		n := 0
		for _, m := range s.got {
			if m.Verb == v {
				if n++; n == nth {
					s.mu.Unlock()
					return m
				}
			}
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("the last hop has %d messages with verb %d, want %d", n, v, nth)
		}
	}
}

// say sends a message to the circuit's owner.
func (s *script) say(stream uint32, v cell.Verb, body ...byte) {
	s.c.Control(cell.Message{Stream: stream, Verb: v, Body: body})
}

// answer completes the handshake of a stream.
func (s *script) answer(m cell.Message) *stream.Keys {
	keys, reply, _, _, err := stream.Respond(s.key, nil, m.Body[cell.TokenSize:])
	if err != nil {
		panic(err)
	}
	s.say(m.Stream, cell.Opened, reply...)
	return keys
}

// stage is one relay, and a client that knows it.
type stage struct {
	client  *Client
	relay   path.Relay
	scripts chan *script
	server  *hop.Server
	net     *linktest.Net
}

// play runs f in virtual time with a stage whose last hop does as on says.
func play(t *testing.T, on func(s *script, m cell.Message), f func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		t.Cleanup(wg.Wait)
		t.Cleanup(cancel)
		s := &stage{scripts: make(chan *script, 100), net: linktest.NewNet(linktest.Shape{Delay: time.Millisecond})}
		_, identity, _ := ed25519.GenerateKey(rand.Reader)
		key, err := onion.GenerateKey(1)
		if err != nil {
			t.Fatal(err)
		}
		behind, _ := stream.GenerateKey()
		s.server, err = hop.New(hop.Config{
			Identity: identity,
			Key:      func(byte) *onion.PrivateKey { return key },
			Now:      time.Now,
			Last: func(c *hop.Circuit) hop.Last {
				one := &script{c: c, key: behind, on: on, changed: make(chan struct{})}
				s.scripts <- one
				return one
			},
			Requests: map[byte]func(*hop.Circuit, []byte) ([]byte, error){
				cell.RequestEcho: func(_ *hop.Circuit, b []byte) ([]byte, error) { return make([]byte, binary.BigEndian.Uint32(b)), nil },
				cell.RequestViews: func(c *hop.Circuit, b []byte) ([]byte, error) {
					time.Sleep(time.Minute)
					return make([]byte, 50_000), nil
				},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ln, addr := s.net.Listen()
		s.relay = path.Relay{ID: s.server.ID(), Addr: addr, Key: key.Public(), Weight: 1}
		wg.Go(func() { s.server.Serve(ctx, ln) })
		links := &link.Pool{DialTCP: s.net.Dial}
		wg.Go(func() { links.Run(ctx) })
		s.client = New(Config{
			Links:   links,
			Chooser: path.New(path.Rules{Test: true, SameNet: true}, path.NewRand(), nil, nil),
			Relays:  func() []path.Relay { return []path.Relay{s.relay} },
			Step:    func() uint32 { return onion.Step(time.Now()) },
		})
		t.Cleanup(s.client.Close)
		f(t, s)
	})
}

// build builds a circuit to the last hop.
func (s *stage) build(t *testing.T) (*Circuit, *script) {
	t.Helper()
	c, err := s.client.Build(t.Context(), Want{Use: ForPeer, Last: s.relay, Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	return c, <-s.scripts
}

// call is a call to whoever is behind the last hop.
func (s *script) call() Call {
	key, _ := stream.GenerateKey()
	return Call{Static: key, Remote: s.key.Public(), Counter: 1}
}

// ends waits until c is over.
func ends(t *testing.T, c *Circuit) {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(patience):
		t.Fatal("the circuit stands")
	}
}

// stands waits for what is under way, and checks that c is not over.
func stands(t *testing.T, c *Circuit) {
	t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	select {
	case <-c.Done():
		t.Fatal("the circuit is over")
	default:
	}
}
