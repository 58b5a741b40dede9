package link

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Certificate makes the self-signed certificate by which key's owner is known
// on its links. What counts is the key; nothing else in it is read.
func Certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280: no expiry
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("link: own certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// config is what both ends share: TLS 1.3 alone, the standard library's hybrid
// key exchange, no tickets and so no early data.
func config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
}

// identity returns the Ed25519 key of the other side's certificate.
func identity(s tls.ConnectionState) (id onion.ID, err error) {
	if len(s.PeerCertificates) != 1 {
		return id, fmt.Errorf("link: %d certificates, want 1", len(s.PeerCertificates))
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return id, fmt.Errorf("link: certificate holds a %T, want an Ed25519 key", s.PeerCertificates[0].PublicKey)
	}
	return onion.ID(key), nil
}

// Dial makes the link to the relay or tracker that id names over conn, which it
// owns from here on. With a nil cert the link shows no identity.
func Dial(ctx context.Context, conn net.Conn, id onion.ID, cert *tls.Certificate) (*Link, error) {
	cfg := config()
	cfg.InsecureSkipVerify = true // the chain means nothing here: the key is pinned below
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		got, err := identity(s)
		if err == nil && got != id {
			err = wrongKey()
		}
		return err
	}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	w := newWire(conn)
	return start(ctx, tls.Client(w, cfg), w, true, []byte{version})
}

// Accept makes the link that the other side of conn asks for; it owns conn from
// here on. The other side may show an identity or none. now is the time to tell,
// for Link.Time there, and hello, at most MaxHello bytes, what Link.Hello returns
// there: the descriptor, so that one who knows no more than an address and an
// identity can build a circuit that ends here.
func Accept(ctx context.Context, conn net.Conn, cert tls.Certificate, now time.Time, hello []byte) (*Link, error) {
	cfg := config()
	cfg.Certificates = []tls.Certificate{cert}
	cfg.ClientAuth = tls.RequestClientCert
	w := newWire(conn)
	return start(ctx, tls.Server(w, cfg), w, false, appendHello([]byte{version}, now, hello))
}

// start shakes hands, sends first, and reads the other side's first bytes. What
// follows is no longer TLS's.
func start(ctx context.Context, c *tls.Conn, w *wire, dialled bool, first []byte) (*Link, error) {
	stop := context.AfterFunc(ctx, func() { w.Conn.Close() })
	defer stop()
	l, err := shake(ctx, c, w, dialled, first)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		w.Conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("link: handshake: %w", handshakeFault(err))
	}
	return l, nil
}

func shake(ctx context.Context, c *tls.Conn, w *wire, dialled bool, first []byte) (*Link, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if _, err := c.Write(first); err != nil {
		return nil, err
	}
	if err := readVersion(c); err != nil {
		return nil, err
	}
	var theirs neighbourTime
	var hello []byte
	var err error
	if dialled {
		if theirs, hello, err = readHello(c); err != nil {
			return nil, err
		}
	}
	s := c.ConnectionState()
	var peer onion.ID
	if len(s.PeerCertificates) > 0 {
		if peer, err = identity(s); err != nil {
			return nil, err
		}
	}
	in, out, err := newDirections(s, dialled)
	if err != nil {
		return nil, err
	}
	l := newLink(w, peer, dialled)
	l.hello, l.time, l.in, l.out = hello, theirs, in, out
	return l, nil
}
