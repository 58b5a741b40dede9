package setup

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var want = Want{SOCKS: netip.MustParseAddrPort("127.0.0.1:1080")}

// read returns settings given as JSON.
func read(t testing.TB, text string) settings {
	t.Helper()
	var s settings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// lines returns changes as the user sees them.
func lines(all []Change) string {
	var out []string
	for _, c := range all {
		out = append(out, c.String())
	}
	return strings.Join(out, "\n")
}

func check(t *testing.T, name, got, want string) {
	t.Helper()
	want = strings.ReplaceAll(strings.TrimSpace(want), "\t", "")
	if got != want {
		t.Errorf("%s:\n--- got\n%s\n--- want\n%s", name, got, want)
	}
}

const (
	api44 = `{"proxy_type":0,"proxy_ip":"0.0.0.0","proxy_port":8080,"proxy_auth_enabled":false,"proxy_username":"","proxy_password":"",
		"proxy_peer_connections":false,"proxy_torrents_only":true,"dht":true,"anonymous_mode":true}`
	api45 = `{"proxy_type":-1,"proxy_ip":"0.0.0.0","proxy_port":8080,"proxy_auth_enabled":false,"proxy_username":"","proxy_password":"",
		"proxy_peer_connections":false,"proxy_torrents_only":false,"proxy_hostname_lookup":true,"dht":true}`
	api50 = `{"proxy_type":"None","proxy_ip":"","proxy_port":8080,"proxy_auth_enabled":false,"proxy_username":"","proxy_password":"",
		"proxy_hostname_lookup":false,"proxy_bittorrent":true,"proxy_peer_connections":false,"proxy_rss":true,"proxy_misc":true,
		"dht":true,"dht_bootstrap_nodes":"dht.libtorrent.org:25401"}`
)

func TestEachQBittorrentIsToldInItsOwnWords(t *testing.T) {
	login, keep := want, want
	login.User, login.Password = "me", "secret"
	keep.KeepDHT = true
	for _, c := range []struct {
		name, api string
		want      Want
		changes   string
	}{
		{"4.4", api44, want, `
			proxy_type: 0 (None) → 2 (SOCKS5)
			proxy_ip: "0.0.0.0" → "127.0.0.1"
			proxy_port: 8080 → 1080
			proxy_peer_connections: false → true
			proxy_torrents_only: true → false
			dht: true → false`},
		{"4.5 with a login", api45, login, `
			proxy_type: -1 → 4 (SOCKS5_PW)
			proxy_ip: "0.0.0.0" → "127.0.0.1"
			proxy_port: 8080 → 1080
			proxy_username: "" → "me"
			proxy_password: "" → (a password)
			proxy_peer_connections: false → true
			dht: true → false`},
		{"4.5 that keeps its DHT", api45, keep, `
			proxy_type: -1 → 2 (SOCKS5)
			proxy_ip: "0.0.0.0" → "127.0.0.1"
			proxy_port: 8080 → 1080
			proxy_peer_connections: false → true`},
		{"5.0", api50, want, `
			proxy_type: "None" → "SOCKS5"
			proxy_ip: "" → "127.0.0.1"
			proxy_port: 8080 → 1080
			proxy_peer_connections: false → true
			proxy_hostname_lookup: false → true
			dht: true → false`},
		{"5.0 with a login", api50, login, `
			proxy_type: "None" → "SOCKS5"
			proxy_ip: "" → "127.0.0.1"
			proxy_port: 8080 → 1080
			proxy_auth_enabled: false → true
			proxy_username: "" → "me"
			proxy_password: "" → (a password)
			proxy_peer_connections: false → true
			proxy_hostname_lookup: false → true
			dht: true → false`},
		{"5.0 that keeps its DHT", api50, keep, `
			proxy_type: "None" → "SOCKS5"
			proxy_ip: "" → "127.0.0.1"
			proxy_port: 8080 → 1080
			proxy_peer_connections: false → true
			proxy_hostname_lookup: false → true
			dht_bootstrap_nodes: "dht.libtorrent.org:25401" → "198.19.208.255:6881, 198.19.209.255:6881, 198.19.210.255:6881, 198.19.211.255:6881"`},
	} {
		s := read(t, c.api)
		all := qbChangesAPI(s, c.want)
		check(t, c.name, lines(all), c.changes)
		for _, change := range all {
			s[change.Name] = change.New
		}
		if again := qbChangesAPI(s, c.want); len(again) > 0 {
			t.Errorf("%s: a second time: %s", c.name, lines(again))
		}
		p := qbProfile(s, nil)
		if p.Proxy != "socks5" || p.ProxyAddr != "127.0.0.1:1080" || !p.PeersProxied || !p.TrackersProxied || !p.NamesProxied || !p.RSSProxied || !p.OtherProxied {
			t.Errorf("%s: not all goes through the proxy: %+v", c.name, p)
		}
		if wantNames := c.name == "4.5 that keeps its DHT"; p.DHT && p.DHTNames != wantNames {
			t.Errorf("%s: the DHT starts from names: %v", c.name, p.DHTNames)
		}
	}
}

func TestEachFileOfQBittorrentGetsItsOwnWords(t *testing.T) {
	all := sections(t, "qbittorrent.txt")
	for name, changes := range map[string]string{
		"4.5 as first written": `
			Network/Proxy/Type: (not set) → "SOCKS5"
			Network/Proxy/IP: (not set) → "127.0.0.1"
			Network/Proxy/Port: (not set) → 1080
			BitTorrent/Session/ProxyPeerConnections: (not set) → true
			BitTorrent/Session/ProxyHostnameLookup: (not set) → true
			Network/Proxy/OnlyForTorrents: (not set) → false
			BitTorrent/Session/ValidateHTTPSTrackerCertificate: (not set) → false
			BitTorrent/Session/DHTEnabled: (not set) → false`,
		"4.5 with another proxy": `
			Network/Proxy/Type: "HTTP_PW" → "SOCKS5"
			Network/Proxy/IP: "192.0.2.7" → "127.0.0.1"
			Network/Proxy/Port: 8080 → 1080
			BitTorrent/Session/ProxyPeerConnections: false → true
			BitTorrent/Session/ProxyHostnameLookup: false → true
			Network/Proxy/OnlyForTorrents: true → false
			BitTorrent/Session/ValidateHTTPSTrackerCertificate: (not set) → false
			BitTorrent/Session/DHTEnabled: true → false`,
		"5.0": `
			Network/Proxy/Type: (not set) → "SOCKS5"
			Network/Proxy/IP: (not set) → "127.0.0.1"
			Network/Proxy/Port: (not set) → 1080
			Network/Proxy/AuthEnabled: (not set) → false
			BitTorrent/Session/ProxyPeerConnections: (not set) → true
			Network/Proxy/HostnameLookupEnabled: false → true
			Network/Proxy/Profiles/RSS: false → true
			Network/Proxy/Profiles/Misc: false → true
			BitTorrent/Session/ValidateHTTPSTrackerCertificate: (not set) → false
			BitTorrent/Session/DHTEnabled: (not set) → false`,
		"no version": `
			Network/Proxy/Type: (not set) → "SOCKS5"
			Network/Proxy/IP: (not set) → "127.0.0.1"
			Network/Proxy/Port: (not set) → 1080
			Network/Proxy/AuthEnabled: (not set) → false
			BitTorrent/Session/ProxyPeerConnections: (not set) → true
			BitTorrent/Session/ProxyHostnameLookup: (not set) → true
			Network/Proxy/HostnameLookupEnabled: (not set) → true
			Network/Proxy/OnlyForTorrents: (not set) → false
			Network/Proxy/Profiles/BitTorrent: (not set) → true
			Network/Proxy/Profiles/RSS: (not set) → true
			Network/Proxy/Profiles/Misc: (not set) → true
			BitTorrent/Session/ValidateHTTPSTrackerCertificate: (not set) → false
			BitTorrent/Session/DHTEnabled: (not set) → false`,
		"4.3": `
			Network/Proxy/Type: 0 → 2
			Network/Proxy/IP: (not set) → "127.0.0.1"
			Network/Proxy/Port: (not set) → 1080
			BitTorrent/Session/ProxyPeerConnections: (not set) → true
			BitTorrent/Session/ProxyHostnameLookup: (not set) → true
			Network/Proxy/OnlyForTorrents: (not set) → false
			BitTorrent/Session/ValidateHTTPSTrackerCertificate: (not set) → false
			BitTorrent/Session/DHTEnabled: (not set) → false`,
	} {
		s, err := iniFormat{}.parse([]byte(all[name]))
		if err != nil {
			t.Fatal(err)
		}
		plan := qbChangesFile(s, want)
		check(t, name, lines(plan), changes)
		for _, c := range plan {
			s[c.Name] = c.New
		}
		if p := qbProfile(qbAsAPI(s), s); p.Proxy != "socks5" || p.ProxyAddr != "127.0.0.1:1080" || !p.PeersProxied || !p.NamesProxied || !p.OtherProxied || p.DHT {
			t.Errorf("%s: not all goes through the proxy: %+v", name, p)
		}
	}
}

// TestWhatElseMakesClientsFail: a client that is bound, and HTTPS trackers.
func TestWhatElseMakesClientsFail(t *testing.T) {
	far := Want{SOCKS: netip.MustParseAddrPort("192.0.2.9:1080")}
	keep := want
	keep.KeepBound, keep.KeepHTTPS = true, true
	bindings := `current_network_interface: "eth0" → ""
		current_interface_address: "192.0.2.5" → ""`
	check := `validate_https_tracker_certificate: true → false`
	const api = `{"current_network_interface":"eth0","current_interface_address":"192.0.2.5","validate_https_tracker_certificate":true}`
	file := "[BitTorrent]\nSession\\Interface=eth0\nSession\\InterfaceName=eth0\nSession\\InterfaceAddress=192.0.2.5\n"
	for _, c := range []struct {
		name    string
		client  Client
		seen    seen
		want    Want
		changes string
		notes   []string // a part of each
	}{
		{"told while it runs", QBittorrent, seen{api: read(t, api)}, want, check + "\n" + bindings, []string{"DHT is off", "binding to eth0", "does not check"}},
		{"a sidecar elsewhere", QBittorrent, seen{api: read(t, api)}, far, bindings, []string{"DHT is off", "binding to", "certificate verify failed"}},
		{"left as it is", QBittorrent, seen{api: read(t, api)}, keep, "", []string{"DHT is off", "stays bound to eth0", "certificate verify failed"}},
		{"bound to loopback", QBittorrent, seen{api: read(t, `{"current_network_interface":"lo","current_interface_address":"127.0.0.1"}`)}, want, "", []string{"DHT is off", "does not check"}},
		{"bound to all addresses", QBittorrent, seen{api: read(t, `{"current_network_interface":"","current_interface_address":"0.0.0.0"}`)}, want, "", []string{"DHT is off", "does not check"}},
		{"in the file", QBittorrent, seen{file: parsed(t, QBittorrent, file)}, want, `
			BitTorrent/Session/ValidateHTTPSTrackerCertificate: (not set) → false
			BitTorrent/Session/Interface: "eth0" → ""
			BitTorrent/Session/InterfaceName: "eth0" → ""
			BitTorrent/Session/InterfaceAddress: "192.0.2.5" → ""`, []string{"DHT is off", "binding to eth0", "does not check"}},
		{"its two settings", Deluge, seen{api: settings{"listen_interface": value("192.0.2.5"), "outgoing_interface": value("tun0")}}, want, `
			listen_interface: "192.0.2.5" → ""
			outgoing_interface: "tun0" → ""`, []string{"DHT is off", "binding to 192.0.2.5", "each time it starts", "certificate verify failed"}},
		{"in the file", BiglyBT, seen{file: settings{"Bind IP": value("192.0.2.5"), "Plugin.UPnP.upnp.enable": value(0)}}, want, `
			Bind IP: "192.0.2.5" → ""`, []string{"shoal run", "binding to 192.0.2.5"}},
		{"in the file", Transmission, seen{file: settings{"bind-address-ipv4": value("192.0.2.5"), "bind-address-ipv6": value("::")}}, want, `
			bind-address-ipv4: "192.0.2.5" → "0.0.0.0"`, []string{"shoal run", "DHT stays", "binding to 192.0.2.5"}},
	} {
		t.Run(c.client.Name()+" "+c.name, func(t *testing.T) {
			var got []string
			for _, change := range c.client.(configurable).changes(c.seen, c.want) {
				if strings.Contains(change.Name, "nterface") || strings.Contains(strings.ToLower(change.Name), "bind") || strings.Contains(strings.ToLower(change.Name), "validate") {
					got = append(got, change.String())
				}
			}
			wanted := strings.Split(strings.ReplaceAll(strings.TrimSpace(c.changes), "\t", ""), "\n")
			if c.changes == "" {
				wanted = nil
			}
			if !slices.Equal(got, wanted) {
				t.Errorf("got  %q\nwant %q", got, wanted)
			}
			notes := c.client.(configurable).notes(c.seen, c.want)
			if len(notes) != len(c.notes) {
				t.Fatalf("notes %q, want parts %q", notes, c.notes)
			}
			for i, part := range c.notes {
				if !strings.Contains(notes[i], part) {
					t.Errorf("note %q without %q", notes[i], part)
				}
			}
		})
	}
}

func parsed(t *testing.T, c Client, file string) settings {
	t.Helper()
	s, err := c.(configurable).format().parse([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDelugeAndTransmissionGetWhatTheyNeed(t *testing.T) {
	all := sections(t, "objects.txt")
	for name, changes := range map[string]string{
		"Deluge 2.0": `
			proxy.type: 0 (none) → 2 (Socks5)
			proxy.hostname: "" → "127.0.0.1"
			proxy.port: 8080 → 1080
			proxy.force_proxy: false → true
			dht: true → false`,
		"Transmission 3": `
			utp-enabled: true → false
			port-forwarding-enabled: true → false`,
		"Transmission 4.1": `
			utp-enabled: true → false
			lpd-enabled: true → false
			port-forwarding-enabled: true → false
			preferred-transports: ["utp","tcp"] → ["tcp"]`,
		"Transmission 5": `
			utp_enabled: true → false
			lpd_enabled: true → false
			port_forwarding_enabled: true → false
			preferred_transports: ["utp","tcp"] → ["tcp"]`,
	} {
		s, err := object(all[name]).all()
		if err != nil {
			t.Fatal(err)
		}
		plan := transmissionChanges(seen{file: s}, Want{})
		if strings.HasPrefix(name, "Deluge") {
			plan = delugeChanges(s, want)
		}
		check(t, name, lines(plan), changes)
	}
}

func TestBiglyBTGetsWhatItNeeds(t *testing.T) {
	all := sections(t, "biglybt.txt")
	for name, changes := range map[string]string{
		"3.2 behind a proxy": `
			Enable.Proxy: 1 → 0
			Proxy.Data.Enable: 1 → 0
			Plugin.UPnP.upnp.enable: (not set) → 0
			Bind IP: "192.0.2.5" → ""`,
		"3.2 as first written": `
			Plugin.UPnP.upnp.enable: (not set) → 0`,
	} {
		s := parsed(t, BiglyBT, strings.TrimSpace(all[name]))
		plan := BiglyBT.(configurable).changes(seen{file: s}, Want{})
		check(t, name, lines(plan), changes)
	}
	p := BiglyBT.(configurable).profile(seen{file: parsed(t, BiglyBT, strings.TrimSpace(all["3.2 behind a proxy"]))})
	if p.Proxy != "socks5" || p.ProxyAddr != "127.0.0.1:1080" || p.PeersProxied || !p.UPnP || !p.LSD || !p.DHT || p.NATPMP || p.Bound != "192.0.2.5" {
		t.Errorf("%+v", p)
	}
}

func TestProfilesSayWhatDefaultsMean(t *testing.T) {
	if p := qbProfile(settings{}, nil); p.Proxy != "" || p.PeersProxied || !p.DHT || !p.DHTNames || !p.LSD || !p.UPnP || !p.NATPMP || !p.GeoIP || p.RSS || !p.ChecksHTTPS {
		t.Errorf("qBittorrent: %+v", p)
	}
	if p := delugeProfile(settings{}); p.Proxy != "" || p.PeersProxied || !p.DHT || !p.LSD || !p.UPnP || !p.NATPMP || p.ControlPort != 58846 {
		t.Errorf("Deluge: %+v", p)
	}
	if p := transmissionProfile(seen{file: settings{}}); !p.DHT || p.LSD || !p.UPnP || !p.NATPMP || !p.TellsIPv6 || p.ControlPort != 9091 {
		t.Errorf("Transmission: %+v", p)
	}
	// From 4.6 on what is not switched on is off; half a proxy is none for peers.
	s := settings{"proxy_type": value("SOCKS5"), "proxy_ip": value("127.0.0.1"), "proxy_port": value(1080)}
	if p := qbProfile(s, settings{qbVersion: value(8)}); p.TrackersProxied || p.RSSProxied || p.OtherProxied || p.PeersProxied {
		t.Errorf("4.6 without a switch: %+v", p)
	}
	if p := qbProfile(s, nil); !p.TrackersProxied || p.PeersProxied {
		t.Errorf("4.5 with half a proxy: %+v", p)
	}
	d := settings{"proxy.type": value(2), "new_release_check": value(true), "send_info": value(true)}
	if p := delugeProfile(d); p.Proxy != "socks5" || !p.PeersProxied || !slices.Equal(p.Fetches, []string{"new_release_check", "send_info"}) {
		t.Errorf("Deluge: %+v", p)
	}
}

func TestPasswordsAreNotShown(t *testing.T) {
	for _, name := range []string{"proxy_password", "proxy.password", "Network/Proxy/Password"} {
		c := Change{name, value("old secret"), value("new secret")}
		if got := c.String(); strings.Contains(got, "secret") {
			t.Error(got)
		}
	}
}

func TestWherePagesAndDaemonsAre(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{qbURL(settings{"Preferences/WebUI/Enabled": value(true)}), "http://127.0.0.1:8080"},
		{qbURL(settings{"Preferences/WebUI/Enabled": value(true), "Preferences/WebUI/Port": value(8099), "Preferences/WebUI/Address": value("*")}), "http://127.0.0.1:8099"},
		{qbURL(settings{"WebUI/Enabled": value(true), "WebUI/Address": value("::1"), "WebUI/HTTPS/Enabled": value(true)}), "https://[::1]:8080"},
		{qbURL(settings{}), "http://127.0.0.1:8080"}, // qbittorrent-nox as it is installed
		{qbURL(settings{"Preferences/WebUI/Enabled": value(false)}), ""},
		{transmissionURL(settings{}), "http://127.0.0.1:9091/transmission/rpc"},
		{transmissionURL(settings{"rpc-port": value(1234), "rpc-url": value("/x"), "rpc-bind-address": value("127.0.0.5")}), "http://127.0.0.5:1234/x/rpc"},
		{transmissionURL(settings{"rpc-enabled": value(false)}), ""},
		{delugeAddr(settings{}, ""), "127.0.0.1:58846"},
		{delugeAddr(settings{"daemon_port": value(1234)}, ""), "127.0.0.1:1234"},
		{delugeAddr(settings{"daemon_port": value(1234)}, "77;4321\n"), "127.0.0.1:4321"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
	user, password, ok := delugeLogin("somebody:x:5\nlocalclient:0a1b:10\n")
	if user != "localclient" || password != "0a1b" || !ok {
		t.Errorf("got %s, %s, %v", user, password, ok)
	}
}
