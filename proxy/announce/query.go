package announce

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// question is what a request asks for.
type question struct {
	scrape  bool
	hashes  []swarm.Hash // of a scrape; an announce has one
	request Request      // of an announce
	plain   bool         // peers as a list of dictionaries (BEP 3), not compact (BEP 23)
	six     bool         // the client has IPv6 and looks for peers6 (BEP 7)

	peerID, port bool // were there, whatever they held
}

// errNoHash means that a request has nothing to do with a tracker.
var errNoHash = errors.New("announce: no info_hash")

// parse reads the target of a request for a tracker: any path, then a query.
// A value that can't be used counts as missing, as trackers of long standing
// have it; of several the last that can be used counts. Any error but errNoHash
// is words for the client's user.
//
// A query is split here rather than by net/url: what this package doesn't read
// may be encoded as badly as it likes.
func parse(target string) (question, error) {
	path, query, _ := strings.Cut(target, "?")
	q := question{request: Request{Left: Unknown, NumWant: -1}}
	var bad error
	for query != "" {
		var key, value string
		key, value, query = cutPair(query)
		if err := q.take(key, value); err != nil && bad == nil {
			bad = err
		}
	}
	switch {
	case len(q.hashes) > 0:
	case bad != nil:
		return question{}, bad
	default:
		return question{}, errNoHash
	}
	q.scrape = !q.announces(path)
	q.request.Hash = q.hashes[0]
	for _, h := range q.hashes {
		if !q.scrape && h != q.request.Hash {
			return question{}, errors.New("different info_hashes in one announce")
		}
	}
	return q, nil
}

// cutPair cuts the first pair off a query. A second "?" separates as "&" does:
// clients append "?info_hash=…" to a tracker's address that has a query already.
func cutPair(query string) (key, value, rest string) {
	pair, rest, _ := strings.Cut(query, "&")
	key, value, _ = strings.Cut(pair, "=")
	if key == "info_hash" { // its bytes may be a "?"
		return key, value, rest
	}
	if i := strings.IndexByte(pair, '?'); i >= 0 {
		key, value, _ = strings.Cut(query[:i], "=")
		rest = query[i+1:]
	}
	return key, value, rest
}

// announces reports whether the request is an announce. Those have a peer_id
// and a port, scrapes (BEP 48) have neither, and the path may be the same: what
// a client scrapes is often no more than its guess. The path decides only where
// one of the two is missing.
func (q *question) announces(path string) bool {
	if q.peerID == q.port {
		return q.peerID
	}
	return !strings.HasPrefix(path[strings.LastIndexByte(path, '/')+1:], "scrape")
}

// take reads one pair of the query. Keys that it doesn't name are not looked at.
func (q *question) take(key, value string) error {
	r := &q.request
	switch key {
	case "info_hash":
		h, err := parseHash(value)
		if err != nil {
			return err
		}
		q.hashes = append(q.hashes, h)
	case "peer_id":
		q.peerID = true
	case "port":
		q.port = true
		if n, err := strconv.ParseUint(value, 10, 16); err == nil {
			r.Port = listens(uint16(n))
		}
	case "left":
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			r.Left = left(n)
		}
	case "numwant":
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			r.NumWant = int(min(max(n, -1), MaxPeers))
		}
	case "event":
		if e, ok := events[value]; ok {
			r.Event = e
		}
	case "compact":
		q.plain = value == "0"
	case "ipv6":
		q.six = true // the address itself is not read
	}
	return nil
}

// events are the ones that matter here. Others, "paused" (BEP 21) among them,
// are announces like any.
var events = map[string]swarm.Event{
	"started":   swarm.Started,
	"completed": swarm.Completed,
	"stopped":   swarm.Stopped,
}

// listens returns where a client that announced port can be dialled: 0 is
// nowhere, and libtorrent announces 1 when it has no listener.
func listens(port uint16) uint16 {
	if port == 1 {
		return 0
	}
	return port
}

// left returns the bytes that a client which announced n lacks. More than a
// signed number holds is a negative one, by which clients say that they don't know.
func left(n uint64) uint64 {
	if n > math.MaxInt64 {
		return Unknown
	}
	return n
}

// parseHash reads the raw 20 bytes of an info_hash, %-encoded.
func parseHash(value string) (h swarm.Hash, err error) {
	if len(value) > 3*len(h) {
		return h, fmt.Errorf("info_hash of %d characters, at most %d", len(value), 3*len(h))
	}
	raw, err := url.QueryUnescape(value)
	if err != nil {
		return h, errors.New("info_hash is badly encoded")
	}
	if len(raw) != len(h) {
		return h, fmt.Errorf("info_hash of %d bytes, want %d", len(raw), len(h))
	}
	copy(h[:], raw)
	return h, nil
}
