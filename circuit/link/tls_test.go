package link

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

func TestEachSideKnowsWhoTheOtherIs(t *testing.T) {
	id, cert := somebody(t)
	relay, relayCert := somebody(t)
	for _, c := range []struct {
		name string
		cert *tls.Certificate
		want onion.ID
	}{{"a relay", &relayCert, relay}, {"a sidecar", nil, onion.ID{}}} {
		a, b := linktest.Pipe(linktest.Shape{})
		accepted := make(chan *Link, 1)
		go func() {
			l, err := Accept(t.Context(), b, cert, time.Now(), nil)
			if err != nil {
				t.Error(err)
			}
			accepted <- l
		}()
		l, err := Dial(t.Context(), a, id, c.cert)
		if err != nil {
			t.Fatal(err)
		}
		if l.Peer() != id {
			t.Errorf("the dialler of %s knows %v, want %v", c.name, l.Peer(), id)
		}
		if l := <-accepted; l.Peer() != c.want {
			t.Errorf("%s is known as %v, want %v", c.name, l.Peer(), c.want)
		}
	}
}

// handshake has Dial, to id, and other meet.
func handshake(t *testing.T, id onion.ID, other func(net.Conn)) error {
	t.Helper()
	a, b := linktest.Pipe(linktest.Shape{})
	var wg sync.WaitGroup
	wg.Go(func() { other(b); b.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := Dial(ctx, a, id, nil)
	if l != nil {
		l.Close()
	}
	a.Close()
	wg.Wait()
	return err
}

func TestDialRefusesWhoeverIsNotTheRelay(t *testing.T) {
	id, _ := somebody(t)
	_, other := somebody(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	serve := func(c *tls.Config) func(net.Conn) {
		return func(conn net.Conn) {
			s := tls.Server(conn, c)
			s.Handshake()
			io.Copy(io.Discard, s)
		}
	}
	for name, c := range map[string]struct {
		other func(net.Conn)
		want  string
	}{
		"another relay's key":    {serve(&tls.Config{Certificates: []tls.Certificate{other}}), "another key"},
		"a key of another kind":  {serve(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}), "want an Ed25519 key"},
		"a chain":                {serve(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{other.Certificate[0], der}, PrivateKey: other.PrivateKey}}}), "2 certificates"},
		"TLS 1.2":                {serve(&tls.Config{Certificates: []tls.Certificate{other}, MaxVersion: tls.VersionTLS12}), "version"},
		"garbage":                {func(c net.Conn) { c.Write(bytes.Repeat([]byte("garbage"), 1000)) }, "handshake"},
		"whoever hangs up":       {func(net.Conn) {}, "handshake"},
		"whoever hangs up later": {func(c net.Conn) { io.ReadFull(c, make([]byte, 100)) }, "handshake"},
	} {
		err := handshake(t, id, c.other)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestAnotherVersionIsRefusedByBothSides(t *testing.T) {
	id, cert := somebody(t)
	for name, first := range map[string]string{
		"speaks version 1 ":             "\x01\x00\x00",
		"speaks version 255 ":           "\xff",
		"hello of 8193 bytes":           "\x04\x00\x00\x00\x00\x00\x00\x00\x00\x20\x01",
		"beyond the year 9999":          "\x04\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"closes the connection at once": "\x04",
		"closes the connection at":      "\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05hell",
	} {
		err := handshake(t, id, func(conn net.Conn) {
			s := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}})
			io.WriteString(s, first)
			s.CloseWrite()
			io.Copy(io.Discard, conn)
		})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
	a, b := linktest.Pipe(linktest.Shape{})
	go func() {
		c := tls.Client(a, &tls.Config{InsecureSkipVerify: true})
		c.Write([]byte{1})
		io.Copy(io.Discard, c)
	}()
	if _, err := Accept(t.Context(), b, cert, time.Now(), nil); err == nil || !strings.Contains(err.Error(), "speaks version 1") {
		t.Errorf("%v", err)
	}
}

func TestAHandshakeThatStandsStillEndsWithItsContext(t *testing.T) {
	id, cert := somebody(t)
	synctest.Test(t, func(t *testing.T) {
		for _, side := range []func(ctx context.Context, c net.Conn) error{
			func(ctx context.Context, c net.Conn) error { _, err := Dial(ctx, c, id, nil); return err },
			func(ctx context.Context, c net.Conn) error {
				_, err := Accept(ctx, c, cert, time.Now(), nil)
				return err
			},
		} {
			a, b := linktest.Pipe(linktest.Shape{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			began := time.Now()
			err := side(ctx, a)
			if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
				t.Errorf("%v after %v", err, took)
			}
			if _, err := b.Write([]byte{1}); err == nil {
				t.Error("the connection is open still")
			}
			cancel()
		}
	})
}

func TestAnIdleLinkHoldsNoBuffer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	id, cert := somebody(t)
	accepted := make(chan *Link, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		l, err := Accept(t.Context(), c, cert, time.Now(), nil)
		if err != nil {
			t.Error(err)
		}
		accepted <- l
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := Dial(t.Context(), conn, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := <-accepted
	x, y := run(t, a, true), run(t, b, true)
	e := open(t, a)
	far := <-y.accepted
	far.c.Grant(1000)
	e.hears(t, "created", "credit 1000")
	for n := 0; n < 1000; {
		e.wait(t, "room", func() bool { return e.c.Room() > 0 })
		n += e.send(e.c.Room(), 1)
	}
	far.wait(t, "all cells", func() bool { return far.cells == 1000 })
	x.stop()
	y.stop()
	for _, l := range []*Link{a, b} {
		if l.wire.buf != nil {
			t.Error("a buffer is held")
		}
	}
}

func TestThePoolSharesOneAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id, cert := somebody(t)
		dials := 0
		p := &Pool{DialTCP: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
			dials++
			if dials == 1 {
				return nil, errors.New("no route")
			}
			a, b := linktest.Pipe(linktest.Shape{Delay: time.Millisecond})
			go func() {
				l, err := Accept(context.Background(), b, cert, time.Now(), nil)
				if err == nil {
					l.Run(context.Background(), func(c *Circuit, _ []byte) { c.Destroy(cell.Busy) })
				}
			}()
			return a, nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		get := func() (*Link, error) { return p.Get(ctx, id, netip.AddrPort{}) }
		early := make(chan error)
		go func() { _, err := get(); early <- err }() // before Run has begun
		synctest.Wait()
		over := make(chan struct{})
		go func() { p.Run(ctx); close(over) }()
		if err := <-early; err == nil || !strings.Contains(err.Error(), "no route") {
			t.Errorf("first attempt: %v", err)
		}
		for range 10 {
			if _, err := get(); err == nil {
				t.Error("a failure is not remembered")
			}
		}
		if dials != 1 {
			t.Errorf("%d dials within a second of a failure, want 1", dials)
		}
		time.Sleep(failureHold + 1)
		var all sync.WaitGroup
		var mu sync.Mutex
		seen := make(map[*Link]bool)
		for range 10 {
			all.Go(func() {
				l, err := get()
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				seen[l] = true
				mu.Unlock()
			})
		}
		all.Wait()
		if len(seen) != 1 || dials != 2 || len(p.Links()) != 1 {
			t.Errorf("%d links, %d dials", len(seen), dials)
		}
		first, _ := get()
		first.Close()
		synctest.Wait()
		if second, err := get(); err != nil || second == first {
			t.Errorf("a dead link is handed out: %v", err)
		}
		time.Sleep(7 * time.Minute)
		if n := len(p.Links()); n != 0 {
			t.Errorf("%d links are kept that carry nothing", n)
		}
		if _, err := get(); err != nil {
			t.Error(err)
		}
		cancel()
		<-over
		if _, err := p.Get(context.Background(), id, netip.AddrPort{}); err != ErrClosed {
			t.Errorf("after Run: %v", err)
		}
	})
}
