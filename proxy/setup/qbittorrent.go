package setup

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/shoal-p2p/shoal/proxy/dht"
)

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

// qbFileNames returns the names that a setting of the API has in a file, of
// old ones, new ones, or both where the file does not say which it has.
func qbFileNames(api string, s settings) []string {
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
var qbProxies = []string{"None", "HTTP", "SOCKS5", "HTTP_PW", "SOCKS5_PW", "SOCKS4"}

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

// qbWishes returns what qBittorrent should have, by the names of the API. What
// it has not heard of in this version is left out later.
func qbWishes(w Want) []wish {
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
	if !w.KeepDHT {
		return append(all, wish{"dht", false})
	}
	return append(all, wish{"dht_bootstrap_nodes", qbNodes()})
}

// qbChangesAPI returns what has to change in the API's settings.
func qbChangesAPI(s settings, w Want) []Change {
	_, number := qbProxyKind(s["proxy_type"])
	var known []wish
	for _, x := range qbWishes(w) {
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
	for _, x := range qbWishes(w) {
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
			known = append(known, wish{name, x.value})
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
	return s
}

// qbProfile says what the API's settings mean; what is not in them has
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
		ControlPort: qbWebPort(file),
	}
	if n := s.number("web_ui_port"); n != 0 {
		p.ControlPort = n
	}
	p.proxied(strings.ToLower(kind), s.text("proxy_ip"), s.number("proxy_port"))
	if kind == "" {
		return p
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

// new says if a file is of 4.6 or later, where a missing switch is off.
func (s settings) new() bool { return s.number(qbVersion) >= qbNewVersion }

// qbStartsFromNames says if any of the DHT's first nodes is no address. Without
// a list qBittorrent has one of its own, of names.
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

// The web interface's settings had Preferences before them until 5.2.
func qbWeb(file settings, name string) string {
	for _, prefix := range []string{"WebUI/", "Preferences/WebUI/"} {
		if file.has(prefix + name) {
			return file.text(prefix + name)
		}
	}
	return ""
}

// qbWebPort returns the port of the web interface, 0 when there is none. A file
// that does not say is qbittorrent-nox's, which has it on, or that of a window,
// which has not: whether it listens is looked at before it is told anything.
func qbWebPort(file settings) int {
	if qbWeb(file, "Enabled") == "false" {
		return 0
	}
	if n, err := strconv.Atoi(qbWeb(file, "Port")); err == nil {
		return n
	}
	return 8080
}

// qbURL returns where the web interface is, "" when there is none.
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
