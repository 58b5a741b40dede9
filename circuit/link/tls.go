package link

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/window"
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
	return start(ctx, tls.Client(w, cfg), w, true, nil)
}

// Accept makes the link that the other side of conn asks for; it owns conn from
// here on. The other side may show an identity or none. hello, at most MaxHello
// bytes, is what Link.Hello returns there: the descriptor, so that whoever knows
// no more than an address and an identity can build a circuit that ends here.
func Accept(ctx context.Context, conn net.Conn, cert tls.Certificate, hello []byte) (*Link, error) {
	cfg := config()
	cfg.Certificates = []tls.Certificate{cert}
	cfg.ClientAuth = tls.RequestClientCert
	w := newWire(conn)
	return start(ctx, tls.Server(w, cfg), w, false, hello)
}

// MaxHello bounds what an acceptor says of itself at the start of a link, bytes.
const MaxHello = 8 << 10

// An acceptor's first bytes are, big endian:
//
//	 0  1  version
//	 1  8  its time, seconds since 1970
//	 9  2  length of its hello
//	11  …  its hello
//
// A dialler's are its version alone.
const firstSize = 1 + 8 + 2

// start shakes hands, and each side sends its first bytes. What follows is no
// longer TLS's.
func start(ctx context.Context, c *tls.Conn, w *wire, dialled bool, hello []byte) (*Link, error) {
	stop := context.AfterFunc(ctx, func() { w.Conn.Close() })
	defer stop()
	fail := func(err error) (*Link, error) {
		w.Conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("link: handshake: %w", handshakeFault(err))
	}
	if err := c.HandshakeContext(ctx); err != nil {
		return fail(err)
	}
	first := []byte{version}
	if !dialled {
		if len(hello) > MaxHello {
			panic(fmt.Sprintf("link: hello of %d bytes, at most %d", len(hello), MaxHello))
		}
		first = binary.BigEndian.AppendUint64(first, uint64(time.Now().Unix()))
		first = append(binary.BigEndian.AppendUint16(first, uint16(len(hello))), hello...)
	}
	if _, err := c.Write(first); err != nil {
		return fail(err)
	}
	var theirs neighbourTime
	if err := readVersion(c); err != nil {
		return fail(err)
	}
	if dialled {
		var err error
		if theirs, hello, err = readHello(c); err != nil {
			return fail(err)
		}
	}
	s := c.ConnectionState()
	var peer onion.ID
	if len(s.PeerCertificates) > 0 {
		var err error
		if peer, err = identity(s); err != nil {
			return fail(err)
		}
	}
	in, out, err := newDirections(s, dialled)
	if err != nil {
		return fail(err)
	}
	if !stop() {
		return fail(ctx.Err())
	}
	l := newLink(w, peer, dialled)
	l.hello, l.time, l.in, l.out = hello, theirs, in, out
	return l, nil
}

// readVersion reads the first of an other side's first bytes.
func readVersion(c io.Reader) error {
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	if b[0] != version {
		return wrongVersion(b[0])
	}
	return nil
}

// readHello reads the rest of an acceptor's first bytes.
func readHello(c io.Reader) (theirs neighbourTime, hello []byte, err error) {
	var b [firstSize - 1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return theirs, nil, err
	}
	s, n := binary.BigEndian.Uint64(b[:]), int(binary.BigEndian.Uint16(b[8:]))
	if s > maxTime {
		return theirs, nil, fmt.Errorf("time %d is beyond the year 9999", s)
	}
	if n > MaxHello {
		return theirs, nil, fmt.Errorf("hello of %d bytes, at most %d", n, MaxHello)
	}
	hello = make([]byte, n)
	if _, err := io.ReadFull(c, hello); err != nil {
		return theirs, nil, err
	}
	return neighbourTime{time.Unix(int64(s), 0), window.Clock()}, hello, nil
}

// maxTime keeps times from the network far from where time arithmetic
// overflows: the year 9999.
const maxTime = 253402300799

// neighbourTime is what the other side's clock showed, and when that was.
type neighbourTime struct {
	shown time.Time
	at    time.Duration // on the clock of package window
}

// Time returns what the acceptor's clock shows now, for the side that dialled.
// It is the acceptor's word.
func (l *Link) Time() time.Time { return l.time.shown.Add(window.Clock() - l.time.at) }

// ClockAhead returns by how much this computer's clock is ahead of the
// acceptor's, to some seconds; below 0 when it is behind.
func (l *Link) ClockAhead() time.Duration { return time.Now().Round(0).Sub(l.Time()) }
