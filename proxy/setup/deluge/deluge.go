// Package deluge calls the methods of Deluge's daemon.
// Not here: what is asked of it (packages setup, clients).
package deluge

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shoal-p2p/shoal/proxy/setup/rencode"
)

// Daemon is one on this computer: it is reached over TLS with a certificate
// that nothing vouches for.
type Daemon struct {
	Addr           string // HOST:PORT
	User, Password string
}

const (
	callTimeout = 10 * time.Second
	maxAnswer   = 4 << 20 // bytes; the list of plugins is the longest
	maxEvents   = 100     // messages that may come before an answer
)

// ErrLogin is inside the error of a daemon that refused the user or password.
var ErrLogin = errors.New("deluge: wrong user name or password")

// The kinds of message that the daemon sends.
const (
	kindResponse = 1
	kindError    = 2
)

// Call logs in, calls one method and returns what it returned, of the types
// that package rencode has.
func (d Daemon) Call(ctx context.Context, method string, params ...any) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", d.Addr)
	if err != nil {
		return nil, fmt.Errorf("deluge: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if params == nil {
		params = []any{}
	}
	var last any
	for id, request := range [][]any{
		{int64(0), "daemon.login", []any{d.User, d.Password}, map[string]any{"client_version": "2.0"}},
		{int64(1), method, params, map[string]any{}},
	} {
		if err := writeMessage(conn, []any{request}); err != nil {
			return nil, fmt.Errorf("deluge: %w", err)
		}
		if last, err = readAnswer(conn, int64(id)); err != nil {
			return nil, fmt.Errorf("deluge: %s: %w", request[1], err)
		}
	}
	return last, nil
}

// version is the first byte of a message. A length of four bytes follows, and
// that much of zlib, with a list in it.
const version = 1

func writeMessage(w io.Writer, list []any) error {
	var body bytes.Buffer
	z := zlib.NewWriter(&body)
	if _, err := z.Write(rencode.Append(nil, list)); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	header := binary.BigEndian.AppendUint32([]byte{version}, uint32(body.Len()))
	_, err := w.Write(append(header, body.Bytes()...))
	return err
}

// readAnswer reads messages up to the answer to request id.
func readAnswer(r io.Reader, id int64) (any, error) {
	for range maxEvents {
		list, err := readMessage(r)
		if err != nil {
			return nil, err
		}
		if len(list) < 3 || list[1] != id {
			continue
		}
		switch list[0] {
		case int64(kindResponse):
			return list[2], nil
		case int64(kindError): // the name of an exception, its arguments, where it was
			if list[2] == "BadLoginError" {
				return nil, ErrLogin
			}
			return nil, fmt.Errorf("it answers %.80q", fmt.Sprint(list[2]))
		}
	}
	return nil, fmt.Errorf("no answer in %d messages", maxEvents)
}

func readMessage(r io.Reader) ([]any, error) {
	var header [1 + 4]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if header[0] != version || size > maxAnswer {
		return nil, fmt.Errorf("a message of version %d with %d bytes", header[0], size)
	}
	packed := make([]byte, size)
	if _, err := io.ReadFull(r, packed); err != nil {
		return nil, err
	}
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(z, maxAnswer))
	if err != nil {
		return nil, err
	}
	v, err := rencode.Parse(b)
	if err != nil {
		return nil, err
	}
	list, _ := v.([]any)
	return list, nil
}
