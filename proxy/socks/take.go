package socks

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// taken is a target that go-socks5 dials and copies to and from, and that
// takes the connection away from it: what the client had sent is written to
// it, then its ReadFrom and WriteTo hold go-socks5's two goroutines until the
// connection was served.
type taken struct {
	net.Conn // the client's own; only its addresses are used
	serve    func(first []byte)
	cancel   func()

	mu      sync.Mutex
	first   []byte // guarded by mu until ready is closed
	ready   chan struct{}
	done    chan struct{}
	started bool
	once    sync.Once
}

// newTaken returns a target that calls serve once, or cancel if it is closed first.
func newTaken(conn net.Conn, serve func(first []byte), cancel func()) *taken {
	return &taken{Conn: conn, serve: serve, cancel: cancel, ready: make(chan struct{}), done: make(chan struct{})}
}

// LocalAddr is what the client is told as the bound address. go-socks5 demands this type.
func (t *taken) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero} }

// Write takes what the client sent before it was answered: no more than the buffer of go-socks5.
func (t *taken) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.first = append(t.first, b...)
	return len(b), nil
}

// ReadFrom is called when all of that was written.
func (t *taken) ReadFrom(io.Reader) (int64, error) {
	t.once.Do(func() { close(t.ready) })
	<-t.done
	return 0, nil
}

// WriteTo serves the connection.
func (t *taken) WriteTo(io.Writer) (int64, error) {
	<-t.ready
	t.mu.Lock()
	if t.started {
		t.mu.Unlock()
		return 0, errTaken
	}
	t.started = true
	t.mu.Unlock()
	defer close(t.done)
	t.serve(t.first)
	return 0, nil
}

var errTaken = errors.New("socks: the connection is gone")

// Close is called when go-socks5 is done, or could not answer the client.
func (t *taken) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.started {
		t.started = true
		if t.cancel != nil {
			t.cancel()
		}
	}
	return nil
}

// resumed is the client's connection with what it had sent already.
type resumed struct {
	swarm.Conn
	first []byte
}

func (c *resumed) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// watch calls gone when the client hangs up. What it says meanwhile is kept,
// up to a limit. stop ends the watching; heard is for afterwards.
func watch(conn net.Conn, gone func()) (heard func() []byte, stop func()) {
	var b []byte
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		b = buf[:n]
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			gone()
		}
	}()
	stop = func() {
		conn.SetReadDeadline(time.Unix(1, 0))
		<-done
		conn.SetReadDeadline(time.Time{})
	}
	return func() []byte { return b }, stop
}
