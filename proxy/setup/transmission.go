package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Transmission is Transmission, its daemon or its window.
var Transmission = register(transmission{})

type transmission struct{}

func (transmission) Name() string    { return "transmission" }
func (transmission) Title() string   { return "Transmission" }
func (transmission) NoSOCKS() string { return "it has no SOCKS setting for its peers" }
func (transmission) Start() string   { return "" }
func (transmission) Command() string { return "transmission-daemon --foreground" }
func (transmission) format() format  { return objectFormat{} }

func (transmission) programs() []string {
	return []string{"transmission-daemon", "transmission-gtk", "transmission-qt", "Transmission"} // the last on macOS
}

func (transmission) Remedy(finding string) string {
	return map[string]string{
		"lsd":      "Preferences › Network: local peer discovery off (lpd-enabled); or shoal run",
		"upnp":     "Preferences › Network: port forwarding off (port-forwarding-enabled); or shoal run",
		"nat-pmp":  "Preferences › Network: port forwarding off (port-forwarding-enabled); or shoal run",
		"bound":    "close it and set bind-address-ipv4 to 0.0.0.0 in settings.json",
		"settings": "run doctor as the user it runs as, or give --login",
	}[finding]
}

func (transmission) file(program string, args []string, env func(string) string, in places) string {
	if dir := first(option(args, "--config-dir", "-g"), env("TRANSMISSION_HOME")); dir != "" {
		return filepath.Join(dir, "settings.json")
	}
	if program == "transmission-daemon" {
		return transmissionFile(in, "transmission-daemon")
	}
	return transmissionFile(in, "transmission")
}

func (transmission) candidates(in places) (own, service []string) {
	own = []string{transmissionFile(in, "transmission-daemon"), transmissionFile(in, "transmission")}
	if in.os == "linux" {
		service = []string{"/etc/transmission-daemon/settings.json", "/var/lib/transmission-daemon/info/settings.json"}
	}
	return append(own, in.flatpak("com.transmissionbt.Transmission", "transmission", "settings.json")...), service
}

func transmissionFile(in places, folder string) string {
	if in.os == "windows" {
		return filepath.Join(in.local, folder, "settings.json")
	}
	return filepath.Join(in.config, folder, "settings.json")
}

func (transmission) address(i Instance, file settings) string { return transmissionURL(file) }

func (transmission) open(at string, i Instance) (api, error) {
	return &transmissionAPI{url: at, user: i.access.User, password: i.access.Password, http: newHTTP(at)}, nil
}

func (transmission) changes(s seen, w Want) []Change { return transmissionChanges(s, w) }

func (transmission) fileNames(name string, file settings) []string {
	return []string{transmissionName(file, name)}
}

func (transmission) profile(s seen) Profile { return transmissionProfile(s) }

func (c transmission) notes(s seen, w Want) []string {
	all := []string{
		runOnly(c),
		"Its DHT stays as it is: shoal run answers it.",
	}
	return append(all, boundNotes(c.profile(s), w)...)
}

// Transmission's settings have the same names over its RPC and in
// settings.json, with hyphens up to 4; files of 5 have underscores.

// transmissionWishes make it fit for shoal run. Nothing else makes it safe, since
// it has no SOCKS for its peers.
var transmissionWishes = []wish{
	{"utp-enabled", false}, // it would wait a minute for µTP before it tries TCP
	{"lpd-enabled", false},
	{"port-forwarding-enabled", false},
}

// transmissionTransports overrides utp-enabled where it exists, from 4.1.
const transmissionTransports = "preferred-transports"

// transmissionBinds are the settings that bind it to an address, with what they
// are when they don't. The RPC does not show them.
var transmissionBinds = map[string]string{"bind-address-ipv4": "0.0.0.0", "bind-address-ipv6": "::"}

// transmissionChanges returns what has to change in Transmission's settings.
func transmissionChanges(seen seen, w Want) []Change {
	s := seen.now()
	var all []wish
	for name, free := range transmissionBinds {
		name = transmissionName(s, name)
		if !w.KeepBound && bound(s.text(name)) != "" {
			all = append(all, wish{name, free})
		}
	}
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

// transmissionProfile returns what Transmission's settings mean; what is not in
// them has Transmission's default.
func transmissionProfile(seen seen) Profile {
	s := seen.now()
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
	for name := range transmissionBinds {
		p.Bound = first(p.Bound, bound(seen.file.text(transmissionName(seen.file, name))))
	}
	if is("rpc-enabled", true) {
		p.Control, p.ControlPort = "RPC", transmissionPort(s)
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

// transmissionAPI is Transmission's RPC.
type transmissionAPI struct {
	url            string
	user, password string
	http           *http.Client
	session        string // Transmission's guard against other sites' pages
}

func (t *transmissionAPI) read(ctx context.Context) (settings, error) {
	b, err := t.call(ctx, "session-get", nil)
	if err != nil {
		return nil, err
	}
	s := make(settings)
	return s, s.add("", b)
}

func (t *transmissionAPI) write(ctx context.Context, all []Change) error {
	s := make(settings)
	for _, c := range all {
		s[c.Name] = c.New
	}
	_, err := t.call(ctx, "session-set", s)
	return err
}

func (t *transmissionAPI) call(ctx context.Context, method string, arguments settings) (json.RawMessage, error) {
	body := value(map[string]any{"method": method, "arguments": arguments})
	for range 2 {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("setup: %w", err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Transmission-Session-Id", t.session)
		if t.user != "" || t.password != "" {
			r.SetBasicAuth(t.user, t.password)
		}
		resp, b, err := send(t.http, r)
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusConflict:
			t.session = resp.Header.Get("X-Transmission-Session-Id")
			continue
		case http.StatusUnauthorized:
			return nil, ErrLogin
		case http.StatusOK:
		default:
			return nil, fmt.Errorf("setup: Transmission answers with %d", resp.StatusCode)
		}
		return parseTransmissionAnswer(method, b)
	}
	return nil, errors.New("setup: Transmission accepts none of the session ids that it gives")
}

// parseTransmissionAnswer returns the arguments of an answer to a method.
func parseTransmissionAnswer(method string, b []byte) (json.RawMessage, error) {
	var answer struct {
		Result    string          `json:"result"`
		Arguments json.RawMessage `json:"arguments"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, fmt.Errorf("setup: Transmission's answer to %s: %w", method, err)
	}
	if answer.Result != "success" {
		return nil, fmt.Errorf("setup: Transmission's answer to %s: %.200q", method, answer.Result)
	}
	return answer.Arguments, nil
}
