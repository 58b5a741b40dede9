package clients

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// Transmission is transmission-daemon, 3.x and 4.x, driven through its RPC.
var Transmission = Kind{Name: "transmission", Start: startTransmission}

type transmission struct {
	config  Config
	process *process.Process
	url     string
	session string // against cross-site requests: the daemon's 409 says which
	client  http.Client
}

func startTransmission(ctx context.Context, c Config) (Client, error) {
	if err := refuseSOCKS("transmission", c); err != nil {
		return nil, err
	}
	if err := prepare(&c); err != nil {
		return nil, err
	}
	rpc, err := process.FreePort(loopback)
	if err != nil {
		return nil, err
	}
	settings := map[string]any{
		"download-dir":          c.Downloads(),
		"peer-port":             c.Port,
		"dht-enabled":           !c.NoDHT,
		"utp-enabled":           !c.NoUTP,
		"encryption":            map[Encryption]int{Disable: 0, Prefer: 1, Require: 2}[c.Encryption],
		"rpc-enabled":           true,
		"rpc-bind-address":      "127.0.0.1",
		"rpc-port":              rpc.Port(),
		"rpc-whitelist-enabled": false,
	}
	if c.DownloadLimit > 0 {
		settings["speed-limit-down-enabled"] = true
		settings["speed-limit-down"] = c.DownloadLimit / 1000 // kB/s
	}
	b, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(c.Dir, "transmission")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(home, "settings.json"), b, 0o600); err != nil {
		return nil, err
	}
	p, err := process.Start("transmission", c.command(rpc.Port(), "transmission-daemon", "--foreground", "--config-dir", home), filepath.Join(c.Dir, "log"))
	if err != nil {
		return nil, err
	}
	t, err := TransmissionAt(ctx, rpc, p, c)
	if err != nil {
		p.Kill()
	}
	return t, err
}

// TransmissionAt returns the daemon that p is, whose RPC is at rpc, once it answers.
func TransmissionAt(ctx context.Context, rpc netip.AddrPort, p *process.Process, c Config) (Client, error) {
	t := &transmission{config: c, process: p, url: "http://" + rpc.String() + "/transmission/rpc", client: c.http()}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := process.Until(ctx, startPoll, func() (bool, error) {
		err := t.call(ctx, "session-get", nil, nil)
		return err == nil, err
	}, p)
	if err != nil {
		return nil, fmt.Errorf("transmission: %w", err)
	}
	return t, nil
}

func (t *transmission) Config() Config            { return t.config }
func (t *transmission) Process() *process.Process { return t.process }
func (t *transmission) Stop() error               { return t.process.Stop() }

func (t *transmission) Add(ctx context.Context, file []byte) error {
	return t.call(ctx, "torrent-add", map[string]any{"metainfo": base64.StdEncoding.EncodeToString(file)}, nil)
}

func (t *transmission) AddMagnet(ctx context.Context, link string) error {
	return t.call(ctx, "torrent-add", map[string]any{"filename": link}, nil)
}

func (t *transmission) Progress(ctx context.Context, h torrent.Hash) (Progress, error) {
	var answer struct {
		Torrents []struct {
			Done     float64 `json:"percentDone"`
			Metadata float64 `json:"metadataPercentComplete"`
			Status   int     `json:"status"`
			Peers    int     `json:"peersConnected"`
			Error    string  `json:"errorString"`
			Trackers []struct {
				Succeeded bool   `json:"lastAnnounceSucceeded"`
				Result    string `json:"lastAnnounceResult"`
			} `json:"trackerStats"`
		} `json:"torrents"`
	}
	err := t.call(ctx, "torrent-get", map[string]any{
		"ids":    []string{h.String()},
		"fields": []string{"percentDone", "metadataPercentComplete", "status", "peersConnected", "errorString", "trackerStats"},
	}, &answer)
	if err != nil {
		return Progress{}, err
	}
	if len(answer.Torrents) == 0 {
		return Progress{}, ErrUnknown
	}
	s := answer.Torrents[0]
	// 1 and 2: waiting for a check, checking.
	p := Progress{Done: s.Done, Settled: s.Metadata == 1 && s.Status != 1 && s.Status != 2, Peers: s.Peers, State: fmt.Sprintf("status %d", s.Status), Announce: s.Error, Alarm: s.Error}
	for _, tracker := range s.Trackers {
		p.Announced = p.Announced || tracker.Succeeded
		if tracker.Result != "" {
			p.Announce = tracker.Result
		}
	}
	return p, nil
}

func (t *transmission) Remove(ctx context.Context, h torrent.Hash) error {
	return t.call(ctx, "torrent-remove", map[string]any{"ids": []string{h.String()}}, nil)
}

func (t *transmission) Reannounce(ctx context.Context, h torrent.Hash) error {
	return t.call(ctx, "torrent-reannounce", map[string]any{"ids": []string{h.String()}}, nil)
}

func (t *transmission) Pause(ctx context.Context, h torrent.Hash) error {
	return t.call(ctx, "torrent-stop", map[string]any{"ids": []string{h.String()}}, nil)
}

func (t *transmission) Resume(ctx context.Context, h torrent.Hash) error {
	return t.call(ctx, "torrent-start", map[string]any{"ids": []string{h.String()}}, nil)
}

func (t *transmission) call(ctx context.Context, method string, arguments, into any) error {
	body, err := json.Marshal(map[string]any{"method": method, "arguments": arguments})
	if err != nil {
		return err
	}
	for range 2 {
		resp, b, err := post(ctx, &t.client, t.url, "application/json", http.Header{"X-Transmission-Session-Id": {t.session}}, body)
		if err != nil {
			return fmt.Errorf("transmission: %w", err)
		}
		if resp.StatusCode == http.StatusConflict {
			t.session = resp.Header.Get("X-Transmission-Session-Id")
			continue
		}
		var answer struct {
			Result    string          `json:"result"`
			Arguments json.RawMessage `json:"arguments"`
		}
		if err := unmarshal("transmission", b, &answer); err != nil {
			return err
		}
		if answer.Result != "success" {
			return fmt.Errorf("transmission: %s: %s", method, answer.Result)
		}
		if into == nil {
			return nil
		}
		return unmarshal("transmission", answer.Arguments, into)
	}
	return fmt.Errorf("transmission: %s: no session", method)
}
