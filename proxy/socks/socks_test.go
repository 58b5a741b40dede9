package socks

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// TestMain also sees that nothing is left running.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" {
		os.Exit(code) // the fuzzer leaves some of its own
	}
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before && code == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			fmt.Printf("%d goroutines are left\n%s", runtime.NumGoroutine()-before, buf[:runtime.Stack(buf, true)])
			code = 1
		}
	}
	os.Exit(code)
}

// patience is how long a test waits for what must happen.
const patience = time.Minute

const standIn = "198.18.5.5"

func TestListenRefusesOthersWithoutAPassword(t *testing.T) {
	for addr, ok := range map[string]bool{"127.0.0.1:0": true, "[::1]:0": true, "0.0.0.0:0": false, ":0": false} {
		l, err := Listen(addr, "")
		if err == nil {
			l.Close()
		}
		if (err == nil) != ok {
			t.Errorf("Listen(%s) without a password: %v", addr, err)
		}
	}
	l, err := Listen("0.0.0.0:0", "secret")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(l.Addr().String(), "secret"); err == nil {
		t.Error("a port in use was listened on")
	}
	l.Close()
}

func TestPasswordIsAsked(t *testing.T) {
	s := start(t, Config{Password: "secret"})
	c := dial(t, s)
	c.say(5, 1, 0)
	if got := c.hear(2); got[1] != 0xff {
		t.Errorf("method %x without a password, want none", got[1])
	}
	if got := dial(t, s).login("alice", "wrong"); got != 1 {
		t.Errorf("a wrong password was answered %d", got)
	}
	s.counted(t, status.Password, 1)
	s.counted(t, status.NoPassword, 1)
	if got := dial(t, s).login("alice", "secret"); got != 0 {
		t.Errorf("the password was answered %d", got)
	}
}

func TestWhatIsNoSOCKSIsClosed(t *testing.T) {
	s := start(t, Config{Handshake: 200 * time.Millisecond})
	for _, b := range [][]byte{
		[]byte("\x16\x03\x01\x00\x01\x01"),       // TLS
		{3, 1, 0},                                // another version
		{5, 1, 0, 5, 1, 0, 9, 1, 2, 3, 4},        // an unknown kind of address
		{5, 1, 0, 6, 1, 0, 1, 1, 2, 3, 4, 0, 80}, // another version
	} {
		c := dial(t, s)
		c.say(b...)
		io.Copy(io.Discard, c.conn)
	}
	s.counted(t, status.Unreadable, 4)
	for _, b := range [][]byte{{}, {5}, {5, 200, 0}} {
		c := dial(t, s)
		c.say(b...)
		io.Copy(io.Discard, c.conn)
	}
	s.counted(t, status.Silent, 3)
	c := dial(t, s)
	c.login("", "")
	c.say(5, 1, 0, 3, 255, 'x') // half a name
	c.ended()
}

func TestConnectionsAreBounded(t *testing.T) {
	s := start(t, Config{Connections: 2})
	a, b := dial(t, s), dial(t, s)
	a.login("", "")
	b.login("", "")
	dial(t, s).ended()
	s.counted(t, status.Full, 1)
}

func TestRepliesSayWhatBecameOfAPeer(t *testing.T) {
	s := start(t, Config{})
	for _, c := range []struct {
		err  error
		code byte
	}{
		{swarm.ErrUnknownPeer, 5},
		{swarm.ErrUnreachable, 4},
		{errors.New("connection refused: network is unreachable"), 4}, // the text must not matter
		{context.DeadlineExceeded, 4},
	} {
		s.peer = func(context.Context, Origin, netip.AddrPort) (Session, error) { return nil, c.err }
		if _, code := connect(t, s, "", standIn, 6881); code != c.code {
			t.Errorf("%v is reply %d, want %d", c.err, code, c.code)
		}
	}
	s.counted(t, status.UnknownStandIn, 1)
	s.counted(t, status.Unreachable, 3)
	c := dial(t, s)
	c.login("", "")
	if code, _ := c.request(2, standIn, 80); code != 7 {
		t.Errorf("BIND is reply %d, want 7", code)
	}
	s.counted(t, status.Command, 1)
	c = dial(t, s)
	c.login("", "")
	if code, _ := c.request(0xf1, "10.65.1.1", 0); code != 7 {
		t.Errorf("RESOLVE_PTR is reply %d, want 7", code)
	}
	s.counted(t, status.Command, 2)
	s.peer = func(context.Context, Origin, netip.AddrPort) (Session, error) {
		t.Error("a beacon was dialled")
		return nil, swarm.ErrUnknownPeer
	}
	if _, code := connect(t, s, "", peers.Beacon(3).String(), 6881); code != 5 {
		t.Errorf("a beacon is reply %d, want 5", code)
	}
}

// TestPeerGetsTheClientsConnection also shows a half-close, and that nothing
// is lost of 8 MiB.
func TestPeerGetsTheClientsConnection(t *testing.T) {
	s := start(t, Config{})
	s.peer = func(_ context.Context, from Origin, a netip.AddrPort) (Session, error) {
		if from.Client != "client 1" || from.Assoc != nil || a.String() != standIn+":51413" {
			t.Errorf("asked for %v by %v", a, from)
		}
		return serving(echo), nil
	}
	c, code := connect(t, s, "", standIn, 51413)
	if code != 0 {
		t.Fatalf("reply %d", code)
	}
	sent := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(sent)
	go func() {
		c.conn.Write(sent)
		c.conn.CloseWrite()
	}()
	if got, err := io.ReadAll(c.conn); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes and %v, want those sent", len(got), err)
	}
}

func TestWhatAClientSaysTooEarlyIsKept(t *testing.T) {
	s := start(t, Config{})
	hold := make(chan struct{})
	s.peer = func(context.Context, Origin, netip.AddrPort) (Session, error) {
		<-hold
		return serving(echo), nil
	}
	c := dial(t, s)
	c.say(5, 1, 0, 5, 1, 0, 1, 198, 18, 5, 5, 0x1a, 0xe1, 'o', 'n', 'e')
	c.hear(2)
	c.say('t', 'w', 'o')
	close(hold)
	c.hear(10)
	c.say('!')
	if got := c.hear(7); string(got) != "onetwo!" {
		t.Errorf("the peer heard %q", got)
	}
}

func TestClientThatHangsUpEndsTheDialling(t *testing.T) {
	s := start(t, Config{})
	cancelled := make(chan error, 1)
	asked := make(chan struct{})
	s.peer = func(ctx context.Context, _ Origin, _ netip.AddrPort) (Session, error) {
		close(asked)
		<-ctx.Done()
		cancelled <- ctx.Err()
		return nil, ctx.Err()
	}
	c := dial(t, s)
	c.login("", "")
	c.say(5, 1, 0, 1, 198, 18, 5, 5, 0, 80)
	<-asked
	c.conn.Close()
	if err := <-cancelled; err != context.Canceled {
		t.Errorf("dialling ended with %v", err)
	}
}

func TestDiallingHasADeadline(t *testing.T) {
	s := start(t, Config{Dial: 50 * time.Millisecond})
	s.peer = func(ctx context.Context, _ Origin, _ netip.AddrPort) (Session, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if _, code := connect(t, s, "", standIn, 80); code != 4 {
		t.Errorf("reply %d, want 4", code)
	}
}

func TestSessionIsCancelledWhenTheClientIsGone(t *testing.T) {
	s := start(t, Config{})
	over := make(chan struct{})
	ready := make(chan struct{})
	s.peer = func(ctx context.Context, _ Origin, _ netip.AddrPort) (Session, error) {
		close(ready)
		<-ctx.Done() // the client is gone, and yet
		return serving(func(c net.Conn) { close(over) }), nil
	}
	c := dial(t, s)
	c.login("", "")
	c.say(5, 1, 0, 1, 198, 18, 5, 5, 0, 80)
	<-ready
	c.conn.SetLinger(0)
	c.conn.Close()
	<-over
}

func TestNamesAndRealAddressesAreNotResolved(t *testing.T) {
	s := start(t, Config{})
	for _, host := range []string{"tracker.invalid", "192.0.2.7", "127.0.0.1", "198.20.0.1"} {
		c, code := connect(t, s, "", host, 6969)
		if code != 0 {
			t.Fatalf("reply %d", code)
		}
		c.say([]byte("GET /announce")...)
		if got := c.hear(6); string(got) != "answer" {
			t.Errorf("heard %q", got)
		}
		if e := <-s.where; e.host != host || e.said != "GET /announce" || e.from.Client != "client 1" {
			t.Errorf("asked for %+v", e)
		}
		c.ended()
	}
}

func TestUserNamesTellClientsApart(t *testing.T) {
	s := start(t, Config{})
	a := associate(t, s, "alice")
	associate(t, s, "")
	for user, want := range map[string]swarm.Client{"alice": "user alice", "bob": "user bob", "": "client 1"} {
		c, _ := connect(t, s, user, "tracker.invalid", 80)
		c.say('x')
		e := <-s.where
		if e.from.Client != want {
			t.Errorf("%q is %q, want %q", user, e.from.Client, want)
		}
		if has := e.from.Assoc != nil; has != (user != "bob") {
			t.Errorf("%q has an association: %v", user, has)
		}
	}
	if s.Association("user alice") == nil || s.Association("user bob") != nil {
		t.Error("associations are mixed up")
	}
	a.control.conn.Close()
	until(t, func() bool { return s.Association("user alice") == nil }, func() string { return "an association outlives its connection" })
}

// TestServeEndsWithAllItStarted: peers, half handshakes, dialling, µTP.
func TestServeEndsWithAllItStarted(t *testing.T) {
	s := start(t, Config{})
	s.peer = func(ctx context.Context, _ Origin, a netip.AddrPort) (Session, error) {
		if a.Port() == 1 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return serving(echo), nil
	}
	l, err := Listen("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()

	dial(t, s).say(5)
	peer, _ := connect(t, s, "", standIn, 6881)
	peer.say('x')
	peer.hear(1)
	waiting := dial(t, s)
	waiting.login("", "")
	waiting.say(5, 1, 0, 1, 198, 18, 5, 5, 0, 1)
	a := associate(t, s, "")
	sock := a.utp(t)
	a.packet(t, "tracker.invalid", 1, nil)
	inside := make(chan error, 1)
	go func() {
		c, err := s.Association("client 1").Dial(t.Context(), netip.MustParseAddrPort(standIn+":6881"))
		if err == nil {
			_, err = io.ReadAll(c)
		}
		inside <- err
	}()
	if _, err := sock.Accept(); err != nil {
		t.Fatal(err)
	}
	sock.DialContext(t.Context(), "", standIn+":7")
	if _, err := sock.DialContext(t.Context(), "", standIn+":7"); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("Serve goes on")
	}
	<-inside
	peer.ended()
	io.Copy(io.Discard, waiting.conn) // to its end; it may have been told
	if s.Associations() != 0 {
		t.Error("associations are left")
	}
}
