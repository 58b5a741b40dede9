package clients

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/torrent"
	daemon "github.com/shoal-p2p/shoal/proxy/setup/deluge"
)

// Deluge is deluged 2.x, driven through its own RPC.
var Deluge = Kind{Name: "deluge", SOCKS: true, Start: startDeluge}

// delugeLogin is the one user of the daemon's RPC.
const delugeLogin = "tests"

type deluge struct {
	config  Config
	process *process.Process
	daemon  daemon.Daemon
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
	d := &deluge{config: c, process: p, daemon: daemon.Daemon{Addr: rpc.String(), User: delugeLogin, Password: delugeLogin}}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = process.Until(ctx, startPoll, func() (bool, error) {
		_, err := d.daemon.Call(ctx, "daemon.info")
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
	_, err := d.daemon.Call(ctx, "core.add_torrent_file", "a.torrent", base64.StdEncoding.EncodeToString(file), map[string]any{})
	return err
}

func (d *deluge) AddMagnet(ctx context.Context, link string) error {
	_, err := d.daemon.Call(ctx, "core.add_torrent_magnet", link, map[string]any{})
	return err
}

func (d *deluge) Progress(ctx context.Context, h torrent.Hash) (Progress, error) {
	answer, err := d.daemon.Call(ctx, "core.get_torrent_status", h.String(),
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
	alarm := ""
	if strings.HasPrefix(tracker, "Error") || strings.HasPrefix(tracker, "Warning") || state == "Error" {
		alarm = tracker
	}
	return Progress{
		Alarm:     alarm,
		Done:      percent / 100,
		Settled:   state == "Downloading" || state == "Seeding",
		Peers:     int(peers + seeds),
		State:     state,
		Announced: strings.HasPrefix(tracker, "Announce OK"),
		Announce:  tracker,
	}, nil
}

func (d *deluge) Remove(ctx context.Context, h torrent.Hash) error {
	_, err := d.daemon.Call(ctx, "core.remove_torrent", h.String(), false)
	return err
}

func (d *deluge) Reannounce(ctx context.Context, h torrent.Hash) error {
	_, err := d.daemon.Call(ctx, "core.force_reannounce", []any{h.String()})
	return err
}

func (d *deluge) Pause(ctx context.Context, h torrent.Hash) error {
	_, err := d.daemon.Call(ctx, "core.pause_torrent", h.String())
	return err
}

func (d *deluge) Resume(ctx context.Context, h torrent.Hash) error {
	_, err := d.daemon.Call(ctx, "core.resume_torrent", h.String())
	return err
}
