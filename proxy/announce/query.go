package announce

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// question is what a request's path and query ask for.
type question struct {
	scrape  bool
	hashes  []swarm.Hash // of a scrape
	request Request      // of an announce
	plain   bool         // peers as a list of dictionaries (BEP 3), not compact (BEP 23)
	six     bool         // the client has IPv6 and looks for peers6 (BEP 7)
}

// errNoHash means that a request has nothing to do with a tracker.
var errNoHash = errors.New("announce: no info_hash")

// parse reads the path and raw query of a request for a tracker. Any path will
// do: one whose last element starts with "scrape" is a scrape (BEP 48). Any
// other error than errNoHash is words for the client's user.
//
// A query is split here rather than by net/url: what this package doesn't read
// may be encoded as badly as it likes.
func parse(path, query string) (question, error) {
	q := question{
		scrape:  strings.HasPrefix(path[strings.LastIndexByte(path, '/')+1:], "scrape"),
		request: Request{Left: Unknown, NumWant: -1},
	}
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(pair, "=")
		if err := q.take(key, value); err != nil {
			return question{}, err
		}
	}
	if len(q.hashes) == 0 {
		return question{}, errNoHash
	}
	q.request.Hash = q.hashes[0]
	if !q.scrape && len(q.hashes) > 1 {
		return question{}, errors.New("more than one info_hash in one announce")
	}
	return q, nil
}

// take reads one pair of the query. Keys that it doesn't name are not looked at.
func (q *question) take(key, value string) (err error) {
	r := &q.request
	switch key {
	case "info_hash":
		h, err := parseHash(value)
		if err != nil {
			return err
		}
		if len(q.hashes) == MaxHashes {
			return fmt.Errorf("more than %d info_hash in one request", MaxHashes)
		}
		q.hashes = append(q.hashes, h)
	case "port":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return errors.New("port is no number from 0 to 65535")
		}
		r.Port = listens(uint16(n))
	case "left":
		if value == "-1" { // how some say that they don't know yet
			return nil
		}
		if r.Left, err = strconv.ParseUint(value, 10, 64); err != nil {
			return errors.New("left is no number")
		}
	case "numwant":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return errors.New("numwant is no number")
		}
		r.NumWant = int(min(max(n, -1), MaxPeers))
	case "event":
		r.Event = events[value]
	case "compact":
		q.plain = value == "0"
	case "ipv6":
		q.six = true // which address is nobody's business
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
// nowhere, and libtorrent says 1 when it has no listener.
func listens(port uint16) uint16 {
	if port == 1 {
		return 0
	}
	return port
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
