package status

import (
	"sync/atomic"
	"time"
)

// Reason is why the sidecar did not do what a client or a peer wanted.
type Reason uint8

// The reasons. Their names are part of /status.json and /metrics: they are
// added to, never changed.
const (
	BitTorrent     Reason = iota // a peer's handshake to an address that is no stand-in
	TLS                          // encrypted, and for a name that can't be a tracker's, or the handshake failed
	Certificate                  // the client did not take the local authority's certificate
	WebSeed                      // part of a file from a web server
	Web                          // any other web request: feeds, updates, GeoIP
	Silent                       // nothing that can be read came in time
	Unreadable                   // neither of those above
	UnknownStandIn               // a stand-in that stands for nobody
	Unreachable                  // a peer that no circuit reaches
	WrongSwarm                   // a handshake for another torrent than the stream's
	NotBitTorrent                // a peer stream that doesn't start as one
	NotProxied                   // an announce of a client whose peers don't use the proxy
	Datagram                     // a UDP packet that is no tracker's, DHT's or stand-in's
	DHTLimit                     // more new torrents from the DHT than an hour allows
	Command                      // a SOCKS command that isn't served: BIND, RESOLVE_PTR
	Password                     // a wrong SOCKS user or password
	Full                         // more of something than the sidecar's limits allow
	ForeignHost                  // this page asked for under a name that isn't this computer's
	NoPassword                   // a SOCKS client that offers no password, where one is needed
	SOCKS4                       // a client whose proxy type is SOCKS4
	HTTPProxy                    // a client whose proxy type is HTTP
	System                       // a socket that the operating system refused
	NotReady                     // something asked of the sidecar before it was ready
	NoTracker                    // an announce that no tracker answered
	NoWayIn                      // a peer that came, and no way into the client
	reasons        = iota
)

// word is what a Reason is called, by programs and to people: what it was, and
// what the user can change where there is anything.
type word struct{ name, text string }

var words = [reasons]word{
	BitTorrent:     {"bittorrent", "Peer connections to real addresses. Shoal only carries peers that use Shoal too. Nothing needs to be changed."},
	TLS:            {"tls", "Encrypted connections that can't be read, so can't be checked to be for a tracker. Switch off what else the client does over HTTPS."},
	Certificate:    {"certificate", "HTTPS trackers whose certificate from Shoal the client doesn't trust. The torrent's other trackers work. See HTTPS trackers in docs/running.md."},
	WebSeed:        {"web_seed", "Web seeds: fetching them would show this computer's address. Nothing needs to be changed."},
	Web:            {"web", "Web requests that are no announce. Switch off the client's feeds, search, update checks and GeoIP."},
	Silent:         {"silent", "Connections on which no request came within ten seconds."},
	Unreadable:     {"unreadable", "Connections that are neither web nor BitTorrent, or encrypted BitTorrent to real addresses."},
	UnknownStandIn: {"unknown_standin", "Addresses from an earlier session that stand for nobody now. The client's next announce brings new ones."},
	Unreachable:    {"unreachable", "Peers that could not be reached. The client tries them again."},
	WrongSwarm:     {"wrong_swarm", "Peers that asked for another torrent than the one they were found in."},
	NotBitTorrent:  {"not_bittorrent", "Peer connections that did not start as BitTorrent."},
	NotProxied:     {"not_proxied", `Announces of a client that does not send its peer connections through the proxy. Tick "Use proxy for peer connections" in its settings.`},
	Datagram:       {"datagram", "UDP packets that are for no tracker, DHT node or stand-in."},
	DHTLimit:       {"dht_limit", "Torrents without a tracker beyond 20 new ones an hour. Add a tracker to them, or wait."},
	Command:        {"command", "SOCKS commands that Shoal doesn't serve. Torrent clients need none of them."},
	Password:       {"password", "SOCKS clients with a wrong user name or password. Give the client the password of --socks-password-file."},
	Full:           {"full", "More connections, torrents or clients at once than Shoal's limits allow. Lower the client's limit of connections."},
	ForeignHost:    {"foreign_host", "Requests for this page under a name that isn't this computer's. Open it as http://127.0.0.1 or http://localhost."},
	NoPassword:     {"no_password", "SOCKS clients that gave no user name and password, where Shoal was started with --socks-password-file. Give them to the client."},
	SOCKS4:         {"socks4", "SOCKS4 connections. Shoal speaks SOCKS5: set that type in the client."},
	HTTPProxy:      {"http_proxy", "Requests to an HTTP proxy. Shoal is a SOCKS5 proxy: set that type in the client."},
	System:         {"system", "Sockets that the operating system refused. Raise the limit of open files: ulimit -n in a shell, LimitNOFILE= in a systemd unit."},
	NotReady:       {"not_ready", "Announces and peer connections while Shoal was not ready. The client tries again by itself."},
	NoTracker:      {"no_tracker", "Announces that no tracker answered. The client announces again by itself."},
	NoWayIn:        {"no_way_in", "Peers that came and found no way into the client. Let it listen for connections, and its peer connections go through the proxy."},
}

// String returns r's name in /status.json and /metrics.
func (r Reason) String() string {
	if r < reasons {
		return words[r].name
	}
	return "unknown"
}

// Text returns r in words for a person.
func (r Reason) Text() string {
	if r < reasons {
		return words[r].text
	}
	return "Something else."
}

// advice is what the user has to change in a client, for the Reasons that the
// client makes again and again until then.
var advice = map[Reason]string{
	NotProxied: `A client announces but keeps its peers out of the proxy: tick "Use proxy for peer connections" in its settings.`,
	Password:   "A client gives a wrong password: enter the one that Shoal was started with in the client's proxy settings.",
	NoPassword: "A client gives no user name and password: in its proxy settings turn authentication on, with any user name and the password that Shoal was started with.",
	SOCKS4:     "A client uses Shoal as a SOCKS4 proxy: set the proxy type to SOCKS5 in its settings.",
	HTTPProxy:  "A client, or another program, uses Shoal as an HTTP proxy: set the proxy type to SOCKS5 in its settings.",
}

// adviceFor is how long after such a refusal the advice is shown.
const adviceFor = 10 * time.Minute

// Counters counts refusals. The zero value is ready; it is safe for concurrent use.
type Counters struct {
	Told func(Reason) // called for each; nil: nobody. Set before the first
	n    [reasons]atomic.Uint64
	last [reasons]atomic.Int64 // when, in Unix seconds
}

// Advice returns what the user has to change, by what was refused lately.
func (c *Counters) Advice(now time.Time) (out []string) {
	for r := range Reason(reasons) {
		if text := advice[r]; text != "" && now.Unix()-c.last[r].Load() < int64(adviceFor/time.Second) {
			out = append(out, text)
		}
	}
	return out
}

// Add counts one refusal.
func (c *Counters) Add(r Reason) {
	if r < reasons {
		c.n[r].Add(1)
		c.last[r].Store(time.Now().Unix())
		if c.Told != nil {
			c.Told(r)
		}
	}
}

// Counts returns the number of each Reason by its name. All are there.
func (c *Counters) Counts() map[string]uint64 {
	m := make(map[string]uint64, reasons)
	for r := range Reason(reasons) {
		m[r.String()] = c.n[r].Load()
	}
	return m
}
