package clients

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// Deluge is deluged 2.x, driven through its own RPC.
var Deluge = Kind{Name: "deluge", SOCKS: true, Start: startDeluge}

// delugeLogin is the one user of the daemon's RPC.
const delugeLogin = "tests"

type deluge struct {
	config  Config
	process *process.Process
	rpc     string // HOST:PORT
}

func startDeluge(ctx context.Context, c Config) (Client, error) {
	if err := prepare(&c); err != nil {
		return nil, err
	}
	rpc, err := process.FreePort(loopback)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(c.Dir, "deluge")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	conf, err := delugeConf(c, rpc.Port())
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		"core.conf": conf,
		"auth":      []byte(delugeLogin + ":" + delugeLogin + ":10\n"),
	} {
		if err := os.WriteFile(filepath.Join(home, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	p, err := process.Start("deluge", c.command(rpc.Port(), "deluged", "--do-not-daemonize", "--config", home), filepath.Join(c.Dir, "log"))
	if err != nil {
		return nil, err
	}
	d := &deluge{config: c, process: p, rpc: rpc.String()}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = process.Until(ctx, startPoll, func() (bool, error) {
		_, err := d.call(ctx, "daemon.info")
		return err == nil, err
	}, p)
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("deluge: %w", err)
	}
	return d, nil
}

// delugeConf is core.conf: two JSON objects, the first says which version the
// second has.
func delugeConf(c Config, rpc uint16) ([]byte, error) {
	policy := map[Encryption]int{Require: 0, Prefer: 1, Disable: 2}[c.Encryption]
	settings := map[string]any{
		"daemon_port":              rpc,
		"download_location":        c.Downloads(),
		"listen_ports":             []uint16{c.Port, c.Port},
		"random_port":              false,
		"dht":                      !c.NoDHT,
		"enc_in_policy":            policy,
		"enc_out_policy":           policy,
		"new_release_check":        false,
		"max_download_speed":       -1.0,
		"geoip_db_location":        "",
		"stop_seed_at_ratio":       false,
		"add_paused":               false,
		"queue_new_to_top":         true,
		"dont_count_slow_torrents": true,
	}
	if c.DownloadLimit > 0 {
		settings["max_download_speed"] = float64(c.DownloadLimit) / 1024
	}
	if c.SOCKS != "" {
		host, port, err := net.SplitHostPort(c.SOCKS)
		if err != nil {
			return nil, err
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			return nil, err
		}
		kind := 2
		if c.User != "" {
			kind = 3
		}
		settings["proxy"] = map[string]any{
			"type": kind, "hostname": host, "port": number, "username": c.User, "password": c.Password,
			"proxy_hostnames": true, "proxy_peer_connections": true, "proxy_tracker_connections": true,
			"force_proxy": true, "anonymous_mode": false,
		}
	}
	b, err := json.Marshal(settings)
	return append([]byte(`{"file": 1, "format": 1}`), b...), err
}

func (d *deluge) Config() Config            { return d.config }
func (d *deluge) Process() *process.Process { return d.process }
func (d *deluge) Stop() error               { return d.process.Stop() }

func (d *deluge) Add(ctx context.Context, file []byte) error {
	_, err := d.call(ctx, "core.add_torrent_file", "a.torrent", base64.StdEncoding.EncodeToString(file), map[string]any{})
	return err
}

func (d *deluge) AddMagnet(ctx context.Context, link string) error {
	_, err := d.call(ctx, "core.add_torrent_magnet", link, map[string]any{})
	return err
}

func (d *deluge) Progress(ctx context.Context, h torrent.Hash) (Progress, error) {
	answer, err := d.call(ctx, "core.get_torrent_status", h.String(),
		[]any{"progress", "state", "num_peers", "num_seeds", "tracker_status"})
	if err != nil {
		return Progress{}, err
	}
	s, ok := answer.(map[string]any)
	if !ok || len(s) == 0 {
		return Progress{}, ErrUnknown
	}
	percent, _ := s["progress"].(float64)
	state, _ := s["state"].(string)
	peers, _ := s["num_peers"].(int64)
	seeds, _ := s["num_seeds"].(int64)
	tracker, _ := s["tracker_status"].(string)
	return Progress{
		Done:      percent / 100,
		Settled:   state == "Downloading" || state == "Seeding",
		Peers:     int(peers + seeds),
		State:     state,
		Announced: strings.HasPrefix(tracker, "Announce OK"),
		Announce:  tracker,
	}, nil
}

func (d *deluge) Remove(ctx context.Context, h torrent.Hash) error {
	_, err := d.call(ctx, "core.remove_torrent", h.String(), false)
	return err
}

func (d *deluge) Pause(ctx context.Context, h torrent.Hash) error {
	_, err := d.call(ctx, "core.pause_torrent", h.String())
	return err
}

func (d *deluge) Resume(ctx context.Context, h torrent.Hash) error {
	_, err := d.call(ctx, "core.resume_torrent", h.String())
	return err
}

// The kinds of message that the daemon sends.
const (
	delugeResponse = 1
	delugeError    = 2
)

// call logs in, calls one method and returns what it returned. A message is a
// byte 1, a length of four bytes, and a zlib stream of an rencoded list.
func (d *deluge) call(ctx context.Context, method string, params ...any) (any, error) {
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", d.rpc)
	if err != nil {
		return nil, fmt.Errorf("deluge: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	login := []any{int64(0), "daemon.login", []any{delugeLogin, delugeLogin}, map[string]any{"client_version": "2.0"}}
	if method == "daemon.info" {
		login = nil // all that is asked of a daemon without a login
	}
	var last any
	for id, request := range [][]any{login, {int64(1), method, params, map[string]any{}}} {
		if request == nil {
			continue
		}
		if err := writeDeluge(conn, request); err != nil {
			return nil, fmt.Errorf("deluge: %w", err)
		}
		if last, err = readDeluge(conn, int64(id)); err != nil {
			return nil, fmt.Errorf("deluge: %s: %w", method, err)
		}
	}
	return last, nil
}

func writeDeluge(w io.Writer, request []any) error {
	var body bytes.Buffer
	z := zlib.NewWriter(&body)
	if _, err := z.Write(appendRencode(nil, []any{request})); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	header := binary.BigEndian.AppendUint32([]byte{1}, uint32(body.Len()))
	_, err := w.Write(append(header, body.Bytes()...))
	return err
}

// readDeluge reads messages up to the answer to request id.
func readDeluge(r io.Reader, id int64) (any, error) {
	for {
		var header [5]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return nil, err
		}
		z, err := zlib.NewReader(io.LimitReader(r, int64(binary.BigEndian.Uint32(header[1:]))))
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(z, maxAnswer))
		if err != nil {
			return nil, err
		}
		value, _, err := parseRencode(b, 0)
		if err != nil {
			return nil, err
		}
		message, ok := value.([]any)
		if !ok || len(message) < 3 {
			return nil, fmt.Errorf("a message that is none: %v", value)
		}
		switch {
		case message[1] != id:
		case message[0] == int64(delugeResponse):
			return message[2], nil
		case message[0] == int64(delugeError):
			return nil, fmt.Errorf("%v", message[2:])
		}
	}
}

// rencode is a binary form of what Python has. These are its type bytes; small
// values have one byte for type and value both.
const (
	rencodeFloat64 = 44
	rencodeList    = 59
	rencodeDict    = 60
	rencodeInt     = 61 // decimal digits
	rencodeInt1    = 62
	rencodeInt2    = 63
	rencodeInt4    = 64
	rencodeInt8    = 65
	rencodeFloat32 = 66
	rencodeTrue    = 67
	rencodeFalse   = 68
	rencodeNone    = 69
	rencodeTerm    = 127

	rencodeNegative   = 70 // -1 to -32
	rencodeSmallDict  = 102
	rencodeSmallText  = 128
	rencodeSmallList  = 192
	rencodePositives  = 44
	rencodeNegatives  = 32
	rencodeSmallDicts = 25
	rencodeSmallTexts = 64
)

// appendRencode appends v: text, int64, bool, lists and dictionaries.
func appendRencode(b []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		if len(v) < rencodeSmallTexts {
			b = append(b, rencodeSmallText+byte(len(v)))
		} else {
			b = append(strconv.AppendInt(b, int64(len(v)), 10), ':')
		}
		return append(b, v...)
	case int64:
		return binary.BigEndian.AppendUint64(append(b, rencodeInt8), uint64(v))
	case bool:
		return append(b, map[bool]byte{true: rencodeTrue, false: rencodeFalse}[v])
	case []any:
		b = append(b, rencodeList)
		for _, x := range v {
			b = appendRencode(b, x)
		}
		return append(b, rencodeTerm)
	case map[string]any:
		b = append(b, rencodeDict)
		for k, x := range v {
			b = appendRencode(appendRencode(b, k), x)
		}
		return append(b, rencodeTerm)
	}
	panic(fmt.Sprintf("deluge: a parameter of type %T", v))
}

// maxNesting bounds lists in lists.
const maxNesting = 32

var errRencode = errors.New("deluge: no rencode")

// parseRencode returns the first value of b and what follows it.
func parseRencode(b []byte, depth int) (v any, rest []byte, err error) {
	if len(b) == 0 || depth > maxNesting {
		return nil, nil, errRencode
	}
	kind, rest := b[0], b[1:]
	switch {
	case kind < rencodePositives:
		return int64(kind), rest, nil
	case kind >= rencodeNegative && kind < rencodeNegative+rencodeNegatives:
		return -1 - int64(kind-rencodeNegative), rest, nil
	case kind >= rencodeSmallList:
		return parseRencodeList(rest, int(kind-rencodeSmallList), depth)
	case kind >= rencodeSmallText:
		return cutText(rest, int(kind-rencodeSmallText))
	case kind >= rencodeSmallDict && kind < rencodeSmallDict+rencodeSmallDicts:
		return parseRencodeDict(rest, int(kind-rencodeSmallDict), depth)
	case kind >= '0' && kind <= '9': // 48 to 57: a text's length
		digits, after, found := bytes.Cut(b, []byte(":"))
		n, err := strconv.Atoi(string(digits))
		if !found || err != nil {
			return nil, nil, errRencode
		}
		return cutText(after, n)
	}
	switch kind {
	case rencodeTrue, rencodeFalse:
		return kind == rencodeTrue, rest, nil
	case rencodeNone:
		return nil, rest, nil
	case rencodeList:
		return parseRencodeList(rest, -1, depth)
	case rencodeDict:
		return parseRencodeDict(rest, -1, depth)
	case rencodeInt:
		digits, after, found := bytes.Cut(rest, []byte{rencodeTerm})
		n, err := strconv.ParseInt(string(digits), 10, 64)
		if !found || err != nil {
			return nil, nil, errRencode
		}
		return n, after, nil
	}
	return parseRencodeNumber(kind, rest)
}

func parseRencodeNumber(kind byte, b []byte) (v any, rest []byte, err error) {
	size := map[byte]int{rencodeInt1: 1, rencodeInt2: 2, rencodeInt4: 4, rencodeInt8: 8, rencodeFloat32: 4, rencodeFloat64: 8}[kind]
	if size == 0 || len(b) < size {
		return nil, nil, errRencode
	}
	r := bytes.NewReader(b[:size])
	switch kind {
	case rencodeFloat32:
		var f float32
		err = binary.Read(r, binary.BigEndian, &f)
		return float64(f), b[size:], err
	case rencodeFloat64:
		var f float64
		err = binary.Read(r, binary.BigEndian, &f)
		return f, b[size:], err
	}
	n := int64(int8(b[0])) // the sign
	for _, x := range b[1:size] {
		n = n<<8 | int64(x)
	}
	return n, b[size:], nil
}

func cutText(b []byte, n int) (any, []byte, error) {
	if n < 0 || n > len(b) {
		return nil, nil, errRencode
	}
	return string(b[:n]), b[n:], nil
}

// parseRencodeList reads n values, or for -1 those up to the end mark.
func parseRencodeList(b []byte, n, depth int) (any, []byte, error) {
	list := []any{}
	for len(list) != n {
		if n < 0 && len(b) > 0 && b[0] == rencodeTerm {
			return list, b[1:], nil
		}
		v, rest, err := parseRencode(b, depth+1)
		if err != nil {
			return nil, nil, err
		}
		list, b = append(list, v), rest
	}
	return list, b, nil
}

func parseRencodeDict(b []byte, n, depth int) (any, []byte, error) {
	if n > 0 {
		n *= 2
	}
	pairs, rest, err := parseRencodeList(b, n, depth)
	if err != nil {
		return nil, nil, err
	}
	list := pairs.([]any)
	dict := make(map[string]any)
	for i := 0; i+1 < len(list); i += 2 {
		dict[fmt.Sprint(list[i])] = list[i+1]
	}
	return dict, rest, nil
}
