package setup

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoal-p2p/shoal/proxy/dht"
)

// QBittorrent is qBittorrent, with or without its window.
var QBittorrent = register(qBittorrent{})

type qBittorrent struct{}

func (qBittorrent) Name() string       { return "qbittorrent" }
func (qBittorrent) Title() string      { return "qBittorrent" }
func (qBittorrent) NoSOCKS() string    { return "" }
func (qBittorrent) Start() string      { return "" }
func (qBittorrent) Command() string    { return "qbittorrent" }
func (qBittorrent) programs() []string { return []string{"qbittorrent-nox", "qbittorrent"} }
func (qBittorrent) format() format     { return iniFormat{} }

func (qBittorrent) Remedy(finding string) string {
	const proxy = "Options › Connection › Proxy Server: "
	return map[string]string{
		"proxy":       proxy + "SOCKS5 and the sidecar's address",
		"proxy-host":  proxy + "host 127.0.0.1",
		"login":       proxy + "Authentication, with the sidecar's password and any user name",
		"bound":       "Advanced: Network interface Any interface, and Optional IP address to bind to All addresses",
		"peers":       proxy + "SOCKS5 and the sidecar's address, with Use proxy for peer connections",
		"trackers":    proxy + "Use proxy for BitTorrent purposes",
		"names":       proxy + "Use proxy for hostname lookups",
		"dns":         "Options › BitTorrent: Enable DHT off (from 4.6 on, shoal setup qbittorrent --keep-dht can leave it on)",
		"dht":         proxy + "Use proxy for peer connections",
		"lsd":         "Options › BitTorrent: Enable Local Peer Discovery off, and the proxy for peer connections on",
		"upnp":        "Options › Connection: Use UPnP / NAT-PMP off",
		"nat-pmp":     "Options › Connection: Use UPnP / NAT-PMP off",
		"geoip":       proxy + "Use proxy only for torrents off (from 4.6 on: Use proxy for general purposes on); or Advanced › Resolve peer countries off",
		"rss":         proxy + "Use proxy only for torrents off (from 4.6 on: Use proxy for RSS purposes on); or Options › RSS: Enable fetching RSS feeds off",
		"reverse-dns": "Advanced › Resolve peer host names off",
		"listen":      proxy + "Use proxy for peer connections",
		"direct":      proxy + "Use proxy for peer connections",
		"ipv6":        proxy + "Use proxy for peer connections",
		"https":       "Advanced › Validate HTTPS tracker certificates off, while the sidecar is its proxy",
		"unchecked":   "Advanced › Validate HTTPS tracker certificates on",
		"settings":    "run doctor as the user it runs as, or turn on Options › Web UI and give --login",
	}[finding]
}

func (qBittorrent) file(program string, args []string, env func(string) string, in places) string {
	name := "qBittorrent"
	if n := first(option(args, "--configuration", ""), env("QBT_CONFIGURATION_NAME")); n != "" {
		name += "_" + n
	}
	if dir := first(option(args, "--profile", ""), env("QBT_PROFILE")); dir != "" {
		return filepath.Join(dir, name, "config", qbFile(in))
	}
	return filepath.Join(in.config, name, qbFile(in))
}

func (qBittorrent) candidates(in places) (own, service []string) {
	own = []string{filepath.Join(in.config, "qBittorrent", qbFile(in))}
	return append(own, in.flatpak("org.qbittorrent.qBittorrent", "qBittorrent", qbFile(in))...), nil
}

func qbFile(in places) string {
	if in.os == "windows" || in.os == "darwin" {
		return "qBittorrent.ini"
	}
	return "qBittorrent.conf"
}

func (qBittorrent) address(i Instance, file settings) string { return qbURL(file) }

func (qBittorrent) open(at string, i Instance) (api, error) {
	return &qbAPI{base: strings.TrimRight(at, "/"), user: i.access.User, password: i.access.Password, http: newHTTP(at)}, nil
}

func (qBittorrent) changes(s seen, w Want) []Change {
	if s.api != nil {
		return qbChangesAPI(s.api, w)
	}
	return qbChangesFile(s.file, w)
}

func (qBittorrent) fileNames(name string, file settings) []string {
	if all := qbFileNames(name, file); all != nil {
		return all
	}
	return []string{name} // it is the file's own
}

func (qBittorrent) profile(s seen) Profile {
	if s.api == nil {
		return qbProfile(qbAsAPI(s.file), s.file)
	}
	return qbProfile(s.api, s.file)
}

func (c qBittorrent) notes(s seen, w Want) []string {
	p := c.profile(s)
	all := []string{dhtOff}
	switch {
	case !w.KeepDHT:
	case !p.DHT:
		all = nil
	case s.now().has("dht_bootstrap_nodes") || s.file.new():
		all = []string{"The DHT stays on, and starts from addresses that only Shoal answers at."}
	default:
		all = []string{dhtOn}
	}
	all = append(all, boundNotes(p, w)...)
	switch {
	case !p.ChecksHTTPS || w.dropsHTTPS():
		return append(all, "It does not check the certificates of HTTPS trackers, which the sidecar on this computer answers itself. Use --undo before you use it without the sidecar; --keep-https-check leaves the check on, and HTTPS trackers fail.")
	case w.KeepHTTPS:
		return append(all, httpsFails)
	}
	return append(all, httpsFails+" The check stays on because the sidecar is not on this computer.")
}

// qBittorrent's settings have two sets of names, those of its web API and those
// of its file, and both have changed: since 4.6 the kind of proxy is a word,
// and there is a switch for each use of it.

// The names in the file, by those in the API. 4.6 writes migration version 6.
var (
	qbNames = map[string]string{
		"proxy_type":                         "Network/Proxy/Type",
		"proxy_ip":                           "Network/Proxy/IP",
		"proxy_port":                         "Network/Proxy/Port",
		"proxy_username":                     "Network/Proxy/Username",
		"proxy_password":                     "Network/Proxy/Password",
		"proxy_peer_connections":             "BitTorrent/Session/ProxyPeerConnections",
		"dht":                                "BitTorrent/Session/DHTEnabled",
		"dht_bootstrap_nodes":                "BitTorrent/Session/DHTBootstrapNodes",
		"lsd":                                "BitTorrent/Session/LSDEnabled",
		"upnp":                               "Network/PortForwardingEnabled",
		"resolve_peer_countries":             "Preferences/Connection/ResolvePeerCountries",
		"rss_processing_enabled":             "RSS/Session/EnableProcessing",
		"validate_https_tracker_certificate": "BitTorrent/Session/ValidateHTTPSTrackerCertificate",
		"current_interface_address":          "BitTorrent/Session/InterfaceAddress",
	}
	qbNamesOld = map[string]string{ // up to 4.5
		"proxy_hostname_lookup": "BitTorrent/Session/ProxyHostnameLookup",
		"proxy_torrents_only":   "Network/Proxy/OnlyForTorrents",
	}
	qbNamesNew = map[string]string{ // from 4.6
		"proxy_hostname_lookup": "Network/Proxy/HostnameLookupEnabled",
		"proxy_auth_enabled":    "Network/Proxy/AuthEnabled",
		"proxy_bittorrent":      "Network/Proxy/Profiles/BitTorrent",
		"proxy_rss":             "Network/Proxy/Profiles/RSS",
		"proxy_misc":            "Network/Proxy/Profiles/Misc",
	}
)

const (
	qbVersion      = "Meta/MigrationVersion"
	qbWordVersion  = 3  // kinds of proxy are words in the file
	qbNewVersion   = 6  // the new names
	qbGeoIPVersion = 10 // below it the table of countries is fetched by default
)

// qbInterface is the network interface in the API, and in the file by two names.
const qbInterface = "current_network_interface"

var qbInterfaces = []string{"BitTorrent/Session/Interface", "BitTorrent/Session/InterfaceName"}

// qbFileNames returns the names that a setting of the API has in a file: old
// ones, new ones, or both where the file does not say which it has.
func qbFileNames(api string, s settings) []string {
	if api == qbInterface {
		return qbInterfaces
	}
	if n, ok := qbNames[api]; ok {
		return []string{n}
	}
	version := s.number(qbVersion)
	var all []string
	if n, ok := qbNamesOld[api]; ok && version < qbNewVersion {
		all = append(all, n)
	}
	if n, ok := qbNamesNew[api]; ok && (version >= qbNewVersion || version == 0) {
		all = append(all, n)
	}
	return all
}

// The kinds of proxy, as numbers of the API up to 4.5 and as words.
var qbProxies = numbered("proxy_type", []string{"None", "HTTP", "SOCKS5", "HTTP_PW", "SOCKS5_PW", "SOCKS4"})

const (
	qbSOCKS5         = 2
	qbSOCKS5Password = 4
)

// qbNodes are where the DHT starts from, when names are not wanted: addresses
// that only the sidecar answers at.
func qbNodes() string {
	var all []string
	for _, n := range dht.DefaultNodes[:4] {
		all = append(all, n.String())
	}
	return strings.Join(all, ", ")
}

// qbWishes returns what qBittorrent should have, by the names of the API, when p
// is what it has. The caller leaves out what this version doesn't know.
func qbWishes(p Profile, w Want) []wish {
	all := []wish{
		{"proxy_type", qbSOCKS5},
		{"proxy_ip", w.SOCKS.Addr().String()},
		{"proxy_port", w.SOCKS.Port()},
		{"proxy_auth_enabled", w.User != ""},
	}
	if w.User != "" {
		all[0].value = qbSOCKS5Password
		all = append(all, wish{"proxy_username", w.User}, wish{"proxy_password", w.Password})
	}
	all = append(all,
		wish{"proxy_peer_connections", true},
		wish{"proxy_hostname_lookup", true},
		wish{"proxy_torrents_only", false},
		wish{"proxy_bittorrent", true},
		wish{"proxy_rss", true},
		wish{"proxy_misc", true},
	)
	if w.dropsHTTPS() {
		all = append(all, wish{"validate_https_tracker_certificate", false})
	}
	if p.Bound != "" && !w.KeepBound {
		all = append(all, wish{qbInterface, ""}, wish{"current_interface_address", ""})
	}
	if !w.KeepDHT {
		return append(all, wish{"dht", false})
	}
	return append(all, wish{"dht_bootstrap_nodes", qbNodes()})
}

// qbChangesAPI returns what has to change in the API's settings.
func qbChangesAPI(s settings, w Want) []Change {
	_, number := qbProxyKind(s["proxy_type"])
	var known []wish
	for _, x := range qbWishes(qbProfile(s, nil), w) {
		_, shown := s[x.name]
		switch {
		case x.name == "proxy_type" && !number:
			x.value = "SOCKS5"
		case x.name == "proxy_auth_enabled" && number, // read only, up to 4.5
			x.name == "dht_bootstrap_nodes" && !s.is("dht", false),
			!shown:
			continue
		}
		known = append(known, x)
	}
	return s.changes(known)
}

// qbChangesFile returns what has to change in the file's settings.
func qbChangesFile(s settings, w Want) []Change {
	version := s.number(qbVersion)
	old := version < qbNewVersion
	_, number := qbProxyKind(s[qbNames["proxy_type"]])
	number = number || version > 0 && version < qbWordVersion
	var known []wish
	for _, x := range qbWishes(qbProfile(qbAsAPI(s), s), w) {
		switch {
		case x.name == "proxy_type" && number: // up to 4.3; newer ones make words of it
		case x.name == "proxy_type" && old && w.User != "":
			x.value = "SOCKS5_PW"
		case x.name == "proxy_type":
			x.value = "SOCKS5"
		case x.name == "dht_bootstrap_nodes" && (old || !s.is(qbNames["dht"], true)):
			continue
		}
		for _, name := range qbFileNames(x.name, s) {
			if x.value != "" || s.has(name) { // what is not set is empty
				known = append(known, wish{name, x.value})
			}
		}
	}
	return s.changes(known)
}

// qbProxyKind returns the word for the kind of proxy, and whether it was a number.
func qbProxyKind(v []byte) (word string, number bool) {
	if n, err := strconv.Atoi(string(v)); err == nil {
		if n < 0 || n >= len(qbProxies) {
			return "", true
		}
		return qbProxies[n], true
	}
	return strings.Trim(string(v), `"`), false
}

// qbAsAPI returns the file's settings under the API's names.
func qbAsAPI(file settings) settings {
	s := make(settings)
	for _, names := range []map[string]string{qbNames, qbNamesOld, qbNamesNew} {
		for api := range names {
			for _, name := range qbFileNames(api, file) {
				if v, ok := file[name]; ok {
					s[api] = v
				}
			}
		}
	}
	if v, ok := file[qbInterfaces[0]]; ok {
		s[qbInterface] = v
	}
	return s
}

// qbProfile returns what the API's settings mean; what is not in them has
// qBittorrent's default. The file's, which may be nil, say what the API doesn't.
func qbProfile(s, file settings) Profile {
	kind, _ := qbProxyKind(s["proxy_type"])
	kind = strings.TrimSuffix(kind, "_PW")
	if kind == "None" {
		kind = ""
	}
	p := Profile{
		DHT:         s.is("dht", true),
		DHTNames:    qbStartsFromNames(s.text("dht_bootstrap_nodes")),
		LSD:         s.is("lsd", true),
		UPnP:        s.is("upnp", true),
		NATPMP:      s.is("upnp", true), // one switch for both
		GeoIP:       s.is("resolve_peer_countries", file.number(qbVersion) < qbGeoIPVersion),
		RSS:         s.is("rss_processing_enabled", false),
		ReverseDNS:  file.is("Preferences/Connection/ResolvePeerHostNames", false),
		ChecksHTTPS: s.is("validate_https_tracker_certificate", true),
		Control:     "Web UI",
		ControlPort: qbWebPort(file),
		Bound:       bound(s.text(qbInterface), s.text("current_interface_address")),
	}
	if n := s.number("web_ui_port"); n != 0 {
		p.ControlPort = n
	}
	p.proxied(strings.ToLower(kind), s.text("proxy_ip"), s.number("proxy_port"))
	if kind == "" {
		return p
	}
	if word, _ := qbProxyKind(s["proxy_type"]); strings.HasSuffix(word, "_PW") || s.is("proxy_auth_enabled", false) {
		p.ProxyUser, p.ProxyPassword = s.text("proxy_username"), s.text("proxy_password")
	}
	// Both switches default to what they are where they don't exist.
	torrents := s.is("proxy_bittorrent", !file.new())
	all := !s.is("proxy_torrents_only", false)
	p.PeersProxied = torrents && s.is("proxy_peer_connections", false)
	p.TrackersProxied = torrents
	p.NamesProxied = torrents && s.is("proxy_hostname_lookup", true)
	p.RSSProxied = all && s.is("proxy_rss", !file.new())
	p.OtherProxied = all && s.is("proxy_misc", !file.new())
	return p
}

// new reports whether a file is of 4.6 or later, where a missing switch is off.
func (s settings) new() bool { return s.number(qbVersion) >= qbNewVersion }

// qbStartsFromNames reports whether any of the DHT's first nodes is a name.
// Without a list qBittorrent has one of its own, of names.
func qbStartsFromNames(nodes string) bool {
	if strings.TrimSpace(nodes) == "" {
		return true
	}
	for n := range strings.SplitSeq(nodes, ",") {
		if _, err := netip.ParseAddrPort(strings.TrimSpace(n)); err != nil {
			return true
		}
	}
	return false
}

// qbWeb returns a setting of the Web UI. Until 5.2 their names begin with
// Preferences.
func qbWeb(file settings, name string) string {
	for _, prefix := range []string{"WebUI/", "Preferences/WebUI/"} {
		if file.has(prefix + name) {
			return file.text(prefix + name)
		}
	}
	return ""
}

// qbWebPort returns the port of the Web UI, 0 when there is none. If the setting
// is absent we can't tell: qbittorrent-nox enables the Web UI by default, the GUI
// does not. The caller checks that something listens.
func qbWebPort(file settings) int {
	if qbWeb(file, "Enabled") == "false" {
		return 0
	}
	if n, err := strconv.Atoi(qbWeb(file, "Port")); err == nil {
		return n
	}
	return 8080
}

// qbURL returns where the Web UI is, "" when there is none.
func qbURL(file settings) string {
	port := qbWebPort(file)
	if port == 0 {
		return ""
	}
	scheme, host := "http", "127.0.0.1"
	if qbWeb(file, "HTTPS/Enabled") == "true" {
		scheme = "https"
	}
	if a, err := netip.ParseAddr(qbWeb(file, "Address")); err == nil && !a.IsUnspecified() {
		host = a.String()
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port))
}
