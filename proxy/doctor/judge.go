package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoal-p2p/shoal/proxy/setup"
)

// The ports and groups by which clients look around in their own network.
const (
	portLSD    = 6771
	portUPnP   = 1900
	portNATPMP = 5351
)

var groupsLSD = []netip.Addr{netip.MustParseAddr("239.192.152.143"), netip.MustParseAddr("ff15::efc0:988f")}

// Judge returns what is to say of one client, what is worst first.
func Judge(f Facts) []Finding {
	j := &judge{Facts: f}
	switch {
	case f.Sandbox:
		j.sandboxed()
	case !f.Known:
		j.say(Unknown, "settings", "its settings can't be read", f.Client.Remedy("settings"))
		j.start()
		j.network()
	default:
		j.start()
		j.proxy()
		j.bound()
		j.discovery()
		j.fetches()
		j.network()
		j.rest()
	}
	slices.SortStableFunc(j.all, func(a, b Finding) int { return int(b.Level) - int(a.Level) })
	return j.all
}

type judge struct {
	Facts
	all []Finding
}

func (j *judge) say(l Level, what, says, close string) {
	j.all = append(j.all, Finding{l, what, says, close})
}

func (j *judge) leak(what, says string)  { j.say(Leak, what, says, j.remedy(what)) }
func (j *judge) fault(what, says string) { j.say(Fault, what, says, j.remedy(what)) }

// setUp are the findings that shoal setup ends.
var setUp = []string{"proxy", "proxy-host", "bound", "peers", "trackers", "names", "dns", "dht", "lsd", "upnp", "nat-pmp", "geoip", "rss", "listen", "direct", "ipv6", "https"}

// remedy returns what ends a finding: a setting of the client's, or else that it
// runs under shoal run.
func (j *judge) remedy(what string) string {
	run := "stop it and start it under shoal run: " + j.Run
	how := j.Client.Remedy(what)
	switch {
	case how == "":
		return run
	case slices.Contains(setUp, what) && j.Client.NoSOCKS() == "":
		return how + "; or shoal setup " + j.Client.Name()
	}
	return how
}

// sandboxed is a client that has no way out but the sidecar.
func (j *judge) sandboxed() {
	if !j.Known {
		return
	}
	if j.Profile.Proxy != "" {
		j.say(Fault, "proxy", "it runs inside shoal run, where nothing answers at the proxy it is set to", "set no proxy in it; or shoal setup "+j.Client.Name()+" --undo")
	}
	j.bound()
}

// start is what a client does before it has read its settings.
func (j *judge) start() {
	if does := j.Client.Start(); does != "" {
		j.leak("start", does)
	}
}

// bound is a client that can't reach the sidecar's loopback, or has another
// network than the one that it is bound to.
func (j *judge) bound() {
	to := j.Profile.Bound
	switch {
	case to == "":
	case !j.Sandbox:
		j.fault("bound", fmt.Sprintf("it is bound to %s, and a bound client transfers nothing through Shoal though its trackers answer", to))
	case !slices.Contains(j.Own, to):
		j.say(Fault, "bound", fmt.Sprintf("it is bound to %s, which shoal run doesn't have, so it sends nothing", to),
			j.Client.Remedy("bound")+"; or shoal run --interface NAME=ADDRESS, with what it is bound to")
	}
}

// proxy is about peers, trackers and names.
func (j *judge) proxy() {
	p := j.Profile
	if j.Client.NoSOCKS() != "" {
		how := "it connects to peers and trackers directly: "
		if p.Proxy != "" {
			how = "its proxy hides too little: "
		}
		j.leak("peers", how+j.Client.NoSOCKS())
		return
	}
	if p.Proxy == "" {
		j.leak("peers", "it connects to peers and trackers directly: no proxy is set")
		return
	}
	j.proxyAddress()
	if !p.PeersProxied {
		j.leak("peers", "it connects to peers directly, past its proxy")
	}
	if !p.TrackersProxied {
		j.leak("trackers", "it asks trackers directly, past its proxy")
	}
	if !p.NamesProxied {
		j.leak("names", "it looks up the names of trackers in the system's DNS")
	}
}

// proxyAddress is about where the proxy is, its kind and its login.
func (j *judge) proxyAddress() {
	p := j.Profile
	host, port, _ := strings.Cut(p.ProxyAddr, "]:")
	switch {
	case p.Proxy != "socks5" && j.toSidecar():
		j.leak("proxy", fmt.Sprintf("its proxy at %v is set to the kind %s: the sidecar speaks SOCKS5 alone, so nothing works, and UDP goes past it", j.SOCKS, p.Proxy))
	case p.Proxy != "socks5":
		j.leak("proxy", fmt.Sprintf("its proxy is of the kind %s, which carries no UDP", p.Proxy))
	case host == "[::1" && port == fmt.Sprint(j.SOCKS.Port()):
		j.fault("proxy-host", "its proxy host is ::1, to which it can't send UDP: no peer can reach it, and UDP trackers and the DHT fail")
	case j.OtherProxy:
		j.say(Unknown, "proxy", fmt.Sprintf("its proxy is another sidecar, at %s", p.ProxyAddr), "look at that one with --socks and --status; or "+j.remedy("proxy"))
	case !j.toSidecar() && j.ProxyAnswer == setup.Nobody:
		j.fault("proxy", fmt.Sprintf("its proxy is %s, where nothing listens; Shoal's is %v", p.ProxyAddr, j.SOCKS))
	case !j.toSidecar():
		j.leak("proxy", fmt.Sprintf("its proxy is at %s and not Shoal's, at %v", p.ProxyAddr, j.SOCKS))
	case j.ProxyAnswer == setup.LoginMissing:
		j.fault("login", "the sidecar asks for a password, and the client has none set")
	case j.ProxyAnswer == setup.LoginRejected:
		j.fault("login", "the sidecar refuses the password that is set in the client")
	}
}

// outside reports whether the client's requests to trackers reach the internet
// other than through Shoal.
func (j *judge) outside() bool {
	return !j.Profile.TrackersProxied || !j.toSidecar() && slices.ContainsFunc(j.all, func(f Finding) bool {
		return f.Level == Leak && f.What == "proxy"
	})
}

// toSidecar reports whether the client's proxy is at the sidecar's address.
func (j *judge) toSidecar() bool {
	at, ok := proxyAt(j.Profile)
	return ok && at == j.SOCKS
}

// proxyAt returns the address of a client's proxy, if it is one.
func proxyAt(p setup.Profile) (at netip.AddrPort, ok bool) {
	at, err := netip.ParseAddrPort(strings.Replace(p.ProxyAddr, "localhost:", "127.0.0.1:", 1))
	return at, err == nil
}

// carried reports whether what the BitTorrent part does goes through a SOCKS5 proxy.
// libtorrent, which qBittorrent and Deluge are made of, then neither listens
// nor looks around in its network.
func (j *judge) carried() bool { return j.Profile.Proxy == "socks5" && j.Profile.PeersProxied }

// discovery is what the client tells its own network and the DHT.
func (j *judge) discovery() {
	p := j.Profile
	switch {
	case p.DHT && p.DHTNames:
		j.leak("dns", "it looks up the first nodes of the DHT in the system's DNS, whatever its proxy is")
	case p.DHT && !j.carried():
		j.leak("dht", "it talks to the DHT directly")
	}
	if j.has(func(udp bool, port uint16) bool { return udp && port == portLSD }) {
		j.leak("lsd", fmt.Sprintf("it takes part in local service discovery: it holds UDP port %d, and multicasts the info-hashes of its torrents", portLSD))
	} else if p.LSD && !j.carried() {
		j.leak("lsd", "it multicasts the info-hashes of its torrents in the local network (local service discovery)")
	} else if j.Running && p.LSD && j.joinedLSD() {
		j.say(Note, "lsd", "some program on this computer has joined the group of local service discovery", "")
	}
	if j.has(func(udp bool, port uint16) bool { return udp && port == portUPnP }) {
		j.leak("upnp", fmt.Sprintf("it asks the router by UPnP to forward a port: it holds UDP port %d", portUPnP))
	} else if p.UPnP && !j.carried() {
		j.leak("upnp", fmt.Sprintf("it asks the router by UPnP (UDP port %d) to forward a port", portUPnP))
	}
	if p.NATPMP && !j.carried() {
		j.leak("nat-pmp", fmt.Sprintf("it asks the router by NAT-PMP (UDP port %d) to forward a port", portNATPMP))
	}
}

// has reports whether the client holds a socket with such a local port.
func (j *judge) has(port func(udp bool, port uint16) bool) bool {
	for _, s := range j.Sockets {
		if port(s.UDP, s.Local.Port()) {
			return true
		}
	}
	return false
}

func (j *judge) joinedLSD() bool {
	return slices.ContainsFunc(j.Groups, func(g netip.Addr) bool { return slices.Contains(groupsLSD, g) })
}

// fetches is what the program around the client asks for.
func (j *judge) fetches() {
	p := j.Profile
	if p.GeoIP && !p.OtherProxied {
		j.leak("geoip", "it downloads a table of countries directly")
	}
	if p.RSS && !p.RSSProxied {
		j.leak("rss", "it fetches feeds directly")
	}
	for _, name := range p.Fetches {
		j.say(Leak, "fetch", "it fetches from its makers' or others' servers directly ("+name+")", "set "+name+" to false")
	}
	if p.ReverseDNS {
		j.leak("reverse-dns", "it asks the system's DNS for the names of its peers")
	}
}

// network is what the sockets show, whatever the settings say.
func (j *judge) network() {
	if j.Sight == Denied {
		j.say(Unknown, "sockets", "its sockets can't be seen, since it is another user's", "look as that user, or as root")
	}
	open, direct := 0, 0
	for _, s := range j.Sockets {
		own := s.Local.Port() == uint16(j.Profile.ControlPort) && !s.UDP
		switch {
		case s.UDP:
		case s.Listening && own && !s.Local.Addr().IsLoopback():
			j.say(Note, "control", fmt.Sprintf("its own page or daemon, at port %d, can be reached from other computers", j.Profile.ControlPort), "let it listen on 127.0.0.1")
		case s.Listening && !s.Local.Addr().IsLoopback():
			open++
		case !s.Listening && !own && !s.Remote.Addr().IsLoopback() && s.Remote.IsValid() && !j.isProxy(s.Remote):
			direct++
		}
	}
	if open > 0 {
		j.leak("listen", "it takes connections from outside: whoever finds its port learns what it shares")
	}
	if direct > 0 {
		j.leak("direct", fmt.Sprintf("it has %d connections to others that do not go through the sidecar", direct))
	}
}

func (j *judge) isProxy(a netip.AddrPort) bool {
	return a == j.SOCKS || a.String() == j.Profile.ProxyAddr && j.toSidecar()
}

func (j *judge) rest() {
	p := j.Profile
	if j.IPv6 && (p.TellsIPv6 || !j.carried()) {
		j.leak("ipv6", "it tells its peers and trackers this computer's IPv6 address")
	}
	switch {
	case p.ChecksHTTPS && (j.toSidecar() || j.OtherProxy):
		j.say(Note, "https", "it checks the certificates of HTTPS trackers, so those fail with \"certificate verify failed\"; other trackers work", j.remedy("https"))
	case !p.ChecksHTTPS && j.Client.NoSOCKS() == "" && j.outside():
		j.leak("unchecked", "it does not check the certificates of HTTPS trackers, and its proxy is not the sidecar: others on the way can pose as those trackers")
	}
	if !j.Running {
		j.say(Note, "idle", "it does not run: only its settings were looked at", "")
	} else if j.Sight == Nothing {
		j.say(Note, "sockets", "this system does not show its sockets: only its settings were looked at", "")
	}
}
