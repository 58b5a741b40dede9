package announce

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// What a client said instead of an announce. Package proxy counts them.
var (
	ErrWebSeed    = errors.New("announce: a request for part of a file")
	ErrNoAnnounce = errors.New("announce: a web request that is no announce")
	ErrTooLarge   = errors.New("announce: a request of more than 16 KiB")
	ErrSilent     = errors.New("announce: no request in time")
	ErrMalformed  = errors.New("announce: not HTTP")
)

// Serve answers the HTTP requests on conn, one after the other, and closes it.
// It returns nil when the client is done, or why it was refused: one of the
// errors above, ctx's, or that of a failed write.
func Serve(ctx context.Context, conn net.Conn, h Handler) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	s := &session{conn: conn, handler: h, limit: io.LimitedReader{R: conn}}
	s.in = bufio.NewReader(&s.limit)
	err := s.run(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// session is one conn that HTTP requests come from.
type session struct {
	conn    net.Conn
	handler Handler
	limit   io.LimitedReader // what the request at hand may still take from conn
	in      *bufio.Reader    // reads from limit
}

func (s *session) run(ctx context.Context) error {
	s.conn.SetReadDeadline(time.Now().Add(ReadTimeout))
	for first := true; ; first = false {
		s.limit.N = int64(MaxRequest - s.in.Buffered())
		if _, err := s.in.Peek(1); err != nil {
			if first && isTimeout(err) {
				return ErrSilent
			}
			return nil
		}
		if !first {
			s.conn.SetReadDeadline(time.Now().Add(ReadTimeout))
		}
		again, err := s.one(ctx)
		if err != nil || !again {
			return err
		}
		s.conn.SetReadDeadline(time.Now().Add(IdleTimeout))
	}
}

// one reads a request and answers it. It reports whether there may be another.
func (s *session) one(ctx context.Context) (again bool, err error) {
	r, err := readRequest(s.in)
	if err != nil {
		return false, s.unreadable(err)
	}
	p := reply{status: http.StatusOK, old: r.old, last: r.last()}
	body, err := s.answer(ctx, r)
	if err != nil {
		// Words instead of a closed conn: a web seed that is refused is not asked again.
		p.status, p.last, body = http.StatusForbidden, true, []byte("Shoal answers trackers only.\n")
	}
	if werr := p.write(s.conn, body); err == nil {
		err = werr
	}
	return !p.last, err
}

// unreadable tells the client that its request could not be read, and says why.
func (s *session) unreadable(err error) error {
	p, refused := reply{status: http.StatusBadRequest, last: true}, ErrMalformed
	switch {
	case s.limit.N <= 0:
		p.status, refused = http.StatusRequestHeaderFieldsTooLarge, ErrTooLarge
	case isTimeout(err):
		p.status, refused = http.StatusRequestTimeout, ErrSilent
	}
	p.write(s.conn, nil) // the client may be gone, and is refused in any case
	return refused
}

// answer returns the bencoded answer to r, or why it is none of ours.
func (s *session) answer(ctx context.Context, r *httpRequest) ([]byte, error) {
	if r.method != http.MethodGet {
		return nil, ErrNoAnnounce
	}
	q, err := parse(r.target)
	if errors.Is(err, errNoHash) {
		if r.header.Get("Range") != "" {
			return nil, ErrWebSeed
		}
		return nil, ErrNoAnnounce
	}
	if err != nil {
		return failBody(Failure{Text: err.Error(), Retry: DefaultInterval}), nil
	}
	ctx, cancel := context.WithTimeout(ctx, Wait)
	defer cancel()
	if q.scrape {
		counts, err := s.handler.Scrape(ctx, q.hashes)
		if err != nil {
			return failBody(failureOf(err)), nil
		}
		return scrapeBody(q.hashes, counts), nil
	}
	resp, err := s.handler.Announce(ctx, q.request)
	if err != nil {
		return failBody(failureOf(err)), nil
	}
	return q.body(resp), nil
}

// reply is the head of an HTTP answer.
type reply struct {
	status int
	old    bool // to a request of HTTP/1.0
	last   bool // on its connection
}

// write sends the answer in one piece. It names no server and no time.
func (p reply) write(w net.Conn, body []byte) error {
	proto, connection := "HTTP/1.1", "keep-alive"
	if p.old {
		proto = "HTTP/1.0"
	}
	if p.last {
		connection = "close"
	}
	b := make([]byte, 0, 160+len(body))
	b = append(b, proto+" "+strconv.Itoa(p.status)+" "+http.StatusText(p.status)+"\r\n"...)
	b = append(b, "Content-Type: text/plain\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\nConnection: "+connection+"\r\n\r\n"...)
	w.SetWriteDeadline(time.Now().Add(ReadTimeout))
	_, err := w.Write(append(b, body...))
	return err
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
