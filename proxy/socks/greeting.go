package socks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"github.com/armon/go-socks5"

	"github.com/shoal-p2p/shoal/proxy/status"
)

// The errors of a client that does not speak SOCKS5, or not with the password
// that it must give. Each was answered in the client's own protocol.
var (
	errSOCKS4     = errors.New("socks: a client of SOCKS4")
	errHTTP       = errors.New("socks: a client of an HTTP proxy")
	errNoPassword = errors.New("socks: the client offers no password")
)

// reasonOf returns what a refused greeting counts as. A connection that ended
// without a word was no more than a look at whether Shoal is there.
func reasonOf(err error) (r status.Reason, counts bool) {
	switch {
	case errors.Is(err, errSOCKS4):
		return status.SOCKS4, true
	case errors.Is(err, errHTTP):
		return status.HTTPProxy, true
	case errors.Is(err, errNoPassword):
		return status.NoPassword, true
	case errors.Is(err, os.ErrDeadlineExceeded):
		return status.Silent, true
	}
	return status.Unreadable, err != io.EOF
}

// greeting reads what a client begins with and returns it with user names put
// first: clients that have one offer "none" before it, and the first known
// method is taken.
func (s *Server) greeting(conn io.ReadWriter) ([]byte, error) {
	head := make([]byte, 1, 2+255)
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil, err
	}
	switch {
	case head[0] == 4:
		return nil, refuseSOCKS4(conn)
	case head[0] >= 'A' && head[0] <= 'Z':
		return nil, refuseHTTP(conn)
	case head[0] != 5:
		return nil, fmt.Errorf("socks: version %d", head[0])
	}
	head = head[:2]
	if _, err := io.ReadFull(conn, head[1:]); err != nil {
		return nil, notEOF(err)
	}
	b := head[:2+int(head[1])]
	if _, err := io.ReadFull(conn, b[2:]); err != nil {
		return nil, notEOF(err)
	}
	i := slices.Index(b[2:], socks5.UserPassAuth)
	switch {
	case i >= 0:
		b[2], b[2+i] = b[2+i], b[2]
	case s.config.Password != "":
		conn.Write([]byte{5, 0xff})
		return nil, errNoPassword
	}
	return b, nil
}

// notEOF keeps an end in the middle from looking like one before the start.
func notEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// refuseSOCKS4 reads a request of SOCKS4 or 4a to its end and answers that it is
// rejected.
func refuseSOCKS4(conn io.ReadWriter) error {
	const rest = 1 + 2 + 4 // command, port, address; then a user, and in 4a a name
	if err := readPast(conn, []byte{0}, rest, 512); err != nil {
		return err
	}
	conn.Write([]byte{0, 91, 0, 0, 0, 0, 0, 0})
	return errSOCKS4
}

const httpRefusal = "This is a SOCKS5 proxy, and the request was for an HTTP proxy. Set the proxy type to SOCKS5 in your client's connection settings.\n"

// refuseHTTP reads a request's header and answers it.
func refuseHTTP(conn io.ReadWriter) error {
	if err := readPast(conn, []byte("\r\n\r\n"), 0, 16<<10); err != nil {
		return err
	}
	io.WriteString(conn, "HTTP/1.1 501 Not Implemented: set the proxy type to SOCKS5\r\nContent-Type: text/plain\r\nContent-Length: "+
		strconv.Itoa(len(httpRefusal))+"\r\nConnection: close\r\n\r\n"+httpRefusal)
	return errHTTP
}

// readPast reads until end has come after the first skip bytes, or limit bytes
// have: what is left unread when a connection is closed can cost the other side
// the answer.
func readPast(conn io.Reader, end []byte, skip, limit int) error {
	var b []byte
	buf := make([]byte, 512)
	for len(b) < limit {
		n, err := conn.Read(buf)
		b = append(b, buf[:n]...)
		if len(b) >= skip && bytes.Contains(b[skip:], end) {
			return nil
		}
		if err != nil {
			return notEOF(err)
		}
	}
	return nil
}
