package setup

import (
	"net"
	"net/netip"
	"strconv"
)

// Profile is what a client's settings mean for who learns what, however they
// were read and whatever the client calls them.
type Profile struct {
	Proxy     string // kind of proxy: "", "socks5", "socks4", "http", "i2p"
	ProxyAddr string // HOST:PORT of it

	// The login that the client offers it; empty for none.
	ProxyUser, ProxyPassword string

	// What the client sends through the proxy. All false without one.
	PeersProxied    bool
	TrackersProxied bool
	NamesProxied    bool // names are looked up at the proxy
	RSSProxied      bool
	OtherProxied    bool // what else the program fetches

	DHT        bool
	DHTNames   bool // the DHT starts from names, which the system's DNS is asked for
	LSD        bool // local service discovery, by multicast
	UPnP       bool
	NATPMP     bool
	GeoIP      bool     // it fetches a table of countries
	RSS        bool     // it fetches feeds
	Fetches    []string // settings by which the program fetches something itself, past any proxy
	ReverseDNS bool     // it asks DNS for the names of its peers

	Bound       string // the network interface or address that it is bound to, "" for none
	ChecksHTTPS bool   // HTTPS trackers must show a certificate that the system trusts
	TellsIPv6   bool   // it tells peers and trackers its IPv6 address
	Control     string // the interface by which it is controlled: "Web UI", "daemon", "RPC"
	ControlPort int    // TCP port of that, 0 for none
}

// proxied sets the proxy.
func (p *Profile) proxied(kind, host string, port int) {
	p.Proxy = kind
	if kind == "" {
		return
	}
	p.ProxyAddr = net.JoinHostPort(host, strconv.Itoa(port))
}

// bound returns the first setting that binds a client to less than all of the
// computer's addresses. Loopback doesn't count: the sidecar is there.
func bound(to ...string) string {
	for _, s := range to {
		a, err := netip.ParseAddr(s)
		if s != "" && s != "lo" && (err != nil || !a.IsUnspecified() && !a.IsLoopback()) {
			return s
		}
	}
	return ""
}
