package scrub

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// half is one end of a connection whose directions end one by one.
type half struct {
	net.Conn          // what is read
	out      net.Conn // what is written
}

func duplex() (a, b *half) {
	ar, bw := net.Pipe()
	br, aw := net.Pipe()
	return &half{ar, aw}, &half{br, bw}
}

func (h *half) Write(b []byte) (int, error) { return h.out.Write(b) }
func (h *half) CloseWrite() error           { return h.out.Close() }
func (h *half) Close() error                { h.Conn.Close(); return h.out.Close() }

func (h *half) SetWriteDeadline(t time.Time) error { return h.out.SetWriteDeadline(t) }

// both runs two sidecars between two clients: a dials, b is dialled.
func both(ctx context.Context, a, b net.Conn, errs *[2]error) (wait func()) {
	streamA, streamB := duplex()
	var wg sync.WaitGroup
	wg.Go(func() {
		l, err := Accept(ctx, a, testHash)
		if err != nil {
			a.Close()
			streamA.Close()
			errs[0] = err
			return
		}
		errs[0] = Splice(ctx, l, streamA, Config{Hash: testHash, Self: PeerID([32]byte{1}), Peer: PeerID([32]byte{2})})
	})
	wg.Go(func() {
		far, err := Far(ctx, streamB, testHash)
		if err != nil {
			b.Close()
			streamB.Close()
			errs[1] = err
			return
		}
		c := Config{Hash: testHash, Self: PeerID([32]byte{2}), Peer: PeerID([32]byte{1})}
		l, err := Dial(ctx, func(context.Context) (net.Conn, error) { return b, nil }, far, c, new(Taste))
		if err != nil {
			b.Close()
			streamB.Close()
			errs[1] = err
			return
		}
		errs[1] = Splice(ctx, l, far, c)
	})
	return wg.Wait
}

func TestTwoClientsTalkAndHangUpOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ours := duplex()
		theirs, b := duplex()
		var errs [2]error
		wait := both(t.Context(), ours, theirs, &errs)
		payload := pieces(50)
		go func() {
			a.Write(plainHello())
			a.Write(message(2, ""))
			a.CloseWrite()
		}()
		go func() {
			io.ReadFull(b, make([]byte, helloSize))
			b.Write(hello(testHash, allReserved, clientID))
			io.ReadFull(b, make([]byte, 5))
			if _, err := b.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("b reads %v behind what a has said, want EOF", err)
			}
			time.Sleep(lingerTimeout - time.Second) // that long it may wait
			b.Write(payload)
			b.CloseWrite()
		}()
		got, err := io.ReadAll(a)
		want := append(hello(testHash, reserved, PeerID([32]byte{2})), payload...)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("a reads %d bytes, %v, want %d", len(got), err, len(want))
		}
		wait()
		if errs[0] != nil || errs[1] != nil {
			t.Errorf("Splice = %v and %v, want nil", errs[0], errs[1])
		}
	})
}

func TestSpliceRefuses(t *testing.T) {
	other := hello([20]byte{1}, allReserved, clientID)
	for _, row := range []struct {
		name        string
		client, far string // what they say
		want        error
		toClient    int // bytes that get there
		toFar       int
	}{
		{"another torrent from the client", string(other), "", ErrWrongSwarm, 0, 0},
		{"another torrent from the far side", string(plainHello()), string(other), ErrWrongSwarm, 0, helloSize},
		{"noise from the client", "GET / HTTP/1.1\r\n\r\n", "", ErrNotBitTorrent, 0, 0},
		{"noise from the far side", string(plainHello()), "HTTP/1.1 200 OK\r\n\r\n", ErrNotBitTorrent, 0, helloSize},
		{"half a handshake from the far side", string(plainHello()), string(plainHello()[:67]), ErrSilent, 0, helloSize},
		{"half a handshake from the client", string(plainHello()[:67]), string(plainHello()), ErrSilent, helloSize, 0},
		{"noise later on", string(plainHello()) + "\xff\xff\xff\xff", string(plainHello()), ErrNotBitTorrent, helloSize, helloSize},
	} {
		synctest.Test(t, func(t *testing.T) {
			client, ours := duplex()
			far, stream := duplex()
			var wg sync.WaitGroup
			listen := func(c net.Conn, say string, n *int) {
				wg.Go(func() {
					go c.Write([]byte(say))
					b, _ := io.ReadAll(c)
					*n = len(b)
				})
			}
			var toClient, toFar int
			listen(client, row.client, &toClient)
			synctest.Wait()
			listen(far, row.far, &toFar)
			synctest.Wait()
			err := Splice(t.Context(), ours, stream, testConfig)
			wg.Wait()
			if !errors.Is(err, row.want) {
				t.Errorf("%s: Splice = %v, want %v", row.name, err, row.want)
			}
			// Which of two sides was heard first is open; less may get through, never more.
			if toClient > row.toClient || toFar > row.toFar {
				t.Errorf("%s: %d bytes reach the client and %d the far side, want %d and %d", row.name, toClient, toFar, row.toClient, row.toFar)
			}
		})
	}
}

func TestSpliceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, ours := duplex()
		far, stream := duplex()
		go client.Write(plainHello())
		go far.Write(plainHello())
		for _, c := range []net.Conn{client, far} {
			go io.Copy(io.Discard, c)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := Splice(ctx, ours, stream, testConfig); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Splice = %v", err)
		}
	})
}

func TestSpliceDoesNotLingerForAnIdleHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, ours := duplex()
		far, stream := duplex()
		go func() {
			client.Write(plainHello())
			time.Sleep(time.Hour)
			client.CloseWrite()
		}()
		go io.Copy(io.Discard, client)
		go io.Copy(io.Discard, far)
		go func() {
			far.Write(plainHello())
			time.Sleep(time.Hour)
			for range 10 { // goes on talking, then falls silent without an end
				time.Sleep(lingerTimeout - time.Second)
				far.Write(message(4, "\x00\x00\x00\x07"))
			}
		}()
		start := time.Now()
		err := Splice(t.Context(), ours, stream, testConfig)
		if want := time.Hour + 10*(lingerTimeout-time.Second) + lingerTimeout; err != nil || time.Since(start) != want {
			t.Errorf("Splice = %v after %v, want %v", err, time.Since(start), want)
		}
	})
}

func TestSpliceDoesNotLingerForAClientThatReadsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, ours := duplex()
		far, stream := duplex()
		go func() {
			client.Write(plainHello())
			io.ReadFull(client, make([]byte, helloSize))
			time.Sleep(time.Hour)
			client.CloseWrite()
		}()
		go io.Copy(io.Discard, far)
		go func() {
			far.Write(plainHello())
			far.Write(pieces(20))
		}()
		start := time.Now()
		err := Splice(t.Context(), ours, stream, testConfig)
		if want := time.Hour + lingerTimeout; err != nil || time.Since(start) != want {
			t.Errorf("Splice = %v after %v, want %v", err, time.Since(start), want)
		}
	})
}

func TestConnsThatCannotEndByHalvesAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, ours := net.Pipe() // as µTP
		far, stream := duplex()
		go func() {
			client.Write(plainHello())
			io.Copy(io.Discard, client)
		}()
		go io.Copy(io.Discard, far)
		go func() {
			far.Write(plainHello())
			far.CloseWrite()
		}()
		start := time.Now()
		if err := Splice(t.Context(), ours, stream, testConfig); err != nil || time.Since(start) > 0 {
			t.Errorf("Splice = %v after %v", err, time.Since(start))
		}
	})
}

func TestErrorsNameNoAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	dialled.(*net.TCPConn).SetLinger(0) // a reset
	dialled.Write(plainHello()[:5])
	dialled.Close()
	_, err = Accept(t.Context(), conn, testHash)
	if err == nil || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("Accept = %v", err)
	}
	conn.Close()
	_, err = Dial(t.Context(), func(context.Context) (net.Conn, error) { return net.Dial("tcp", "127.0.0.1:1") }, farLeg(t), testConfig, new(Taste))
	if err == nil || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("Dial = %v", err)
	}
}

func TestCopySwitchesBuffersAndLosesNothing(t *testing.T) {
	out, _ := NewPair(testConfig)
	wire := append(busyStream(), pieces(40)...)
	other, _ := NewPair(testConfig)
	want, err := feedAll(other, wire)
	if err != nil {
		t.Fatal(err)
	}
	// Little by little, then much at a time, then little again.
	src := io.MultiReader(oneByte{bytes.NewReader(wire[:5000])}, bytes.NewReader(wire[5000:]))
	var got bytes.Buffer
	n, err := Copy(&got, src, out)
	if err != nil || n != int64(len(want)) || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("Copy = %d, %v, want %d", n, err, len(want))
	}
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:1]) }
