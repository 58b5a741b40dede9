package setup

import (
	"net"
	"strconv"
	"strings"
)

// Deluge's settings have the same names in its daemon and in core.conf. Of the
// proxy, the daemon takes the whole object at once.

// The kinds of proxy, by Deluge's numbers.
var (
	delugeProxies    = []string{"", "socks4", "socks5", "socks5", "http", "http", "i2p"}
	delugeProxyNames = []string{"none", "Socks4", "Socks5", "Socks5 with a password", "HTTP", "HTTP with a password", "I2P"}
)

const (
	delugeSOCKS5         = 2
	delugeSOCKS5Password = 3
)

// delugeChanges returns what has to change in Deluge's settings.
func delugeChanges(s settings, w Want) []Change {
	all := []wish{
		{"proxy.type", delugeSOCKS5},
		{"proxy.hostname", w.SOCKS.Addr().String()},
		{"proxy.port", w.SOCKS.Port()},
	}
	if w.User != "" {
		all[0].value = delugeSOCKS5Password
		all = append(all, wish{"proxy.username", w.User}, wish{"proxy.password", w.Password})
	}
	all = append(all,
		wish{"proxy.proxy_hostnames", true},
		wish{"proxy.proxy_peer_connections", true},
		wish{"proxy.proxy_tracker_connections", true},
		wish{"proxy.force_proxy", true},
		// What Deluge fetches itself goes past the proxy.
		wish{"new_release_check", false},
		wish{"send_info", false},
	)
	if !w.KeepDHT {
		all = append(all, wish{"dht", false})
	}
	return s.changes(all)
}

// delugeProfile says what Deluge's settings mean; what is not in them has
// Deluge's default.
func delugeProfile(s settings) Profile {
	p := Profile{
		DHT:         s.is("dht", true),
		DHTNames:    true, // there is no setting for its first nodes
		LSD:         s.is("lsd", true),
		UPnP:        s.is("upnp", true),
		NATPMP:      s.is("natpmp", true),
		ChecksHTTPS: true, // there is no setting
		ControlPort: s.number("daemon_port"),
	}
	for _, name := range []string{"new_release_check", "send_info"} {
		if s.is(name, false) {
			p.Fetches = append(p.Fetches, name)
		}
	}
	if p.ControlPort == 0 {
		p.ControlPort = delugePort
	}
	kind := s.number("proxy.type")
	if kind < 0 || kind >= len(delugeProxies) {
		kind = 0
	}
	p.proxied(delugeProxies[kind], s.text("proxy.hostname"), s.number("proxy.port"))
	if p.Proxy == "" {
		return p
	}
	p.PeersProxied = s.is("proxy.proxy_peer_connections", true)
	p.TrackersProxied = s.is("proxy.proxy_tracker_connections", true)
	p.NamesProxied = s.is("proxy.proxy_hostnames", true)
	return p
}

const delugePort = 58846 // of the daemon, unless it was told another

// delugeAddr returns where the daemon of a settings folder listens. pidFile is
// deluged.pid of that folder: the process, a semicolon, the port.
func delugeAddr(s settings, pidFile string) string {
	port := s.number("daemon_port")
	if _, p, ok := strings.Cut(strings.TrimSpace(pidFile), ";"); ok {
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			port = int(n)
		}
	}
	if port == 0 {
		port = delugePort
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// delugeLogin returns the user and password that the daemon of a settings folder
// made for programs of this computer. auth is that folder's file: one account
// a line, name, password, level.
func delugeLogin(auth string) (user, password string, ok bool) {
	for l := range strings.Lines(auth) {
		if f := strings.Split(strings.TrimSpace(l), ":"); len(f) >= 2 && f[0] == "localclient" {
			return f[0], f[1], true
		}
	}
	return "", "", false
}
