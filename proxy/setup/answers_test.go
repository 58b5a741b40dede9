package setup

import (
	"encoding/json"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/setup/rencode"
)

// The answers of clients' own interfaces are not trusted: whatever they are,
// something is planned or refused.

// planned checks that what is to change can be written, and ends: with the
// changes made, nothing more is to change.
func planned(t *testing.T, c Client, s settings) {
	t.Helper()
	now := seen{api: s}
	for range 2 {
		c.(configurable).profile(now)
		c.(configurable).notes(now, want)
		for _, change := range c.(configurable).changes(now, want) {
			if !json.Valid(change.New) {
				t.Fatalf("%s: %s is no JSON", change.Name, change.New)
			}
			_ = change.String()
			now.api[change.Name] = change.New
		}
	}
	if left := c.(configurable).changes(now, want); len(left) > 0 {
		t.Fatalf("never done: %s", lines(left))
	}
}

func FuzzQBittorrentAnswer(f *testing.F) {
	for _, s := range []string{api44, api45, api50, "null", "[]", `{"proxy_type":99}`, `{"proxy_type":"SOCKS5_PW","current_network_interface":"eth0"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseQBPreferences(b)
		if err != nil {
			return
		}
		planned(t, QBittorrent, s)
	})
}

func FuzzTransmissionAnswer(f *testing.F) {
	f.Add([]byte(`{"result":"success","arguments":{"utp-enabled":true,"preferred-transports":["utp","tcp"]}}`))
	f.Add([]byte(`{"result":"success","arguments":{"utp_enabled":true,"peer_port":1,"bind_address_ipv4":"192.0.2.5"}}`))
	f.Add([]byte(`{"result":"no method name"}`))
	f.Add([]byte(`{"result":"success"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		arguments, err := parseTransmissionAnswer("session-get", b)
		if err != nil {
			return
		}
		s := make(settings)
		if err := s.add("", arguments); err != nil {
			return
		}
		planned(t, Transmission, s)
	})
}

func FuzzDelugeAnswer(f *testing.F) {
	for _, v := range []any{
		map[string]any{"dht": true, "listen_interface": "192.0.2.5", "proxy": map[string]any{"type": int64(3), "hostname": "x", "port": int64(1)}},
		map[string]any{"proxy": int64(7)},
		[]any{int64(1)},
	} {
		f.Add(rencode.Append(nil, v))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := rencode.Parse(b)
		config, ok := v.(map[string]any)
		if err != nil || !ok {
			return
		}
		s, err := delugeSettings(config)
		if err != nil {
			return
		}
		planned(t, Deluge, s)
	})
}

func FuzzNeighbours(f *testing.F) {
	f.Add("77;4321\n", "localclient:0a1b:10\n")
	f.Add("77;99999", "a:b")
	f.Fuzz(func(t *testing.T, pid, auth string) {
		delugeAddr(settings{}, pid)
		if user, _, ok := delugeLogin(auth); ok && user != "localclient" {
			t.Errorf("logged in as %q", user)
		}
	})
}
