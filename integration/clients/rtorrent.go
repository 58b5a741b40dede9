package clients

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/xml"
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

// RTorrent is rTorrent 0.9.7 or newer as a daemon, driven through XML-RPC over
// SCGI on a Unix socket.
var RTorrent = Kind{Name: "rtorrent", Start: startRTorrent}

type rTorrent struct {
	config  Config
	process *process.Process
	socket  string
}

func startRTorrent(ctx context.Context, c Config) (Client, error) {
	if err := refuseSOCKS("rtorrent", c); err != nil {
		return nil, err
	}
	if err := prepare(&c); err != nil {
		return nil, err
	}
	// A Unix socket's path must be short, and a test's folder may be long.
	short, err := os.MkdirTemp("", "rt")
	if err != nil {
		return nil, err
	}
	session := filepath.Join(c.Dir, "session")
	if err := os.MkdirAll(session, 0o700); err != nil {
		return nil, err
	}
	r := &rTorrent{config: c, socket: filepath.Join(short, "s")}
	settings := []string{
		"system.daemon.set=true",
		"network.scgi.open_local=" + r.socket,
		"network.xmlrpc.size_limit.set=16M",
		"directory.default.set=" + c.Downloads(),
		"session.path.set=" + session,
		fmt.Sprintf("network.port_range.set=%d-%d", c.Port, c.Port),
		"network.port_random.set=no",
		"dht.mode.set=" + map[bool]string{true: "disable", false: "auto"}[c.NoDHT],
		fmt.Sprintf("dht.port.set=%d", c.Port),
		"protocol.encryption.set=" + map[Encryption]string{
			Prefer: "allow_incoming,try_outgoing,enable_retry", Disable: "none", Require: "require,require_RC4,allow_incoming,try_outgoing",
		}[c.Encryption],
	}
	if !c.NoDHT {
		settings = append(settings, "schedule2=dht_node,1,5,\"dht.add_node="+dhtEntry+"\"") // it knows none by itself, and forgets what it was given before its first torrent
	}
	if c.DownloadLimit > 0 {
		settings = append(settings, fmt.Sprintf("throttle.global_down.max_rate.set_kb=%d", c.DownloadLimit>>10))
	}
	// As a file: in an argument a comma begins another setting.
	file := filepath.Join(c.Dir, "rtorrent.rc")
	if err := os.WriteFile(file, []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	cmd := c.command(0, "rtorrent", "-n", "-o", "import="+file)
	cmd.Env = append(os.Environ(), "HOME="+c.Dir, "TERM=dumb")
	if r.process, err = process.Start("rtorrent", cmd, filepath.Join(c.Dir, "log")); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = process.Until(ctx, startPoll, func() (bool, error) {
		_, err := r.call(ctx, "system.pid")
		return err == nil, err
	}, r.process)
	if err != nil {
		r.process.Kill()
		return nil, fmt.Errorf("rtorrent: %w", err)
	}
	return r, nil
}

func (r *rTorrent) Config() Config            { return r.config }
func (r *rTorrent) Process() *process.Process { return r.process }

func (r *rTorrent) Stop() error {
	err := r.process.Stop()
	os.RemoveAll(filepath.Dir(r.socket))
	return err
}

func (r *rTorrent) Add(ctx context.Context, file []byte) error {
	_, err := r.call(ctx, "load.raw_start", "", file)
	return err
}

func (r *rTorrent) AddMagnet(ctx context.Context, link string) error {
	_, err := r.call(ctx, "load.start", "", link)
	return err
}

func (r *rTorrent) Progress(ctx context.Context, h torrent.Hash) (Progress, error) {
	number := func(method string) (int, error) {
		s, err := r.of(ctx, method, h)
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(s)
	}
	var n [6]int
	for i, method := range []string{"d.size_bytes", "d.completed_bytes", "d.hashing", "d.is_open", "d.is_meta", "d.peers_connected"} {
		var err error
		if n[i], err = number(method); err != nil {
			if strings.Contains(err.Error(), "Could not find info-hash") || strings.Contains(err.Error(), "info-hash not found") {
				return Progress{}, ErrUnknown
			}
			return Progress{}, err
		}
	}
	message, err := r.of(ctx, "d.message", h)
	if err != nil {
		return Progress{}, err
	}
	p := Progress{Peers: n[5], Announce: message, Alarm: message, State: fmt.Sprintf("hashing %d, open %d, meta %d", n[2], n[3], n[4])}
	p.Settled = n[2] == 0 && n[3] == 1 && n[4] == 0
	if n[0] > 0 {
		p.Done = float64(n[1]) / float64(n[0])
	}
	good, err := r.call(ctx, "t.success_counter", h.String()+":t0")
	p.Announced = err == nil && good != "0"
	return p, nil
}

func (r *rTorrent) Remove(ctx context.Context, h torrent.Hash) error { return r.do(ctx, "d.erase", h) }
func (r *rTorrent) Pause(ctx context.Context, h torrent.Hash) error  { return r.do(ctx, "d.stop", h) }
func (r *rTorrent) Resume(ctx context.Context, h torrent.Hash) error { return r.do(ctx, "d.start", h) }

func (r *rTorrent) Reannounce(ctx context.Context, h torrent.Hash) error {
	return r.do(ctx, "d.tracker_announce", h)
}

func (r *rTorrent) do(ctx context.Context, method string, h torrent.Hash) error {
	_, err := r.of(ctx, method, h)
	return err
}

// of asks about one torrent, whose name is its info-hash in capitals.
func (r *rTorrent) of(ctx context.Context, method string, h torrent.Hash) (string, error) {
	return r.call(ctx, method, strings.ToUpper(h.String()))
}

// call calls an XML-RPC method with strings and bytes, and returns the answer's
// one value as text.
func (r *rTorrent) call(ctx context.Context, method string, params ...any) (string, error) {
	var body bytes.Buffer
	fmt.Fprintf(&body, "<?xml version=\"1.0\"?><methodCall><methodName>%s</methodName><params>", method)
	for _, p := range params {
		switch p := p.(type) {
		case string:
			body.WriteString("<param><value><string>")
			if err := xml.EscapeText(&body, []byte(p)); err != nil {
				return "", err
			}
			body.WriteString("</string></value></param>")
		case []byte:
			fmt.Fprintf(&body, "<param><value><base64>%s</base64></value></param>", base64.StdEncoding.EncodeToString(p))
		default:
			panic(fmt.Sprintf("rtorrent: a parameter of type %T", p))
		}
	}
	body.WriteString("</params></methodCall>")
	answer, err := r.scgi(ctx, body.Bytes())
	if err != nil {
		return "", fmt.Errorf("rtorrent: %s: %w", method, err)
	}
	return parseXMLRPC(answer)
}

// scgi sends one request: its header is a netstring of pairs that end in zero.
func (r *rTorrent) scgi(ctx context.Context, body []byte) ([]byte, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	header := fmt.Sprintf("CONTENT_LENGTH\x00%d\x00SCGI\x001\x00", len(body))
	if _, err := fmt.Fprintf(conn, "%d:%s,%s", len(header), header, body); err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	if err != nil {
		return nil, err
	}
	_, answer, _ = bytes.Cut(answer, []byte("\r\n\r\n"))
	return answer, nil
}

// parseXMLRPC returns the text of the one value in an answer.
func parseXMLRPC(b []byte) (string, error) {
	var text strings.Builder
	fault := false
	for d := xml.NewDecoder(bytes.NewReader(b)); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", fmt.Errorf("rtorrent: %w in %.200q", err, b)
		}
		switch token := token.(type) {
		case xml.StartElement:
			fault = fault || token.Name.Local == "fault"
		case xml.CharData:
			text.Write(token)
		}
	}
	answer := strings.TrimSpace(text.String())
	if fault {
		return "", fmt.Errorf("rtorrent: %s", strings.Join(strings.Fields(answer), " "))
	}
	return answer, nil
}
