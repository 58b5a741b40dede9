//go:build unix

package socks

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/status"
)

// short is a listener of a process that has no descriptor left for a while.
type short struct {
	net.Listener
	times int // owned by Accept's caller
}

func (s *short) Accept() (net.Conn, error) {
	if s.times > 0 {
		s.times--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return s.Listener.Accept()
}

func TestASocketThatTheSystemRefusesCountsAsThat(t *testing.T) {
	s := start(t, Config{})
	l, err := Listen("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), &short{l, 2}) }()
	c := dial(t, s) // taken once there are descriptors again
	c.login("", "")
	s.counted(t, status.System, 2)
	s.counted(t, status.Full, 0)
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}

func TestAClientThatHangsUpIsNoRefusal(t *testing.T) {
	s := start(t, Config{})
	for range 3 { // only looks whether the proxy is there
		dial(t, s).conn.Close()
	}
	c := dial(t, s)
	c.login("", "") // so the others have been served: one after the other they were taken
	c.conn.Close()
	s.counted(t, status.Unreadable, 0)
	s.counted(t, status.Silent, 0)
}
