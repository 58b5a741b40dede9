package doctor

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/proc"
	"github.com/shoal-p2p/shoal/proxy/setup"
)

var socks = netip.MustParseAddrPort("127.0.0.1:1080")

// healthy is what a client that was set up looks like.
func healthy(c setup.Client) Facts {
	return Facts{
		Client: c, Known: true, Running: true, Live: true, SOCKS: socks, ProxyAnswer: setup.Served, Run: "shoal run -- it",
		Profile: setup.Profile{
			Proxy: "socks5", ProxyAddr: socks.String(),
			PeersProxied: true, TrackersProxied: true, NamesProxied: true, RSSProxied: true, OtherProxied: true,
			LSD: true, UPnP: true, NATPMP: true, GeoIP: true, RSS: true, // all of it goes through the proxy, or not at all
			ControlPort: 8080,
		},
		Sockets: []proc.Socket{tcp("127.0.0.1:8080", ""), tcp("127.0.0.1:50000", "127.0.0.1:1080"), udp("0.0.0.0:6881")},
	}
}

// tcp is a socket that is connected, or that listens.
func tcp(local, remote string) proc.Socket {
	s := proc.Socket{Local: netip.MustParseAddrPort(local), Listening: remote == ""}
	if remote != "" {
		s.Remote = netip.MustParseAddrPort(remote)
	}
	return s
}

func udp(local string) proc.Socket {
	return proc.Socket{UDP: true, Local: netip.MustParseAddrPort(local)}
}

// found returns the findings in short, sorted: leak:peers.
func found(all []Finding) string {
	var out []string
	for _, f := range all {
		out = append(out, f.Level.String()+":"+f.What)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestEachLeakIsNamed(t *testing.T) {
	qb, deluge, transmission := setup.QBittorrent, setup.Deluge, setup.Transmission
	for _, c := range []struct {
		name   string
		client setup.Client
		facts  func(f *Facts)
		want   string
	}{
		{"set up", qb, func(f *Facts) {}, ""},
		{"set up", deluge, func(f *Facts) {}, "leak:start"},
		{"inside shoal run", deluge, func(f *Facts) { f.Sandbox, f.Profile = true, setup.Profile{DHT: true} }, ""},
		{"not running, settings that can't be read", deluge, func(f *Facts) {
			f.Known, f.Running, f.Profile = false, false, setup.Profile{}
		}, "leak:start unknown:settings"},
		{"set up, with IPv6 here", qb, func(f *Facts) { f.IPv6 = true }, ""},
		{"the sidecar's host by name", qb, func(f *Facts) { f.Profile.ProxyAddr = "localhost:1080" }, ""},
		{"no proxy", qb, func(f *Facts) { f.Profile = setup.Profile{ChecksHTTPS: true} }, "leak:peers"},
		{"as installed", qb, func(f *Facts) {
			f.Profile = setup.Profile{DHT: true, DHTNames: true, LSD: true, UPnP: true, NATPMP: true, GeoIP: true, ChecksHTTPS: true, ControlPort: 8080}
			f.IPv6 = true
			f.Sockets = []proc.Socket{tcp("[::]:8080", ""), tcp("192.0.2.5:6881", ""), udp("0.0.0.0:6771"), udp("192.0.2.5:1900"), tcp("192.0.2.5:40000", "198.51.100.1:6881")}
		}, "leak:direct leak:dns leak:geoip leak:ipv6 leak:listen leak:lsd leak:nat-pmp leak:peers leak:upnp note:control"},
		{"another proxy", qb, func(f *Facts) { f.Profile.ProxyAddr = "127.0.0.1:9050" }, "leak:proxy leak:unchecked"},
		{"a port where nothing listens", qb, func(f *Facts) { f.Profile.ProxyAddr, f.ProxyAnswer = "127.0.0.1:1081", setup.Nobody }, "fault:proxy"},
		{"another sidecar", qb, func(f *Facts) { f.Profile.ProxyAddr, f.OtherProxy = "127.0.0.1:1090", true }, "unknown:proxy"},
		{"no sidecar", qb, func(f *Facts) { f.ProxyAnswer = setup.Nobody }, ""}, // the sidecar's findings say so
		{"no password", qb, func(f *Facts) { f.ProxyAnswer = setup.LoginMissing }, "fault:login"},
		{"a wrong password", deluge, func(f *Facts) { f.ProxyAnswer = setup.LoginRejected }, "fault:login leak:start"},
		{"::1 as the proxy's host", qb, func(f *Facts) { f.Profile.ProxyAddr = "[::1]:1080" }, "fault:proxy-host"},
		{"SOCKS4 at the sidecar", qb, func(f *Facts) { f.Profile.Proxy = "socks4" }, "leak:lsd leak:nat-pmp leak:proxy leak:upnp"},
		{"bound to an interface", qb, func(f *Facts) { f.Profile.Bound = "eth0" }, "fault:bound"},
		{"bound to an interface inside shoal run", transmission, func(f *Facts) { f.Sandbox, f.Profile = true, setup.Profile{Bound: "192.0.2.5"} }, "fault:bound"},
		{"bound to shoal run's own interface", qb, func(f *Facts) {
			f.Sandbox, f.Own, f.Profile = true, []string{"lo", "wg0", "10.2.0.2"}, setup.Profile{Bound: "10.2.0.2"}
		}, ""},
		{"no check of HTTPS trackers without the sidecar", qb, func(f *Facts) { f.Profile = setup.Profile{} }, "leak:peers leak:unchecked"},
		{"aria2 outside shoal run", setup.Aria2, func(f *Facts) { f.Profile, f.Sockets = setup.Profile{}, []proc.Socket{tcp("0.0.0.0:6881", "")} }, "leak:listen leak:peers"},
		{"rTorrent inside shoal run", setup.RTorrent, func(f *Facts) { f.Sandbox, f.Profile = true, setup.Profile{} }, ""},
		{"a proxy by a name", qb, func(f *Facts) { f.Profile.ProxyAddr, f.Profile.ChecksHTTPS = "proxy.example:1080", true }, "leak:proxy"},
		{"a proxy for HTTP", deluge, func(f *Facts) { f.Profile.Proxy = "http" }, "leak:lsd leak:nat-pmp leak:proxy leak:start leak:upnp"},
		{"peers past the proxy", qb, func(f *Facts) { f.Profile.PeersProxied = false }, "leak:lsd leak:nat-pmp leak:peers leak:upnp"},
		{"trackers past the proxy", deluge, func(f *Facts) { f.Profile.TrackersProxied = false }, "leak:start leak:trackers leak:unchecked"},
		{"names past the proxy", qb, func(f *Facts) { f.Profile.NamesProxied = false }, "leak:names"},
		{"the DHT from names", qb, func(f *Facts) { f.Profile.DHT, f.Profile.DHTNames = true, true }, "leak:dns"},
		{"the DHT from addresses", qb, func(f *Facts) { f.Profile.DHT = true }, ""},
		{"the DHT past the proxy", qb, func(f *Facts) { f.Profile = setup.Profile{DHT: true, ChecksHTTPS: true} }, "leak:dht leak:peers"},
		{"LSD's port held all the same", qb, func(f *Facts) { f.Sockets = append(f.Sockets, udp("0.0.0.0:6771")) }, "leak:lsd"},
		{"UPnP's port held all the same", qb, func(f *Facts) { f.Sockets = append(f.Sockets, udp("192.0.2.5:1900")) }, "leak:upnp"},
		{"somebody in LSD's group", qb, func(f *Facts) { f.Groups = []netip.Addr{netip.MustParseAddr("239.192.152.143")} }, "note:lsd"},
		{"countries and feeds past the proxy", qb, func(f *Facts) { f.Profile.OtherProxied, f.Profile.RSSProxied = false, false }, "leak:geoip leak:rss"},
		{"countries and feeds off", qb, func(f *Facts) {
			f.Profile.OtherProxied, f.Profile.RSSProxied, f.Profile.GeoIP, f.Profile.RSS = false, false, false, false
		}, ""},
		{"names of peers", qb, func(f *Facts) { f.Profile.ReverseDNS = true }, "leak:reverse-dns"},
		{"news of releases", deluge, func(f *Facts) { f.Profile.Fetches = []string{"new_release_check", "send_info"} }, "leak:fetch leak:fetch leak:start"},
		{"a listener on all interfaces", qb, func(f *Facts) { f.Sockets = append(f.Sockets, tcp("0.0.0.0:6881", "")) }, "leak:listen"},
		{"a listener over IPv6", qb, func(f *Facts) { f.Sockets = append(f.Sockets, tcp("[::]:6881", "")) }, "leak:listen"},
		{"a listener on loopback", qb, func(f *Facts) { f.Sockets = append(f.Sockets, tcp("127.0.0.1:6881", "")) }, ""},
		{"its page on all interfaces", qb, func(f *Facts) { f.Sockets = []proc.Socket{tcp("0.0.0.0:8080", "")} }, "note:control"},
		{"somebody at its page", qb, func(f *Facts) { f.Sockets = append(f.Sockets, tcp("192.0.2.5:8080", "192.0.2.9:40000")) }, ""},
		{"a connection past the sidecar", qb, func(f *Facts) { f.Sockets = append(f.Sockets, tcp("192.0.2.5:40000", "198.51.100.1:443")) }, "leak:direct"},
		{"a sidecar on another computer", qb, func(f *Facts) {
			f.SOCKS = netip.MustParseAddrPort("192.0.2.9:1080")
			f.Profile.ProxyAddr = "192.0.2.9:1080"
			f.Sockets = []proc.Socket{tcp("192.0.2.5:40000", "192.0.2.9:1080")}
		}, ""},
		{"HTTPS trackers", qb, func(f *Facts) { f.Profile.ChecksHTTPS = true }, "note:https"},
		{"it does not run", qb, func(f *Facts) { f.Running, f.Sight, f.Sockets = false, Nothing, nil }, "note:idle"},
		{"no sockets on this system", qb, func(f *Facts) { f.Sight, f.Sockets = Nothing, nil }, "note:sockets"},
		{"another user's", qb, func(f *Facts) { f.Sight, f.Sockets = Denied, nil }, "unknown:sockets"},
		{"settings that can't be read", qb, func(f *Facts) { f.Known, f.Profile = false, setup.Profile{} }, "unknown:settings"},
		{"settings that can't be read, and a listener", qb, func(f *Facts) {
			f.Known, f.Profile, f.Sockets = false, setup.Profile{}, []proc.Socket{tcp("0.0.0.0:6881", "")}
		}, "leak:listen unknown:settings"},
		{"outside shoal run", transmission, func(f *Facts) {
			f.Profile = setup.Profile{DHT: true, DHTNames: true, TellsIPv6: true, ChecksHTTPS: true, ControlPort: 9091}
			f.IPv6 = true
			f.Sockets = []proc.Socket{tcp("0.0.0.0:9091", ""), tcp("0.0.0.0:51413", ""), udp("0.0.0.0:51413")}
		}, "leak:dns leak:ipv6 leak:listen leak:peers note:control"},
		{"inside shoal run", transmission, func(f *Facts) {
			f.Sandbox, f.Profile = true, setup.Profile{DHT: true, DHTNames: true, LSD: true, UPnP: true, TellsIPv6: true, ChecksHTTPS: true}
			f.Sockets = []proc.Socket{tcp("0.0.0.0:51413", ""), tcp("10.64.0.2:40000", "198.18.0.1:6881")}
		}, ""},
		{"inside shoal run with a proxy", qb, func(f *Facts) { f.Sandbox = true }, "fault:proxy"},
		{"inside shoal run with settings that can't be read", qb, func(f *Facts) { f.Sandbox, f.Known = true, false }, ""},
	} {
		f := healthy(c.client)
		c.facts(&f)
		all := Judge(f)
		if got := found(all); got != c.want {
			t.Errorf("%v, %s: got %q, want %q", c.client.Name(), c.name, got, c.want)
		}
		if clean := !strings.Contains(c.want, "leak:") && !strings.Contains(c.want, "fault:") && !strings.Contains(c.want, "unknown:"); Clean(all) != clean {
			t.Errorf("%v, %s: clean is %v", c.client.Name(), c.name, !clean)
		}
		for i, f := range all {
			if f.Says == "" || f.Level >= Fault && f.Close == "" {
				t.Errorf("%v, %s: %s says %q, and is closed by %q", c.client.Name(), c.name, f.What, f.Says, f.Close)
			}
			if i > 0 && f.Level > all[i-1].Level {
				t.Errorf("%v, %s: %s comes after what is not as bad", c.client.Name(), c.name, f.What)
			}
		}
	}
}

func TestTheSidecarIsJudged(t *testing.T) {
	for _, c := range []struct {
		name    string
		sidecar Sidecar
		want    string
		says    string // a part of it
	}{
		{"all is well", Sidecar{Answer: setup.Served, Page: true, Ready: true}, "", ""},
		{"with a password", Sidecar{Answer: setup.LoginMissing, Page: true, Ready: true}, "", ""},
		{"not ready", Sidecar{Answer: setup.Served, Page: true, Why: "too few relays"}, "fault:sidecar", "too few relays"},
		{"not there", Sidecar{Answer: setup.Nobody}, "fault:sidecar", "shoal proxy --network"},
		{"not there, but elsewhere", Sidecar{Answer: setup.Nobody, Others: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1090")}}, "fault:sidecar", "127.0.0.1:1090"},
		{"not there, another's page", Sidecar{Answer: setup.Nobody, Page: true, Ready: true}, "fault:sidecar", "nothing listens"},
		{"it refused clients", Sidecar{Answer: setup.Served, Page: true, Ready: true, Refused: map[string]uint64{"socks4": 3, "web": 9}}, "note:refused", "3 times: SOCKS4"},
		{"out of reach", Sidecar{Answer: setup.Silence}, "fault:sidecar", "can't be reached"},
		{"a web server", Sidecar{Answer: setup.Foreign, Holder: "nginx (pid 7)"}, "fault:sidecar", "nginx (pid 7)"},
		{"another program's proxy", Sidecar{Answer: setup.Served, Holder: "tor (pid 7)"}, "unknown:sidecar", "tor (pid 7)"},
	} {
		c.sidecar.SOCKS = socks
		all := JudgeSidecar(c.sidecar)
		if got := found(all); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		for _, f := range all {
			if !strings.Contains(f.Says+f.Close, c.says) {
				t.Errorf("%s: %q, %q, want %q in it", c.name, f.Says, f.Close, c.says)
			}
		}
	}
}

func TestClientsThatShareASidecarAreNamed(t *testing.T) {
	for _, c := range []struct {
		users []User
		want  string
	}{
		{nil, ""},
		{[]User{{"qBittorrent, pid 7", ""}}, ""},
		{[]User{{"qBittorrent, pid 7", "a"}, {"Deluge, pid 8", "b"}}, ""},
		{[]User{{"qBittorrent, pid 7", ""}, {"Deluge, pid 8", "b"}}, ""},
		{[]User{{"qBittorrent, pid 7", ""}, {"Deluge, pid 8", ""}}, "note:shared"},
		{[]User{{"qBittorrent, pid 7", "a"}, {"Deluge, pid 8", "a"}, {"qBittorrent, pid 9", ""}}, "fault:shared"},
	} {
		all := JudgeUsers(socks, c.users)
		if got := found(all); got != c.want {
			t.Errorf("%v: got %q, want %q", c.users, got, c.want)
		}
		for _, f := range all {
			if !strings.Contains(f.Says, "pid 7") || !strings.Contains(f.Says, "pid 8") {
				t.Errorf("%v: %q", c.users, f.Says)
			}
		}
	}
}

func TestNoAddressOfAPeerIsReported(t *testing.T) {
	f := healthy(setup.QBittorrent)
	f.Sockets = append(f.Sockets, tcp("192.0.2.5:40000", "198.51.100.77:6881"), tcp("192.0.2.5:6881", ""))
	for _, f := range Judge(f) {
		if text := f.Says + f.Close; strings.Contains(text, "198.51") || strings.Contains(text, "192.0.2") {
			t.Error(text)
		}
	}
}
