package authority

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// HandshakeTimeout is for the handshake and the first byte behind it.
const HandshakeTimeout = 10 * time.Second

// What a client that speaks TLS may run into. Package proxy counts them.
var (
	ErrNotAllowed = errors.New("authority: TLS for a name that the client did not dial, or that can't be a tracker's")
	ErrDistrusted = errors.New("authority: the client doesn't trust this authority")
	ErrHandshake  = errors.New("authority: the TLS handshake failed")
)

// Handshake is the server's side of TLS on conn, for the tracker that the
// client dialled: host, or the name in its ClientHello if host is an address.
// The authority signs for no other. The returned Conn takes conn's place. On an
// error the client has received an alert and conn is closed; the error is or
// wraps one of those above and names no host.
func (a *Authority) Handshake(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(HandshakeTimeout))

	var refused error // why no certificate was shown; nil once one was
	shown := false
	t := tls.Server(conn, &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			var c *tls.Certificate
			name, err := meant(host, hello.ServerName)
			if err == nil {
				c, err = a.leaf(name)
			}
			refused, shown = err, err == nil
			if errors.Is(err, ErrNotAllowed) || errors.Is(err, ErrHost) {
				return nil, nil // makes the alert unrecognized_name
			}
			return c, err
		},
	})
	err := t.HandshakeContext(ctx)
	first := bufio.NewReaderSize(t, 1)
	if err == nil {
		// Some clients finish the handshake before they look at the
		// certificate, and hang up instead of asking.
		_, err = first.Peek(1)
	}
	if err == nil {
		return &conversation{t, first}, t.SetDeadline(time.Time{})
	}
	conn.Close()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case refused != nil && (errors.Is(refused, ErrNotAllowed) || errors.Is(refused, ErrHost)):
		return nil, ErrNotAllowed
	case refused != nil:
		return nil, fmt.Errorf("%w: %w", ErrHandshake, refused)
	case shown && !isTimeout(err):
		return nil, ErrDistrusted
	}
	return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
}

// meant returns the host that the client wants a certificate of: it dialled host
// and its ClientHello has the name sni, which may be empty.
func meant(host, sni string) (string, error) {
	dialled, err := clean(host)
	if err != nil || sni == "" {
		return dialled, err
	}
	name, err := clean(sni)
	if err == nil && name != dialled && net.ParseIP(dialled) == nil {
		err = ErrNotAllowed
	}
	return name, err
}

// isTimeout tells a client that dawdles from one that saw the certificate and
// left, by an alert or by hanging up. Not every alert can be read as one:
// OpenSSL's for a certificate that it doesn't trust comes out as a bad MAC.
func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// conversation is a TLS conn of which a byte was read ahead.
type conversation struct {
	*tls.Conn
	r *bufio.Reader
}

func (c *conversation) Read(b []byte) (int, error) { return c.r.Read(b) }
