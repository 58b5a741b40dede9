package netns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
)

func init() {
	// bulk ADDR SIZE up|down
	roles["bulk"] = func(args []string) error {
		conn, err := net.Dial("tcp", args[0])
		if err != nil {
			return err
		}
		defer conn.Close()
		size, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return err
		}
		if args[2] == "up" {
			err = send(conn, size)
			conn.(*net.TCPConn).CloseWrite()
			io.ReadAll(conn)
			return err
		}
		n, err := drain(conn)
		if err == nil && n != size {
			err = errors.New("cut short")
		}
		return err
	}
}

const blockSize = 16 << 10 // what a client writes at once

func send(w io.Writer, size int64) error {
	b := make([]byte, blockSize)
	for size > 0 {
		n, err := w.Write(b[:min(size, blockSize)])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

func drain(r io.Reader) (int64, error) {
	b := make([]byte, 64<<10)
	var sum int64
	for {
		n, err := r.Read(b)
		sum += int64(n)
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
	}
}

// bulk is a Handler whose every TCP connection moves size bytes.
type bulk struct {
	size int64
	up   bool
}

func (h bulk) UDP([]byte, netip.AddrPort, netip.AddrPort) {}
func (h bulk) Name(string) netip.Addr                     { return netip.Addr{} }
func (h bulk) TCP(context.Context, netip.AddrPort, netip.AddrPort) (func(Conn), error) {
	return h.serve, nil
}

func (h bulk) serve(conn Conn) {
	defer conn.Close()
	if h.up {
		drain(conn)
	} else {
		send(conn, h.size)
	}
	conn.CloseWrite()
	io.Copy(io.Discard, conn)
}

// BenchmarkBulk moves bytes between a command and its Handler, over each kind
// of interface and over plain loopback for comparison.
func BenchmarkBulk(b *testing.B) {
	const size = 1 << 30
	for _, way := range []string{"down", "up"} {
		h := bulk{size, way == "up"}
		b.Run(way+"/loopback", func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					h.serve(c.(*net.TCPConn))
				}
			}()
			b.SetBytes(size)
			for b.Loop() {
				exe, _ := os.Executable()
				p, err := os.StartProcess(exe, []string{exe, ln.Addr().String(), strconv.Itoa(size), way}, &os.ProcAttr{
					Env:   append(os.Environ(), roleEnv+"=bulk"),
					Files: []*os.File{nil, os.Stdout, os.Stderr},
				})
				if err != nil {
					b.Fatal(err)
				}
				if s, err := p.Wait(); err != nil || !s.Success() {
					b.Fatal(s, err)
				}
			}
		})
		for _, r := range []road{roadTUN, roadVeth} {
			b.Run(way+"/"+string(r), func(b *testing.B) {
				b.SetBytes(size)
				for b.Loop() {
					cfg := as(b, h, "bulk", "198.18.0.1:6881", strconv.Itoa(size), way)
					cfg.noTUN = r == roadVeth
					if code, err := Run(b.Context(), cfg); code != 0 || err != nil {
						b.Fatal(code, err)
					}
				}
			})
		}
	}
}
