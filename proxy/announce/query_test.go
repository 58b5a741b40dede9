package announce

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// base is what every announce holds.
const base = "info_hash=" + hash + "&peer_id=-XX0100-abcdefghijkl&port=6881"

func TestParseReadsWhatMattersAndTakesTheRestForMissing(t *testing.T) {
	usual := Request{Hash: swarm.Hash([]byte(hash)), Port: 6881, Left: Unknown, NumWant: -1}
	port := func(n uint16) Request { r := usual; r.Port = n; return r }
	left := func(n uint64) Request { r := usual; r.Left = n; return r }
	numwant := func(n int) Request { r := usual; r.NumWant = n; return r }
	event := func(e swarm.Event) Request { r := usual; r.Event = e; return r }
	for query, want := range map[string]Request{
		"":            usual,
		"&port=6882":  port(6882),
		"&port=65535": port(65535),
		"&port=1":     port(0),
		"&port=0":     port(0),

		"&left=0":                       left(0),
		"&left=5":                       left(5),
		"&left=5&left=":                 left(5),
		"&left=NaN&left=5":              left(5),
		"&left=":                        usual,
		"&left":                         usual,
		"&left=undefined":               usual,
		"&left=NaN":                     usual,
		"&left=Infinity":                usual,
		"&left=-1":                      usual,
		"&left=-16384":                  usual,
		"&left=18446744073709551615":    usual,
		"&left=9223372036854775807":     left(math.MaxInt64),
		"&left=9223372036854775808":     usual, // -1 and the like, printed without their sign
		"&left=99999999999999999999999": usual,
		"&left=1e9":                     usual,

		"&numwant=80":                      numwant(80),
		"&numwant=0":                       numwant(0),
		"&numwant=80&numwant=undefined":    numwant(80),
		"&numwant=9999":                    numwant(MaxPeers),
		"&numwant=-80":                     usual,
		"&numwant=":                        usual,
		"&numwant":                         usual,
		"&numwant=undefined":               usual,
		"&numwant=NaN":                     usual,
		"&numwant=99999999999999999999999": usual,

		"&event=started":        event(swarm.Started),
		"&event=completed":      event(swarm.Completed),
		"&event=stopped":        event(swarm.Stopped),
		"&event=stopped&event=": event(swarm.Stopped),
		"&event=paused":         usual,
		"&event=":               usual,

		"&no_peer_id=1&supportcrypto=1&requirecrypto=1&cryptoport=7&key=%zz&trackerid=%": usual,
		"&&&=&a&b=c=d":                       usual,
		"&info_hash=" + hash:                 usual,
		"&info_hash=%61" + hash[1:]:          usual,
		"&info_hash=":                        usual,
		"&info_hash=undefined":               usual,
		"&peer_id=":                          usual,
		"?left=7":                            left(7),
		"&passkey=0123456789abcdef?left=7&x": left(7),
	} {
		q, err := parse("/announce?" + base + query)
		if err != nil || q.request != want || q.plain || q.six || q.scrape {
			t.Errorf("parse(%q) = %+v, %v, want %+v", query, q, err, want)
		}
	}
	for _, query := range []string{"port=", "port", "port=65536", "port=-1", "port=undefined", "port=NaN", "port=6881.0", "port=99999999999999999999999", ""} {
		q, err := parse("/announce?info_hash=" + hash + "&peer_id=x&" + query)
		if err != nil || q.scrape || q.request != port(0) {
			t.Errorf("parse(%q) = %+v, %v, want no listener", query, q, err)
		}
	}
	for query, want := range map[string]question{
		"&compact=0": {plain: true}, "&compact=1": {}, "&compact=": {}, "&ipv6=anything": {six: true}, "&ipv6": {six: true},
	} {
		q, err := parse("/announce?" + base + query)
		if err != nil || q.plain != want.plain || q.six != want.six {
			t.Errorf("parse(%q) = %+v, %v, want %+v", query, q, err, want)
		}
	}
}

// TestParseTakesAnyPathForAnything: an announce is what has a peer_id and a port.
func TestParseTakesAnyPathForAnything(t *testing.T) {
	for _, path := range []string{
		"/announce", "/", "", "/a/b/announce.php", "/scrape/announce", "/announce/scrape", "/scrape", "/x/scrape.php",
		"/scrape/0123456789abcdef", "/announce.php", "/ann%ounce", "/an nounce", "http://tracker.invalid/announce", "/announce.php?passkey=X",
	} {
		for query, scrape := range map[string]bool{base: false, "info_hash=" + hash: true, "info_hash=" + hash + "&info_hash=bbbbbbbbbbbbbbbbbbbb": true} {
			q, err := parse(path + "?" + query)
			if err != nil || q.scrape != scrape || q.request.Hash != swarm.Hash([]byte(hash)) {
				t.Errorf("parse(%s?%s): scrape %v, %v, want %v", path, query, q.scrape, err, scrape)
			}
		}
	}
	// Half of the two: the path decides.
	for path, scrape := range map[string]bool{"/announce": false, "": false, "/scrape": true, "/x/scrape.php": true} {
		for _, half := range []string{"peer_id=x", "port=6881"} {
			q, err := parse(path + "?info_hash=" + hash + "&" + half)
			if err != nil || q.scrape != scrape {
				t.Errorf("parse(%s) with %s: scrape %v, %v, want %v", path, half, q.scrape, err, scrape)
			}
		}
	}
}

func TestParseReadsEveryHashOfAScrape(t *testing.T) {
	for _, n := range []int{1, 2, 64, 65, 74, 100, 200} {
		var query strings.Builder
		for i := range n {
			query.WriteString("&info_hash=" + strings.Repeat("a", 18) + fmt.Sprintf("%%%02X%%%02x", i, 255-i))
		}
		q, err := parse("/scrape?" + query.String()[1:])
		if err != nil || !q.scrape || len(q.hashes) != n || q.hashes[n-1] != swarm.Hash([]byte(strings.Repeat("a", 18)+string([]byte{byte(n - 1), byte(256 - n)}))) {
			t.Errorf("a scrape of %d: %d hashes, %v", n, len(q.hashes), err)
		}
	}
	q, err := parse("/scrape?info_hash=short&info_hash=%zz&info_hash=" + hash)
	if err != nil || len(q.hashes) != 1 {
		t.Errorf("a scrape with one hash among others: %+v, %v", q, err)
	}
}

func TestParseRefusesWhatNamesNoTorrentOrTwo(t *testing.T) {
	for _, query := range []string{
		"info_hash=", "info_hash", "info_hash=" + hash[1:], "info_hash=" + hash + "a", "info_hash=%zz" + hash[1:], "info_hash=" + hash[1:] + "%4",
		"info_hash=" + strings.Repeat("a", 1000), "info_hash=undefined",
		base + "&info_hash=bbbbbbbbbbbbbbbbbbbb",
	} {
		for _, path := range []string{"/announce?", "/announce?peer_id=x&port=1&"} {
			if q, err := parse(path + query); err == nil || errors.Is(err, errNoHash) {
				t.Errorf("parse(%.60q) = %+v, %v", query, q, err)
			}
		}
	}
	for _, query := range []string{"", "x=y", "INFO_HASH=" + hash, "ainfo_hash=" + hash, "x=info_hash"} {
		if _, err := parse("/announce?" + query); !errors.Is(err, errNoHash) {
			t.Errorf("parse(%q): %v, want %v", query, err, errNoHash)
		}
	}
}

// TestParseTakesAPlusForASpace, as whatever encodes a form writes it, and a
// question mark for itself.
func TestParseTakesAPlusForASpace(t *testing.T) {
	q, err := parse("/announce?info_hash=++%2b%2B?aaaaaaaaaaaaaaa&peer_id=+&port=6881")
	if want := swarm.Hash([]byte("  ++?aaaaaaaaaaaaaaa")); err != nil || q.request.Hash != want || q.request.Port != 6881 {
		t.Errorf("parse = %x, %v, want %x", [20]byte(q.request.Hash), err, [20]byte(want))
	}
}

func TestParseDecodesEveryByteOfAHash(t *testing.T) {
	for b := range 256 {
		var want swarm.Hash
		for i := range want {
			want[i] = byte(b + i)
		}
		var upper, lower strings.Builder
		for _, c := range want {
			upper.WriteString("%" + strings.ToUpper(hexByte(c)))
			lower.WriteString("%" + hexByte(c))
		}
		for _, s := range []string{upper.String(), lower.String()} {
			if q, err := parse("?info_hash=" + s); err != nil || q.request.Hash != want {
				t.Errorf("parse(%q) = %x, %v", s, [20]byte(q.request.Hash), err)
			}
		}
	}
}

func hexByte(c byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[c>>4], digits[c&15]})
}

func FuzzParse(f *testing.F) {
	f.Add("/announce?" + base + "&left=0&numwant=50&event=started&compact=0&ipv6=x")
	f.Add("/announce.php?passkey=X?" + base + "&left=undefined&numwant=NaN&port=")
	f.Add("/scrape?info_hash=%aa%bb&info_hash=")
	f.Add("?info_hash=" + hash + "&info_hash=" + hash)
	f.Add("/an nounce%?&&=?&info_hash=+%2B?aaaaaaaaaaaaaaaaa&peer_id")
	f.Fuzz(func(t *testing.T, target string) {
		q, err := parse(target)
		if err != nil {
			return
		}
		if n := len(q.hashes); n == 0 || n > len(target)/len("info_hash="+hash) {
			t.Errorf("%d hashes", n)
		}
		for _, h := range q.hashes {
			if !q.scrape && h != q.request.Hash {
				t.Errorf("an announce of two torrents")
			}
		}
		if r := q.request; r.NumWant < -1 || r.NumWant > MaxPeers || r.Port == 1 || r.Event > swarm.Stopped || r.Left > math.MaxInt64 && r.Left != Unknown {
			t.Errorf("out of bounds: %+v", r)
		}
	})
}
