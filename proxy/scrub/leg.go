package scrub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/proxy/mse"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// Leg is one end of a peer stream after its first bytes were judged: they are
// a handshake for the right swarm, and are still to be read. What is read and
// written is BitTorrent in the clear, whatever lies beneath. As a net.Conn it
// is as safe for concurrent use as io allows: one reader, one writer.
type Leg struct {
	net.Conn
	r io.Reader
	w io.Writer

	hello   []byte // what is left to read of the handshake
	greeted bool   // the other side's handshake has been written already
}

// Read reads the handshake, then what follows it.
func (l *Leg) Read(b []byte) (int, error) {
	if len(l.hello) > 0 {
		n := copy(b, l.hello)
		l.hello = l.hello[n:]
		return n, nil
	}
	return l.r.Read(b)
}

// Write implements net.Conn.
func (l *Leg) Write(b []byte) (int, error) { return l.w.Write(b) }

// CloseWrite ends what is written, if the conn beneath can. If it can't, as
// with µTP, the whole conn is closed.
func (l *Leg) CloseWrite() error { return closeWrite(l.Conn) }

func closeWrite(c net.Conn) error {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return c.Close()
}

// Accept reads what a client says first on a conn that it has dialled: a
// handshake for hash, or MSE keyed by hash and a handshake inside. Errors are
// ErrNotBitTorrent, ErrWrongSwarm, ErrSilent when ctx ends first, or the
// conn's own. After an error the conn is still the caller's to close; without
// one it belongs to the Leg.
func Accept(ctx context.Context, conn net.Conn, hash swarm.Hash) (*Leg, error) {
	return within(ctx, conn, func() (*Leg, error) {
		l := &Leg{Conn: conn, r: conn, w: conn}
		err := l.readHello(&hash)
		if !errors.Is(err, ErrNotBitTorrent) {
			return l, err
		}
		first := bytes.NewReader(l.hello)
		rw := readWriter{io.MultiReader(first, conn), conn}
		inner, err := mse.Receive(rw, hash)
		if err != nil {
			return nil, mseError(err)
		}
		l = &Leg{Conn: conn, r: inner, w: inner}
		return l, l.readHello(&hash)
	})
}

// Far reads what the far side says first on a stream: a handshake for hash.
// Between sidecars there is no MSE. Errors and conn as with Accept.
func Far(ctx context.Context, conn net.Conn, hash swarm.Hash) (*Leg, error) {
	return within(ctx, conn, func() (*Leg, error) {
		l := &Leg{Conn: conn, r: conn, w: conn}
		return l, l.readHello(&hash)
	})
}

// Which reads what a client says first on a conn, when it is not known what it
// ought to be: a handshake in the clear. It returns for which swarm that is, and
// the conn, with the handshake still to be read. Errors and conn as with Accept.
func Which(ctx context.Context, conn net.Conn) (*Leg, swarm.Hash, error) {
	var hash swarm.Hash
	l, err := within(ctx, conn, func() (*Leg, error) {
		b := make([]byte, helloSize)
		for have := 0; have < len(b); {
			n, err := conn.Read(b[have:])
			have += n
			if !bytes.HasPrefix([]byte(protocol), b[:min(have, len(protocol))]) {
				return nil, ErrNotBitTorrent
			}
			if err != nil && have < len(b) {
				return nil, plain(err)
			}
		}
		copy(hash[:], b[hashAt:])
		return &Leg{Conn: conn, r: conn, w: conn, hello: b}, nil
	})
	return l, hash, err
}

// readHello reads the handshake into l.hello. What was read before an error
// stays there.
func (l *Leg) readHello(hash *swarm.Hash) error {
	b := make([]byte, helloSize)
	for have := 0; have < len(b); {
		n, err := l.r.Read(b[have:])
		have += n
		l.hello = b[:have]
		if err := checkHello(l.hello, hash); err != nil {
			return err
		}
		if err != nil && have < len(b) {
			return plain(err)
		}
	}
	return nil
}

// Taste is what is known of how a client wants to be spoken to first: plainly,
// or in MSE. The zero value is plainly. One for each client, kept by whoever
// dials it; safe for concurrent use.
type Taste struct{ mse atomic.Bool }

// answerTimeout is how long a client that was dialled may take to answer one
// handshake before the other way is tried. It is on loopback; those that
// refuse plain handshakes close at once.
const answerTimeout = 5 * time.Second

// Dial brings an arrived stream into a client that dial connects to: it says
// the far side's handshake, as c has it rewritten, and waits for the client's
// own. A client that does not answer a plain one is tried in MSE, and the
// other way round when taste remembers so; dial is called at most three times,
// one conn after the other. Errors are those of Accept and of dial, or
// mse.ErrAgain; the conn is closed on error.
func Dial(ctx context.Context, dial func(context.Context) (net.Conn, error), far *Leg, c Config, taste *Taste) (*Leg, error) {
	if len(far.hello) != helloSize {
		panic("scrub: Dial needs a stream that nothing was read from since Far")
	}
	hello := bytes.Clone(far.hello)
	rewriteHello(hello, c.Peer)
	return dialEither(ctx, dial, hello, c.Hash, taste)
}

// Greet is Dial for a connection of the sidecar's own, that no stream is
// behind: to the client it is c.Peer, who speaks extended messages.
func Greet(ctx context.Context, dial func(context.Context) (net.Conn, error), c Config, taste *Taste) (*Leg, error) {
	hello := make([]byte, helloSize)
	copy(hello, protocol)
	hello[reservedAt+5] = reserved[5]
	copy(hello[hashAt:], c.Hash[:])
	copy(hello[idAt:], c.Peer[:])
	l, err := dialEither(ctx, dial, hello, c.Hash, taste)
	if err == nil {
		l.hello = nil
	}
	return l, err
}

// dialEither says hello plainly and in MSE, what taste remembers first.
func dialEither(ctx context.Context, dial func(context.Context) (net.Conn, error), hello []byte, hash swarm.Hash, taste *Taste) (*Leg, error) {
	inMSE := taste.mse.Load()
	l, err := dialOne(ctx, dial, hello, hash, inMSE)
	if err == nil || ctx.Err() != nil || errors.Is(err, errDial) || errors.Is(err, ErrWrongSwarm) {
		return l, err
	}
	slow := errors.Is(err, ErrSilent) // which says nothing of its taste
	l, err = dialOne(ctx, dial, hello, hash, !inMSE)
	if err == nil && !slow {
		taste.mse.Store(!inMSE)
	}
	return l, err
}

// errDial is wrapped by what dial itself returned.
var errDial = errors.New("scrub: the client can't be reached")

// dialOne says hello in one of the two ways, in MSE once more when the first
// exchange came to no good secret.
func dialOne(ctx context.Context, dial func(context.Context) (net.Conn, error), hello []byte, hash swarm.Hash, inMSE bool) (*Leg, error) {
	l, err := dialOnce(ctx, dial, hello, hash, inMSE)
	if errors.Is(err, mse.ErrAgain) {
		l, err = dialOnce(ctx, dial, hello, hash, inMSE)
	}
	return l, err
}

func dialOnce(ctx context.Context, dial func(context.Context) (net.Conn, error), hello []byte, hash swarm.Hash, inMSE bool) (*Leg, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDial, plain(err))
	}
	l, err := within(ctx, conn, func() (*Leg, error) {
		l := &Leg{Conn: conn, r: conn, w: conn, greeted: true}
		if !inMSE {
			if _, err := conn.Write(hello); err != nil {
				return nil, plain(err)
			}
			return l, l.readHello(&hash)
		}
		inner, err := mse.Initiate(conn, hash, hello)
		if err != nil {
			return nil, mseError(err)
		}
		l.r, l.w = inner, inner
		return l, l.readHello(&hash)
	})
	if err != nil {
		conn.Close()
	}
	return l, err
}

// past is a deadline that has gone by.
var past = time.Unix(1, 0)

// within runs f, whose reads and writes on conn fail once ctx ends.
func within(ctx context.Context, conn net.Conn, f func() (*Leg, error)) (*Leg, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(past) })
	l, err := f()
	if !stop() && err == nil {
		err = ErrSilent
	}
	if err != nil {
		if ctx.Err() != nil && !errors.Is(err, ErrWrongSwarm) {
			err = ErrSilent
		}
		return nil, err
	}
	return l, nil
}

// mseError says in this package's words what an exchange came to.
func mseError(err error) error {
	switch {
	case errors.Is(err, mse.ErrTorrent):
		return ErrWrongSwarm
	case errors.Is(err, mse.ErrProtocol):
		return ErrNotBitTorrent
	}
	return plain(err)
}

// plain strips the addresses that package net puts into its errors.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

type readWriter struct {
	io.Reader
	io.Writer
}
