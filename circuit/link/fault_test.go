package link

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// dialFrom gets a link through a pool that dials from source.
func dialFrom(t *testing.T, source netip.Addr, addr netip.AddrPort) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &Pool{DialTCP: DialFrom(source), DialTimeout: 200 * time.Millisecond}
	over := make(chan struct{})
	go func() { p.Run(ctx); close(over) }()
	_, err := p.Get(ctx, onion.ID{1}, addr)
	cancel()
	<-over
	if err == nil {
		t.Fatal("there is a link")
	}
	return err
}

// shows reports an error that does not say cause, or that says an address.
func shows(t *testing.T, name string, err error, cause fault.Cause) {
	t.Helper()
	f := fault.About(err, "the guard")
	if f.Cause != cause || len(f.Text()) < 20 || f.Advice == "" || strings.Contains(f.Text(), "{") {
		t.Errorf("%s: %s: %s %s; want %s", name, f.Cause, f.Text(), f.Advice, cause)
	}
	for _, s := range []string{err.Error(), f.Text(), f.Advice} {
		if strings.Contains(s, "127.0.0.") || strings.Contains(s, "192.0.2.") {
			t.Errorf("%s: %q holds an address", name, s)
		}
	}
}

func TestWhatTheSystemSaysOfAConnectionHasACause(t *testing.T) {
	addr := netip.MustParseAddrPort("192.0.2.1:9000")
	for no, cause := range errnos {
		if cause == fault.Closed {
			continue // nothing that dialling says
		}
		err := &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: os.NewSyscallError("connect", no)}
		shows(t, no.Error(), dialFault(err, addr), cause)
	}
	late := &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: os.ErrDeadlineExceeded}
	shows(t, "no answer", dialFault(late, addr), fault.Timeout)
	odd := &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: errors.New("odd")}
	shows(t, "something odd", dialFault(odd, addr), fault.Other)
	v6 := dialFault(os.NewSyscallError("connect", syscall.ENETUNREACH), netip.MustParseAddrPort("[2001:db8::1]:9000"))
	if s := fault.About(v6, "the guard").Text(); !strings.Contains(s, "no IPv6 network") {
		t.Error(s)
	}
}

func TestAConnectionThatCannotBeMadeHasACause(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	mute := ln.Addr().(*net.TCPAddr).AddrPort()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	closed := gone.Addr().(*net.TCPAddr).AddrPort()
	shows(t, "a closed port", dialFrom(t, netip.Addr{}, closed), fault.Refused)
	shows(t, "one that never answers", dialFrom(t, netip.Addr{}, mute), fault.Timeout)
	shows(t, "a source that is not ours", dialFrom(t, netip.MustParseAddr("192.0.2.77"), mute), fault.Source)
	shows(t, "a source of the other family", dialFrom(t, netip.MustParseAddr("::1"), mute), fault.Source)
}

func TestAHandshakeThatFailsHasACause(t *testing.T) {
	id, cert := somebody(t)
	_, other := somebody(t)
	serve := func(cert tls.Certificate, first string) func(net.Conn) {
		return func(conn net.Conn) {
			s := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}})
			io.WriteString(s, first)
			s.CloseWrite()
			io.Copy(io.Discard, conn)
		}
	}
	for name, c := range map[string]struct {
		other  func(net.Conn)
		cause  fault.Cause
		advice string
	}{
		"an older version": {serve(cert, "\x03\x00\x00"), fault.Version, "has to be updated"},
		"a newer version":  {serve(cert, "\x63\x00\x00"), fault.Version, "update it"},
		"another key":      {serve(other, ""), fault.WrongKey, "network file"},
		"a web server": {func(c net.Conn) {
			io.ReadFull(c, make([]byte, 100))
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			io.Copy(io.Discard, c)
		}, fault.Foreign, "login page"},
		"one that hangs up":     {func(net.Conn) {}, fault.Closed, "keeps trying"},
		"one that is cut short": {serve(cert, "\x04\x00"), fault.Closed, "keeps trying"},
	} {
		err := handshake(t, id, c.other)
		shows(t, name, err, c.cause)
		if f := fault.Of(err); !strings.Contains(f.Advice, c.advice) {
			t.Errorf("%s: advice %q, want %q", name, f.Advice, c.advice)
		}
	}
}

func TestADiallerKnowsTheAcceptorsTime(t *testing.T) {
	id, cert := somebody(t)
	for _, off := range []time.Duration{0, 3 * time.Hour, -50 * time.Hour} {
		a, b := linktest.Pipe(linktest.Shape{})
		go Accept(t.Context(), b, cert, time.Now().Add(off), nil)
		l, err := Dial(t.Context(), a, id, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ahead := l.ClockAhead() + off; ahead < -2*time.Second || ahead > time.Minute {
			t.Errorf("an acceptor %v ahead: this clock is %v ahead of it", off, l.ClockAhead())
		}
		if d := time.Until(l.Time()) - off; d > 2*time.Second || d < -time.Minute {
			t.Errorf("its time is %v", l.Time())
		}
		l.Close()
	}
}
