package doctor

import "github.com/shoal-p2p/shoal/proxy/setup"

// remedies are the settings that close a leak, in the words of each client.
var remedies = map[setup.Client]map[string]string{
	setup.QBittorrent: {
		"proxy":       "Options › Connection › Proxy Server: SOCKS5 and the sidecar's address",
		"peers":       "Options › Connection › Proxy Server: SOCKS5 and the sidecar's address, with Use proxy for peer connections",
		"trackers":    "Options › Connection › Proxy Server: Use proxy for BitTorrent purposes",
		"names":       "Options › Connection › Proxy Server: Use proxy for hostname lookups",
		"dns":         "Options › BitTorrent: Enable DHT off (from 4.6 on, shoal setup qbittorrent --keep-dht can leave it on)",
		"dht":         "Options › Connection › Proxy Server: Use proxy for peer connections",
		"lsd":         "Options › BitTorrent: Enable Local Peer Discovery off, and the proxy for peer connections on",
		"upnp":        "Options › Connection: Use UPnP / NAT-PMP off",
		"nat-pmp":     "Options › Connection: Use UPnP / NAT-PMP off",
		"geoip":       "Options › Connection › Proxy Server: Use proxy only for torrents off (from 4.6 on: Use proxy for general purposes on); or Advanced › Resolve peer countries off",
		"rss":         "Options › Connection › Proxy Server: Use proxy only for torrents off (from 4.6 on: Use proxy for RSS purposes on); or Options › RSS: Enable fetching RSS feeds off",
		"reverse-dns": "Advanced › Resolve peer host names off",
		"listen":      "Options › Connection › Proxy Server: Use proxy for peer connections",
		"direct":      "Options › Connection › Proxy Server: Use proxy for peer connections",
		"ipv6":        "Options › Connection › Proxy Server: Use proxy for peer connections",
		"https":       "Advanced › Validate HTTPS tracker certificates off, while the sidecar is its proxy; or shoal run",
	},
	setup.Deluge: {
		"proxy":    "Preferences › Proxy: Socks5 and the sidecar's address",
		"peers":    "Preferences › Proxy: Socks5 and the sidecar's address, with Proxy Peers",
		"trackers": "Preferences › Proxy: Proxy Trackers",
		"names":    "Preferences › Proxy: Proxy Hostnames",
		"dns":      "Preferences › Network: DHT off",
		"dht":      "Preferences › Network: DHT off",
		"lsd":      "Preferences › Network: LSD off, and Proxy › Proxy Peers on",
		"upnp":     "Preferences › Network: UPnP off",
		"nat-pmp":  "Preferences › Network: NAT-PMP off",
		"listen":   "Preferences › Proxy: Proxy Peers",
		"direct":   "Preferences › Proxy: Proxy Peers and Proxy Trackers",
		"ipv6":     "Preferences › Proxy: Proxy Peers",
		"https":    "use shoal run; Deluge has no setting for it",
		"start":    "start it with shoal run, as in: shoal run --network FILE -- deluged --do-not-daemonize",
	},
	setup.Transmission: {
		"lsd":     "Preferences › Network: local peer discovery off (lpd-enabled); or shoal run",
		"upnp":    "Preferences › Network: port forwarding off (port-forwarding-enabled); or shoal run",
		"nat-pmp": "Preferences › Network: port forwarding off (port-forwarding-enabled); or shoal run",
		"https":   "use shoal run",
	},
}

// runs are the leaks that no setting of Transmission's closes.
const runs = "start it with shoal run, as in: shoal run --network FILE -- transmission-daemon --foreground"

// setUp are the leaks that shoal setup closes.
var setUp = map[string]bool{
	"proxy": true, "peers": true, "trackers": true, "names": true, "dns": true, "dht": true, "lsd": true, "upnp": true,
	"nat-pmp": true, "geoip": true, "rss": true, "listen": true, "direct": true, "ipv6": true,
}

// remedy returns the setting of a client that closes a leak.
func remedy(c setup.Client, what string) string {
	how, ok := remedies[c][what]
	switch {
	case !ok:
		return runs
	case setUp[what] && c != setup.Transmission:
		return how + "; or shoal setup " + string(c)
	}
	return how
}

// unknownSettings is how to let a client's settings be read.
var unknownSettings = map[setup.Client]string{
	setup.QBittorrent:  "look as the user it runs as, or turn on Options › Web UI and give --login and --login-password-file",
	setup.Deluge:       "look as the user it runs as",
	setup.Transmission: "look as the user it runs as, or give --login and --login-password-file",
}
