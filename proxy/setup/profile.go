package setup

import (
	"net"
	"strconv"
)

// Profile is what a client's settings mean for who learns what, whichever way
// they were read and whatever the client calls them.
type Profile struct {
	Proxy     string // kind of proxy: "", "socks5", "socks4", "http", "i2p"
	ProxyAddr string // HOST:PORT of it

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

	ChecksHTTPS bool // HTTPS trackers must show a certificate that the system trusts
	TellsIPv6   bool // it tells peers and trackers its IPv6 address
	ControlPort int  // TCP port of its web page or daemon, 0 for none
}

// proxied sets what goes through a proxy when everything does.
func (p *Profile) proxied(kind, host string, port int) {
	p.Proxy = kind
	if kind == "" {
		return
	}
	p.ProxyAddr = net.JoinHostPort(host, strconv.Itoa(port))
}
