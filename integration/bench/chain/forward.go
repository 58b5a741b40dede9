package chain

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"

	"github.com/shoal-p2p/shoal/circuit/link"
)

// Chain is the service of a process that is one forwarder (package child).
type Chain struct{}

// Forward is what one forwarder does.
type Forward struct {
	Next   string // HOST:PORT
	In     bool   // TLS on the connections that it accepts
	Out    bool   // TLS on the connections that it makes
	Listen string // HOST:PORT; port 0 means any
}

// Forward starts to forward and returns where it listens. It ends with the process.
func (Chain) Forward(f Forward, addr *string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	cert, err := link.Certificate(key)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", f.Listen)
	if err != nil {
		return err
	}
	*addr = l.Addr().String()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.carry(conn.(*net.TCPConn), cert)
		}
	}()
	return nil
}

// conn is what TCP and TLS connections have in common.
type conn interface {
	net.Conn
	CloseWrite() error
}

// carry moves one connection on, both ways, until both have ended.
func (f Forward) carry(from *net.TCPConn, cert tls.Certificate) {
	defer from.Close()
	next, err := net.Dial("tcp", f.Next)
	if err != nil {
		return
	}
	defer next.Close()
	var near, far conn = from, next.(*net.TCPConn)
	// Nobody's identity is checked: that is no work per byte.
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}}
	if f.In {
		near = tls.Server(from, cfg)
	}
	if f.Out {
		far = tls.Client(next, cfg)
	}
	done := make(chan error, 1)
	go func() { done <- move(near, far) }()
	if err := move(far, near); err != nil {
		near.Close()
		far.Close()
	}
	if err := <-done; err != nil {
		near.Close()
		far.Close()
	}
}

// move copies to the end, which it passes on. Between two TCP connections the
// kernel does it (splice).
func move(to, from conn) error {
	if _, err := io.Copy(to, from); err != nil {
		return fmt.Errorf("chain: %w", err)
	}
	return to.CloseWrite()
}
