package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	daemon "github.com/shoal-p2p/shoal/proxy/setup/deluge"
)

// Deluge is Deluge, its daemon or its window.
var Deluge = register(deluge{})

type deluge struct{}

func (deluge) Name() string    { return "deluge" }
func (deluge) Title() string   { return "Deluge" }
func (deluge) NoSOCKS() string { return "" }

// Start: it hands its settings to a libtorrent that runs already, by
// libtorrent's own defaults.
func (deluge) Start() string {
	return "each time it starts, and before it reads its settings, it looks up dht.libtorrent.org in the system's DNS, joins local service discovery and asks the router for a port (UPnP, NAT-PMP)"
}

func (deluge) Command() string    { return "deluged --do-not-daemonize" }
func (deluge) programs() []string { return []string{"deluged", "deluge", "deluge-gtk"} }
func (deluge) format() format     { return objectFormat{} }

func (deluge) Remedy(finding string) string {
	return map[string]string{
		"proxy":      "Preferences › Proxy: Socks5 and the sidecar's address",
		"proxy-host": "Preferences › Proxy: Hostname 127.0.0.1",
		"login":      "Preferences › Proxy: Socks5 Auth, with the sidecar's password and any user name",
		"bound":      "Preferences › Network: Incoming Address and Outgoing Interface empty",
		"peers":      "Preferences › Proxy: Socks5 and the sidecar's address, with Proxy Peers",
		"trackers":   "Preferences › Proxy: Proxy Trackers",
		"names":      "Preferences › Proxy: Proxy Hostnames",
		"dns":        "Preferences › Network: DHT off",
		"dht":        "Preferences › Network: DHT off",
		"lsd":        "Preferences › Network: LSD off, and Proxy › Proxy Peers on",
		"upnp":       "Preferences › Network: UPnP off",
		"nat-pmp":    "Preferences › Network: NAT-PMP off",
		"listen":     "Preferences › Proxy: Proxy Peers",
		"direct":     "Preferences › Proxy: Proxy Peers and Proxy Trackers",
		"ipv6":       "Preferences › Proxy: Proxy Peers",
		"settings":   "run doctor as the user it runs as",
	}[finding]
}

func (deluge) file(program string, args []string, env func(string) string, in places) string {
	if dir := option(args, "--config", "-c"); dir != "" {
		return filepath.Join(dir, "core.conf")
	}
	return filepath.Join(in.config, "deluge", "core.conf")
}

func (deluge) candidates(in places) (own, service []string) {
	if in.os == "linux" {
		service = []string{"/var/lib/deluged/config/core.conf"}
	}
	return []string{filepath.Join(in.config, "deluge", "core.conf")}, service
}

func (deluge) address(i Instance, file settings) string {
	return delugeAddr(file, i.neighbour("deluged.pid"))
}

func (deluge) open(at string, i Instance) (api, error) {
	user, password := i.access.User, i.access.Password
	if user == "" {
		var ok bool
		if user, password, ok = delugeLogin(i.neighbour("auth")); !ok {
			return nil, ErrLogin
		}
	}
	return &delugeAPI{daemon.Daemon{Addr: at, User: user, Password: password}}, nil
}

func (deluge) changes(s seen, w Want) []Change               { return delugeChanges(s.now(), w) }
func (deluge) fileNames(name string, file settings) []string { return []string{name} }
func (deluge) profile(s seen) Profile                        { return delugeProfile(s.now()) }

func (c deluge) notes(s seen, w Want) []string {
	p := c.profile(s)
	var all []string
	switch {
	case !w.KeepDHT:
		all = append(all, dhtOff)
	case p.DHT:
		all = append(all, dhtOn)
	}
	all = append(all, boundNotes(p, w)...)
	return append(all,
		"No setting stops this: "+c.Start()+". shoal run does.",
		httpsFails+" Deluge has no setting for that; use shoal run.")
}

// Deluge's settings have the same names in its daemon and in core.conf. Of the
// proxy, the daemon takes the whole object at once.

// The kinds of proxy, by Deluge's numbers.
var (
	delugeProxies    = []string{"", "socks4", "socks5", "socks5", "http", "http", "i2p"}
	delugeProxyNames = numbered("proxy.type", []string{"none", "Socks4", "Socks5", "Socks5 with a password", "HTTP", "HTTP with a password", "I2P"})
)

const (
	delugeSOCKS5         = 2
	delugeSOCKS5Password = 3
)

// delugeBinds are the settings that bind it to an interface or address.
var delugeBinds = []string{"listen_interface", "outgoing_interface"}

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
	for _, name := range delugeBinds {
		if !w.KeepBound && bound(s.text(name)) != "" {
			all = append(all, wish{name, ""})
		}
	}
	return s.changes(all)
}

// delugeProfile returns what Deluge's settings mean; what is not in them has
// Deluge's default.
func delugeProfile(s settings) Profile {
	p := Profile{
		DHT:         s.is("dht", true),
		DHTNames:    true, // there is no setting for its first nodes
		LSD:         s.is("lsd", true),
		UPnP:        s.is("upnp", true),
		NATPMP:      s.is("natpmp", true),
		ChecksHTTPS: true, // there is no setting
		Control:     "daemon",
		ControlPort: s.number("daemon_port"),
		Bound:       bound(s.text(delugeBinds[0]), s.text(delugeBinds[1])),
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
	if kind == delugeSOCKS5Password {
		p.ProxyUser, p.ProxyPassword = s.text("proxy.username"), s.text("proxy.password")
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

// delugeAPI reads and writes settings through Deluge's daemon.
type delugeAPI struct{ daemon daemon.Daemon }

func (d *delugeAPI) read(ctx context.Context) (settings, error) {
	config, err := d.config(ctx)
	if err != nil {
		return nil, err
	}
	return delugeSettings(config)
}

// delugeSettings returns the answer to core.get_config as settings.
func delugeSettings(config map[string]any) (settings, error) {
	b, err := json.Marshal(config)
	if err != nil { // NaN, which JSON doesn't have
		return nil, fmt.Errorf("setup: Deluge's settings: %w", err)
	}
	s := make(settings)
	return s, s.add("", b)
}

func (d *delugeAPI) config(ctx context.Context) (map[string]any, error) {
	answer, err := d.daemon.Call(ctx, "core.get_config")
	if errors.Is(err, daemon.ErrLogin) {
		return nil, ErrLogin
	}
	if err != nil {
		return nil, err
	}
	config, ok := answer.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("setup: Deluge's settings are %T", answer)
	}
	return config, nil
}

// write sends whole objects: the daemon replaces those.
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
	_, err = d.daemon.Call(ctx, "core.set_config", set)
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
