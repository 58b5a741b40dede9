package setup

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/shoal-p2p/shoal/proxy/setup/rencode"
)

// delugeAPI is the RPC of Deluge's daemon: TLS with a certificate that nobody
// knows. It is for this computer's own.
type delugeAPI struct {
	addr           string // HOST:PORT
	user, password string
}

func (d *delugeAPI) read(ctx context.Context) (settings, error) {
	config, err := d.config(ctx)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(config)
	if err != nil { // a number that is none
		return nil, fmt.Errorf("setup: Deluge's settings: %w", err)
	}
	s := make(settings)
	return s, s.add("", b)
}

func (d *delugeAPI) config(ctx context.Context) (map[string]any, error) {
	answer, err := d.call(ctx, "core.get_config")
	if err != nil {
		return nil, err
	}
	config, ok := answer.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("setup: Deluge's settings are %T", answer)
	}
	return config, nil
}

// write sends whole objects, since the daemon takes them so.
func (d *delugeAPI) write(ctx context.Context, all []Change) error {
	config, err := d.config(ctx)
	if err != nil {
		return err
	}
	set := make(map[string]any)
	for _, c := range all {
		v, err := fromJSON(c.New)
		if err != nil {
			return err
		}
		outer, inner, nested := strings.Cut(c.Name, ".")
		if !nested {
			set[outer] = v
			continue
		}
		in, ok := config[outer].(map[string]any)
		if !ok {
			return fmt.Errorf("setup: Deluge has no object %s in its settings", outer)
		}
		in[inner] = v
		set[outer] = in
	}
	_, err = d.call(ctx, "core.set_config", set)
	return err
}

// fromJSON returns a value as package rencode has it.
func fromJSON(raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("setup: %w", err)
	}
	switch n := v.(type) {
	case json.Number:
		if i, err := n.Int64(); err == nil {
			return i, nil
		}
		return n.Float64()
	case nil, bool, string:
		return v, nil
	}
	return nil, fmt.Errorf("setup: a setting of type %T", v)
}

// The kinds of message that the daemon sends.
const (
	delugeResponse = 1
	delugeError    = 2
)

// call logs in, calls one method and returns what it returned.
func (d *delugeAPI) call(ctx context.Context, method string, params ...any) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return nil, fmt.Errorf("setup: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if params == nil {
		params = []any{}
	}
	var last any
	for id, request := range [][]any{
		{int64(0), "daemon.login", []any{d.user, d.password}, map[string]any{"client_version": "2.0"}},
		{int64(1), method, params, map[string]any{}},
	} {
		if err := writeMessage(conn, []any{request}); err != nil {
			return nil, fmt.Errorf("setup: Deluge: %w", err)
		}
		if last, err = readAnswer(conn, int64(id)); err != nil {
			return nil, fmt.Errorf("setup: Deluge: %s: %w", request[1], err)
		}
	}
	return last, nil
}

// A message is a byte 1, a length of four bytes, and that much of zlib, with a
// list in it.
const delugeVersion = 1

func writeMessage(w io.Writer, list []any) error {
	var body bytes.Buffer
	z := zlib.NewWriter(&body)
	if _, err := z.Write(rencode.Append(nil, list)); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	header := binary.BigEndian.AppendUint32([]byte{delugeVersion}, uint32(body.Len()))
	_, err := w.Write(append(header, body.Bytes()...))
	return err
}

// maxEvents bounds the messages that may come before an answer.
const maxEvents = 100

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
		case int64(delugeResponse):
			return list[2], nil
		case int64(delugeError): // the name of the exception is what helps
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
	if header[0] != delugeVersion || size > maxAnswer {
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
