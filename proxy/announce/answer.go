package announce

import (
	"encoding/binary"
	"net/netip"

	"github.com/anacrolix/torrent/bencode"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// The bencoded answers. Keys come out sorted, as BEP 3 wants.
type (
	okAnswer struct {
		Complete    int    `bencode:"complete"`
		External    string `bencode:"external ip,omitempty"`
		Incomplete  int    `bencode:"incomplete"`
		Interval    int64  `bencode:"interval"`
		MinInterval int64  `bencode:"min interval"`
		Peers       any    `bencode:"peers"`
		Peers6      []byte `bencode:"peers6,omitempty"` // nil: left out
		Warning     string `bencode:"warning message,omitempty"`
	}
	// plainPeer has no peer id: nobody knows a peer's before it shook hands.
	plainPeer struct {
		IP   string `bencode:"ip"`
		Port uint16 `bencode:"port"`
	}
	// failAnswer says when to come back in all the words that clients know:
	// libtorrent reads the intervals (and waits 30 minutes without), BEP 31
	// has "retry in", in minutes.
	failAnswer struct {
		Reason      string `bencode:"failure reason"`
		Interval    int64  `bencode:"interval"`
		MinInterval int64  `bencode:"min interval"`
		Retry       int64  `bencode:"retry in"`
	}
	scrapeAnswer struct {
		Files map[string]scrapeFile `bencode:"files"`
		Flags scrapeFlags           `bencode:"flags"`
	}
	scrapeFile struct {
		Complete   int `bencode:"complete"`
		Downloaded int `bencode:"downloaded"`
		Incomplete int `bencode:"incomplete"`
	}
	scrapeFlags struct {
		MinInterval int64 `bencode:"min_request_interval"`
	}
)

// body returns the bencoded answer to an announce.
func (q question) body(r Response) []byte {
	r = r.settle(q.request)
	a := okAnswer{
		Complete:    r.Seeders,
		Incomplete:  r.Leechers,
		Interval:    seconds(r.Interval),
		MinInterval: seconds(MinInterval),
		Peers:       string(appendPeers(nil, r.Peers)),
		Warning:     r.Warning,
	}
	if q.plain {
		list := make([]plainPeer, len(r.Peers))
		for i, p := range r.Peers {
			list[i] = plainPeer{p.Addr().Unmap().String(), p.Port()}
		}
		a.Peers = list
	}
	if q.six {
		a.Peers6 = []byte{}
	}
	if ip := r.External.Unmap(); ip.Is4() {
		a.External = string(ip.AsSlice())
	}
	return bencode.MustMarshal(a)
}

// appendPeers appends peers in the compact form: 4 bytes address, 2 bytes port.
func appendPeers(b []byte, peers []netip.AddrPort) []byte {
	for _, p := range peers {
		ip := p.Addr().Unmap().As4()
		b = append(b, ip[:]...)
		b = binary.BigEndian.AppendUint16(b, p.Port())
	}
	return b
}

func failBody(f Failure) []byte {
	s := seconds(f.Retry)
	return bencode.MustMarshal(failAnswer{f.Text, s, s, (s + 59) / 60})
}

// scrapeBody answers a scrape. A torrent without a count counts zero.
func scrapeBody(hashes []swarm.Hash, counts []Count) []byte {
	a := scrapeAnswer{
		Files: make(map[string]scrapeFile, len(hashes)),
		Flags: scrapeFlags{seconds(MinInterval)},
	}
	for i, h := range hashes {
		var c Count
		if i < len(counts) {
			c = counts[i].settle()
		}
		a.Files[string(h[:])] = scrapeFile{Complete: c.Seeders, Incomplete: c.Leechers}
	}
	return bencode.MustMarshal(a)
}

func (c Count) settle() Count { return Count{max(c.Seeders, 0), max(c.Leechers, 0)} }
