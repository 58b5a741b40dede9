package setup

import (
	"path/filepath"
	"strconv"
)

// BiglyBT is BiglyBT, with or without its window.
var BiglyBT = register(biglyBT{})

// biglyBT has SOCKS for its peers, but it is no way for Shoal: behind a proxy,
// 3.2 on Java 17 looks up trackers' names in the system's DNS, announces itself
// by multicast before it reads settings, and can't be reached by peers.
type biglyBT struct{}

func (biglyBT) Name() string  { return "biglybt" }
func (biglyBT) Title() string { return "BiglyBT" }

func (biglyBT) NoSOCKS() string {
	return "its SOCKS setting leaves the names of trackers to the system's DNS and announces it in the local network"
}

func (biglyBT) Start() string      { return "" }
func (biglyBT) Command() string    { return "biglybt" }
func (biglyBT) programs() []string { return []string{"com.biglybt.ui.Main", "BiglyBT"} } // Java's main class, and elsewhere than on Linux
func (biglyBT) format() format     { return bencodeFormat{} }

func (biglyBT) Remedy(finding string) string {
	return map[string]string{
		"bound":    "Tools › Options › Connection › Advanced Network Settings: Bind to local IP address or interface empty",
		"settings": "run doctor as the user it runs as",
	}[finding]
}

func (biglyBT) file(program string, args []string, env func(string) string, in places) string {
	if dir := option(args, "-Dazureus.config.path", ""); dir != "" {
		return filepath.Join(dir, "biglybt.config")
	}
	own, _ := biglyBT{}.candidates(in)
	return own[0]
}

func (biglyBT) candidates(in places) (own, service []string) {
	switch in.os {
	case "windows":
		return []string{filepath.Join(in.config, "BiglyBT", "biglybt.config")}, nil
	case "darwin":
		return []string{filepath.Join(in.home, "Library", "Application Support", "BiglyBT", "biglybt.config")}, nil
	}
	return []string{filepath.Join(in.home, ".biglybt", "biglybt.config")}, []string{"/var/lib/biglybt/config/biglybt.config"}
}

// While it runs it has no interface by which settings can be changed.
func (biglyBT) address(Instance, settings) string          { return "" }
func (biglyBT) open(string, Instance) (api, error)         { return nil, errNoAPI }
func (biglyBT) fileNames(name string, _ settings) []string { return []string{name} }

// The settings, which are 0 or 1 but for the text biglyBTBind. Those of plugins
// have the plugin's name.
const (
	biglyBTProxy     = "Enable.Proxy"      // for trackers and all else
	biglyBTPeerProxy = "Proxy.Data.Enable" // for peers
	biglyBTBind      = "Bind IP"
	biglyBTUPnP      = "Plugin.UPnP.upnp.enable"
	biglyBTNATPMP    = "Plugin.UPnP.natpmp.enable"
	biglyBTLAN       = "Plugin.azlocaltracker.Plugin.localtracker.enable"
	biglyBTDHT       = "Plugin.azbpdht.dht.enabled"
)

func (biglyBT) on(s settings, name string, byDefault bool) bool {
	if !s.has(name) {
		return byDefault
	}
	return s.number(name) != 0
}

// changes makes it fit for shoal run: no proxy answers there, and there is
// neither a router nor another interface.
func (c biglyBT) changes(seen seen, w Want) []Change {
	s := seen.now()
	var all []wish
	for _, name := range []string{biglyBTProxy, biglyBTPeerProxy, biglyBTNATPMP, biglyBTUPnP} {
		if c.on(s, name, name == biglyBTUPnP) {
			all = append(all, wish{name, 0})
		}
	}
	if !w.KeepBound && bound(s.text(biglyBTBind)) != "" {
		all = append(all, wish{biglyBTBind, ""})
	}
	return s.changes(all)
}

func (c biglyBT) profile(seen seen) Profile {
	s := seen.now()
	p := Profile{
		DHT: c.on(s, biglyBTDHT, true), DHTNames: true,
		LSD:  c.on(s, biglyBTLAN, true),
		UPnP: c.on(s, biglyBTUPnP, true), NATPMP: c.on(s, biglyBTNATPMP, false),
		Bound: bound(s.text(biglyBTBind)), ChecksHTTPS: true,
	}
	if c.on(s, biglyBTProxy, false) || c.on(s, biglyBTPeerProxy, false) {
		kind := "http"
		if c.on(s, "Enable.SOCKS", false) || c.on(s, biglyBTPeerProxy, false) {
			kind = "socks5"
		}
		port, _ := strconv.Atoi(s.text("Proxy.Port")) // a text
		p.proxied(kind, s.text("Proxy.Host"), port)
	}
	return p
}

func (c biglyBT) notes(s seen, w Want) []string {
	return append([]string{runOnly(c)}, boundNotes(c.profile(s), w)...)
}
