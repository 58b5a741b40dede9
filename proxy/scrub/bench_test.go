package scrub

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/anacrolix/torrent/mse"
)

// BenchmarkFeed is the state machine alone, in reads of 64 KiB.
func BenchmarkFeed(b *testing.B) {
	requests := make([]byte, 0, 17<<12)
	for range 1 << 12 {
		requests = append(requests, message(6, "\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x40\x00")...)
	}
	var dropped []byte
	for range 8 {
		dropped = append(append(dropped, message(9, "\x1a\xe1")...), pieces(8)...)
	}
	for _, row := range []struct {
		name string
		wire []byte
	}{
		{"pieces", pieces(64)},
		{"requests", requests},
		{"pieces with something dropped", dropped},
	} {
		b.Run(row.name, func(b *testing.B) {
			out, _ := pair(b)
			b.SetBytes(int64(len(row.wire)))
			b.ReportAllocs()
			for b.Loop() {
				for rest := row.wire; len(rest) > 0; {
					n := min(len(rest), 64<<10)
					if _, err := out.Feed(rest[:n]); err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
			}
		})
	}
}

// tcp returns both ends of a connection over loopback.
func tcp(b *testing.B) (x, y *net.TCPConn) {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { dialled.Close(); accepted.Close() })
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

// BenchmarkClientToStream moves pieces from a client through one sidecar's
// edge: two connections over loopback, and what is between them. The CPU of
// client and sink is part of it.
func BenchmarkClientToStream(b *testing.B) {
	// A plain copy that the kernel does not do by itself.
	type conn struct{ net.Conn }
	for _, row := range []struct {
		name   string
		client func(net.Conn) (io.ReadWriter, error)
		edge   func(leg, stream net.Conn) error
	}{
		{"io.Copy", plainClient, func(leg, stream net.Conn) error {
			_, err := io.Copy(conn{stream}, conn{leg})
			return err
		}},
		{"io.CopyBuffer of the same size", plainClient, func(leg, stream net.Conn) error {
			_, err := io.CopyBuffer(conn{stream}, conn{leg}, make([]byte, bigBuffer))
			return err
		}},
		{"scrubbed", plainClient, scrubbed},
		{"scrubbed, MSE plaintext", mseClient(mse.CryptoMethodPlaintext), scrubbed},
		{"scrubbed, MSE RC4", mseClient(mse.CryptoMethodRC4), scrubbed},
	} {
		b.Run(row.name, func(b *testing.B) {
			client, leg := tcp(b)
			stream, sink := tcp(b)
			done := make(chan error, 2)
			go func() { done <- row.edge(leg, stream); stream.CloseWrite() }()
			go func() { _, err := io.Copy(io.Discard, conn{sink}); done <- err }()
			rw, err := row.client(client)
			if err != nil {
				b.Fatal(err)
			}
			wire := pieces(16)
			b.SetBytes(int64(len(wire)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := rw.Write(wire); err != nil {
					b.Fatal(err)
				}
			}
			client.CloseWrite()
			for range 2 {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func plainClient(c net.Conn) (io.ReadWriter, error) {
	_, err := c.Write(plainHello())
	return c, err
}

func mseClient(m mse.CryptoMethod) func(net.Conn) (io.ReadWriter, error) {
	return func(c net.Conn) (io.ReadWriter, error) {
		rw, _, err := mse.InitiateHandshake(c, testHash[:], plainHello(), m)
		return rw, err
	}
}

func scrubbed(leg, stream net.Conn) error {
	l, err := Accept(context.Background(), leg, testHash)
	if err != nil {
		return err
	}
	out, _ := NewPair(testConfig)
	_, err = Copy(stream, l, out)
	return err
}
