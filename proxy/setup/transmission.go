package setup

import (
	"encoding/json"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Transmission's settings have the same names over its RPC and in
// settings.json, with hyphens up to 4; files of 5 have underscores.

// transmissionWishes make it fit for shoal run: it has no SOCKS for its peers,
// so nothing else makes it safe.
var transmissionWishes = []wish{
	{"utp-enabled", false}, // it would wait a minute for µTP before it tries TCP
	{"lpd-enabled", false},
	{"port-forwarding-enabled", false},
}

// transmissionTransports overrides utp-enabled where it exists, from 4.1.
const transmissionTransports = "preferred-transports"

// transmissionChanges returns what has to change in Transmission's settings.
func transmissionChanges(s settings) []Change {
	var all []wish
	for _, w := range transmissionWishes {
		all = append(all, wish{transmissionName(s, w.name), w.value})
	}
	if name := transmissionName(s, transmissionTransports); s.has(name) {
		var now []string
		if json.Unmarshal(s[name], &now) != nil || len(now) != 1 || now[0] != "tcp" {
			all = append(all, wish{name, []string{"tcp"}})
		}
	}
	return s.changes(all)
}

// transmissionName returns the name that a setting has in s.
func transmissionName(s settings, name string) string {
	if s.has("peer_port", "rpc_port", "dht_enabled") {
		return strings.ReplaceAll(name, "-", "_")
	}
	return name
}

// transmissionProfile says what Transmission's settings mean; what is not in
// them has Transmission's default.
func transmissionProfile(s settings) Profile {
	is := func(name string, byDefault bool) bool { return s.is(transmissionName(s, name), byDefault) }
	p := Profile{
		DHT:         is("dht-enabled", true),
		DHTNames:    true, // there is no setting for its first nodes
		LSD:         is("lpd-enabled", false),
		UPnP:        is("port-forwarding-enabled", true),
		NATPMP:      is("port-forwarding-enabled", true), // one switch for both
		ChecksHTTPS: true,                                // there is no setting in the file
		TellsIPv6:   true,
	}
	if is("rpc-enabled", true) {
		p.ControlPort = transmissionPort(s)
	}
	if is("blocklist-enabled", false) {
		p.Fetches = append(p.Fetches, transmissionName(s, "blocklist-enabled"))
	}
	return p
}

func transmissionPort(s settings) int {
	if n := s.number(transmissionName(s, "rpc-port")); n != 0 {
		return n
	}
	return 9091
}

// transmissionURL returns where the RPC is, "" when there is none.
func transmissionURL(s settings) string {
	if !s.is(transmissionName(s, "rpc-enabled"), true) {
		return ""
	}
	host := "127.0.0.1"
	if a, err := netip.ParseAddr(s.text(transmissionName(s, "rpc-bind-address"))); err == nil && !a.IsUnspecified() {
		host = a.String()
	}
	path := s.text(transmissionName(s, "rpc-url"))
	if path == "" {
		path = "/transmission/"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(transmissionPort(s))) + strings.TrimSuffix(path, "/") + "/rpc"
}
