package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// QBittorrent is qBittorrent without its window, driven through its web
// interface, 4.4 to 5.x.
var QBittorrent = Kind{Name: "qbittorrent", SOCKS: true, Start: startQBittorrent}

type qBittorrent struct {
	config  Config
	process *process.Process
	api     string // URL of the web interface
	client  http.Client
}

func startQBittorrent(ctx context.Context, c Config) (Client, error) {
	if err := prepare(&c); err != nil {
		return nil, err
	}
	web, err := process.FreePort(loopback)
	if err != nil {
		return nil, err
	}
	conf, err := qBittorrentConf(c, web.Port())
	if err != nil {
		return nil, err
	}
	file := filepath.Join(c.Dir, "qBittorrent", "config", "qBittorrent.conf")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	cmd := c.command(web.Port(), "qbittorrent-nox", "--profile="+c.Dir)
	cmd.Env = append(os.Environ(), "HOME="+c.Dir, "XDG_CACHE_HOME="+filepath.Join(c.Dir, "cache"))
	p, err := process.Start("qbittorrent", cmd, filepath.Join(c.Dir, "log"))
	if err != nil {
		return nil, err
	}
	q := &qBittorrent{
		config:  c,
		process: p,
		api:     "http://" + web.String() + "/api/v2/",
		client:  c.http(),
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = process.Until(ctx, startPoll, func() (bool, error) {
		_, err := q.get(ctx, "app/version", nil)
		return err == nil, err
	}, p)
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("qbittorrent: %w", err)
	}
	return q, nil
}

// qBittorrentConf is what a user's settings dialog would write, in the words of
// 4.x and of 5.x, and what lets us look often and without a password.
func qBittorrentConf(c Config, web uint16) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, `[LegalNotice]
Accepted=true

[Preferences]
WebUI\Enabled=true
WebUI\Address=127.0.0.1
WebUI\Port=%d
WebUI\LocalHostAuth=false

[BitTorrent]
Session\DefaultSavePath=%s
Session\Port=%d
Session\RefreshInterval=100
Session\Encryption=%d
Session\DHTEnabled=%t
`, web, c.Downloads(), c.Port, map[Encryption]int{Prefer: 0, Require: 1, Disable: 2}[c.Encryption], !c.NoDHT)
	if c.DownloadLimit > 0 {
		fmt.Fprintf(&b, "Session\\GlobalDLSpeedLimit=%d\n", c.DownloadLimit>>10)
	}
	if c.NoQueue {
		b.WriteString("Session\\QueueingSystemEnabled=false\n")
	}
	if c.NoUTP {
		b.WriteString("Session\\BTProtocol=TCP\n")
	}
	if c.NoPEX {
		b.WriteString("Session\\PeXEnabled=false\n")
	}
	if c.Interface != "" {
		fmt.Fprintf(&b, "Session\\Interface=%s\nSession\\InterfaceName=%s\nSession\\InterfaceAddress=%s\n", c.Interface, c.Interface, c.Address)
	}
	if c.SOCKS == "" {
		return b.String(), nil
	}
	host, port, err := net.SplitHostPort(c.SOCKS)
	if err != nil {
		return "", err
	}
	login := c.User != ""
	kind := "SOCKS5"
	if login {
		kind = "SOCKS5_PW" // 4.x; 5.x has AuthEnabled
	}
	fmt.Fprintf(&b, `Session\ProxyPeerConnections=true
Session\ProxyHostnameLookup=true

[Network]
Proxy\Type=%s
Proxy\IP=%s
Proxy\Port=%s
Proxy\Username=%s
Proxy\Password=%s
Proxy\AuthEnabled=%t
Proxy\OnlyForTorrents=false
Proxy\HostnameLookupEnabled=true
Proxy\Profiles\BitTorrent=true
Proxy\Profiles\RSS=true
Proxy\Profiles\Misc=true
`, kind, host, port, c.User, c.Password, login)
	return b.String(), nil
}

func (q *qBittorrent) Config() Config            { return q.config }
func (q *qBittorrent) Process() *process.Process { return q.process }
func (q *qBittorrent) Stop() error               { return q.process.Stop() }

func (q *qBittorrent) Add(ctx context.Context, file []byte) error {
	return q.add(ctx, func(w *multipart.Writer) error {
		part, err := w.CreateFormFile("torrents", "a.torrent")
		if err != nil {
			return err
		}
		_, err = part.Write(file)
		return err
	})
}

func (q *qBittorrent) AddMagnet(ctx context.Context, link string) error {
	return q.add(ctx, func(w *multipart.Writer) error { return w.WriteField("urls", link) })
}

func (q *qBittorrent) add(ctx context.Context, what func(*multipart.Writer) error) error {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	if err := what(w); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	answer, err := q.post(ctx, "torrents/add", w.FormDataContentType(), &body)
	if err != nil {
		return err
	}
	if strings.HasPrefix(string(answer), "Fails") {
		return fmt.Errorf("qbittorrent: did not take the torrent: %s", answer)
	}
	return nil
}

func (q *qBittorrent) Progress(ctx context.Context, h torrent.Hash) (Progress, error) {
	var list []struct {
		Progress float64 `json:"progress"`
		State    string  `json:"state"`
		Seeds    int     `json:"num_seeds"`
		Leechers int     `json:"num_leechs"`
	}
	if err := q.getJSON(ctx, "torrents/info", url.Values{"hashes": {h.String()}}, &list); err != nil {
		return Progress{}, err
	}
	if len(list) == 0 {
		return Progress{}, ErrUnknown
	}
	t := list[0]
	settled := !strings.HasPrefix(t.State, "checking") && t.State != "metaDL" && t.State != "moving" && t.State != "queuedUP"
	p := Progress{Done: t.Progress, Settled: settled, Peers: t.Seeds + t.Leechers, State: t.State}
	var trackers []struct {
		URL    string `json:"url"`
		Status int    `json:"status"`
		Msg    string `json:"msg"`
	}
	if err := q.getJSON(ctx, "torrents/trackers", url.Values{"hash": {h.String()}}, &trackers); err != nil {
		return Progress{}, err
	}
	for _, t := range trackers {
		if !strings.Contains(t.URL, "://") {
			continue // DHT, PeX, LSD
		}
		p.Announced = p.Announced || t.Status == 2
		if t.Status == 4 { // not working
			p.Alarm = t.Msg
		}
		if t.Msg != "" {
			p.Announce = t.Msg
		}
	}
	return p, nil
}

func (q *qBittorrent) Remove(ctx context.Context, h torrent.Hash) error {
	return q.do(ctx, "torrents/delete", h, url.Values{"deleteFiles": {"false"}})
}

func (q *qBittorrent) Reannounce(ctx context.Context, h torrent.Hash) error {
	return q.do(ctx, "torrents/reannounce", h, nil)
}

func (q *qBittorrent) Pause(ctx context.Context, h torrent.Hash) error {
	if err := q.do(ctx, "torrents/stop", h, nil); err == nil {
		return nil // 5.x
	}
	return q.do(ctx, "torrents/pause", h, nil)
}

func (q *qBittorrent) Resume(ctx context.Context, h torrent.Hash) error {
	if err := q.do(ctx, "torrents/start", h, nil); err == nil {
		return nil // 5.x
	}
	return q.do(ctx, "torrents/resume", h, nil)
}

func (q *qBittorrent) do(ctx context.Context, what string, h torrent.Hash, more url.Values) error {
	form := url.Values{"hashes": {h.String()}}
	for k, v := range more {
		form[k] = v
	}
	_, err := q.post(ctx, what, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
	return err
}

func (q *qBittorrent) getJSON(ctx context.Context, what string, query url.Values, into any) error {
	b, err := q.get(ctx, what, query)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("qbittorrent: %s: %w", what, err)
	}
	return nil
}

func (q *qBittorrent) get(ctx context.Context, what string, query url.Values) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, q.api+what+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	return q.ask(r)
}

func (q *qBittorrent) post(ctx context.Context, what, contentType string, body io.Reader) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, q.api+what, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", contentType)
	return q.ask(r)
}

func (q *qBittorrent) ask(r *http.Request) ([]byte, error) {
	resp, err := q.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("qbittorrent: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("qbittorrent: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("qbittorrent: %s: %s: %s", r.URL.Path, resp.Status, b)
	}
	return b, nil
}
