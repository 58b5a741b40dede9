package announce

import (
	"errors"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

func TestParseReadsWhatMatters(t *testing.T) {
	h := swarm.Hash([]byte(hash))
	base := Request{Hash: h, Left: Unknown, NumWant: -1}
	with := func(change func(*Request)) Request {
		r := base
		change(&r)
		return r
	}
	for _, c := range []struct {
		query string
		want  Request
		plain bool
		six   bool
	}{
		{"", base, false, false},
		{"&port=6881", with(func(r *Request) { r.Port = 6881 }), false, false},
		{"&port=1", base, false, false},
		{"&port=0", base, false, false},
		{"&port=65535", with(func(r *Request) { r.Port = 65535 }), false, false},
		{"&left=0", with(func(r *Request) { r.Left = 0 }), false, false},
		{"&left=18446744073709551615", base, false, false},
		{"&left=-1", base, false, false},
		{"&numwant=80", with(func(r *Request) { r.NumWant = 80 }), false, false},
		{"&numwant=-80", base, false, false},
		{"&event=started", with(func(r *Request) { r.Event = swarm.Started }), false, false},
		{"&event=completed", with(func(r *Request) { r.Event = swarm.Completed }), false, false},
		{"&event=stopped", with(func(r *Request) { r.Event = swarm.Stopped }), false, false},
		{"&event=paused", base, false, false},
		{"&event=", base, false, false},
		{"&compact=0", base, true, false},
		{"&compact=1", base, false, false},
		{"&ipv6=anything", base, false, true},
		{"&no_peer_id=1&supportcrypto=1&requirecrypto=1&cryptoport=7&key=%zz&trackerid=%", base, false, false},
		{"&&&=&a&b=c=d", base, false, false},
	} {
		q, err := parse("/announce", "info_hash="+hash+c.query)
		if err != nil || q.request != c.want || q.plain != c.plain || q.six != c.six || q.scrape {
			t.Errorf("parse(%q) = %+v, %v, want %+v", c.query, q, err, c.want)
		}
	}
}

func TestParseTakesAnyPath(t *testing.T) {
	for path, scrape := range map[string]bool{
		"/announce": false, "/": false, "": false, "/a/b/announce.php": false, "/scrape/announce": false,
		"/scrape": true, "/x/scrape.php": true, "/announce/scrape": true,
	} {
		q, err := parse(path, "info_hash="+hash)
		if err != nil || q.scrape != scrape {
			t.Errorf("parse(%q): scrape %v, %v, want %v", path, q.scrape, err, scrape)
		}
	}
}

func TestParseRefusesBadNumbersAndHashes(t *testing.T) {
	many := strings.Repeat("info_hash="+hash+"&", MaxHashes+1)
	for _, query := range []string{
		"info_hash=", "info_hash=" + hash[1:], "info_hash=" + hash + "a", "info_hash=%zz" + hash[1:], "info_hash=" + hash[1:] + "%4",
		"info_hash=" + strings.Repeat("a", 1000),
		"info_hash=" + hash + "&info_hash=" + hash, many,
		"info_hash=" + hash + "&port=65536", "info_hash=" + hash + "&port=-1", "info_hash=" + hash + "&port=", "info_hash=" + hash + "&port=6881.0",
		"info_hash=" + hash + "&left=x", "info_hash=" + hash + "&left=-2", "info_hash=" + hash + "&left=18446744073709551616",
		"info_hash=" + hash + "&numwant=", "info_hash=" + hash + "&numwant=9999999999999999999",
	} {
		if q, err := parse("/announce", query); err == nil || errors.Is(err, errNoHash) {
			t.Errorf("parse(%.60q) = %+v, %v", query, q, err)
		}
	}
	if _, err := parse("/scrape", many); err == nil {
		t.Errorf("a scrape of %d was taken", MaxHashes+1)
	}
	for _, query := range []string{"", "x=y", "INFO_HASH=" + hash, "ainfo_hash=" + hash} {
		if _, err := parse("/announce", query); !errors.Is(err, errNoHash) {
			t.Errorf("parse(%q): %v, want %v", query, err, errNoHash)
		}
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
			if q, err := parse("", "info_hash="+s); err != nil || q.request.Hash != want {
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
	f.Add("/announce", "info_hash="+hash+"&port=1&left=0&numwant=50&event=started&compact=0&ipv6=x")
	f.Add("/scrape", "info_hash=%aa%bb&info_hash=")
	f.Fuzz(func(t *testing.T, path, query string) {
		q, err := parse(path, query)
		if err != nil {
			return
		}
		if n := len(q.hashes); n == 0 || n > MaxHashes || !q.scrape && n > 1 {
			t.Errorf("%d hashes, scrape %v", n, q.scrape)
		}
		if r := q.request; r.NumWant < -1 || r.NumWant > MaxPeers || r.Port == 1 || r.Event > swarm.Stopped {
			t.Errorf("out of bounds: %+v", r)
		}
	})
}
