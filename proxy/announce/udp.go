package announce

import (
	"context"
	"encoding/binary"
	"net/netip"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// The packets of BEP 15, big endian. A request:
//
//	 0  8  connection id; of a connect: magic
//	 8  4  action
//	12  4  transaction id
//	16  …  connect: nothing; scrape: hashes of 20 bytes each; announce:
//	       20 hash, 20 peer id, 8 downloaded, 8 left, 8 uploaded, 4 event,
//	       4 ip, 4 key, 4 numwant, 2 port, then options (BEP 41)
//
// and an answer:
//
//	0  4  action
//	4  4  transaction id
//	8  …  connect: 8 connection id; error: text; scrape: 4 seeders, 4 completed,
//	      4 leechers for each hash; announce: 4 interval, 4 leechers,
//	      4 seeders, 6 bytes for each peer, 18 where the tracker has an IPv6
//	      address: stand-ins are IPv4, so that there are none
//
// The options say which tracker is meant; we are all of them, so they are not read.
const (
	magic        = 0x41727101980
	headerSize   = 8 + 4 + 4
	announceSize = headerSize + 20 + 20 + 3*8 + 4*4 + 2
	maxScrape    = 74 // hashes of one scrape that are answered (BEP 15)

	actConnect  = 0
	actAnnounce = 1
	actScrape   = 2
	actError    = 3
)

// connection is the id that every client is given, and any other is taken: an
// id shows a tracker that its client has the address that it sends from, and
// here the client is on this computer. Clients keep an id over a restart of the
// sidecar, and an error for it would stop their torrents for a minute.
const connection = 0x73686f616c000001

// UDP answers UDP trackers. It holds no state for a client. Safe for concurrent use.
type UDP struct {
	handler Handler
	waiting chan struct{} // one for each packet that waits for the handler
}

// maxWaiting is more than a client with a thousand torrents asks at its start.
// What is beyond is dropped: the client sends it again.
const maxWaiting = 1024

// NewUDP returns a UDP that asks h.
func NewUDP(h Handler) *UDP {
	return &UDP{handler: h, waiting: make(chan struct{}, maxWaiting)}
}

// IsUDP reports whether b has the shape of a request to a UDP tracker. µTP and DHT
// packets don't, but for one µTP packet in 2^31: ask for stand-ins first.
func IsUDP(b []byte) bool {
	if len(b) < headerSize {
		return false
	}
	id := binary.BigEndian.Uint64(b)
	switch binary.BigEndian.Uint32(b[8:]) {
	case actConnect:
		return id == magic
	case actAnnounce:
		return len(b) >= announceSize
	case actScrape:
		return len(b) >= headerSize+len(swarm.Hash{})
	}
	return false
}

// Answer returns the answer to packet b for a tracker at to, the zero Addr when
// the client named it, or nil where none is due. It waits for the Handler, so
// each packet is given a goroutine of its own; b is not kept.
func (u *UDP) Answer(ctx context.Context, b []byte, to netip.Addr) []byte {
	if len(b) < headerSize {
		return nil
	}
	id, action := binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
	head := func(action uint32) []byte {
		return append(binary.BigEndian.AppendUint32(nil, action), b[12:16]...)
	}
	fail := func(text string) []byte { return append(head(actError), text...) }

	if action == actConnect {
		if id != magic {
			return nil
		}
		return binary.BigEndian.AppendUint64(head(actConnect), connection)
	}
	if action != actAnnounce && action != actScrape {
		return fail("unknown action")
	}
	select {
	case u.waiting <- struct{}{}:
		defer func() { <-u.waiting }()
	default:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, Wait)
	defer cancel()
	var err error
	var body []byte
	if action == actAnnounce {
		body, err = u.announce(ctx, b, to)
	} else {
		body, err = u.scrape(ctx, b[headerSize:])
	}
	if err != nil {
		return fail(failureOf(err).Text)
	}
	return append(head(action), body...)
}

func (u *UDP) announce(ctx context.Context, b []byte, to netip.Addr) ([]byte, error) {
	q, err := parseAnnounce(b)
	if err != nil {
		return nil, err
	}
	q.NoPeers = to.Is6()
	r, err := u.handler.Announce(ctx, q)
	if err != nil {
		return nil, err
	}
	r = r.settle(q)
	out := binary.BigEndian.AppendUint32(nil, uint32(seconds(r.Interval)))
	out = binary.BigEndian.AppendUint32(out, uint32(r.Leechers))
	out = binary.BigEndian.AppendUint32(out, uint32(r.Seeders))
	return appendPeers(out, r.Peers), nil
}

// parseAnnounce reads the announce in b. What follows it is for nobody.
func parseAnnounce(b []byte) (Request, error) {
	if len(b) < announceSize {
		return Request{}, &Failure{Text: "announce too short"}
	}
	r := Request{
		Hash:    swarm.Hash(b[16:36]),
		Left:    left(binary.BigEndian.Uint64(b[64:])),
		NumWant: int(int32(binary.BigEndian.Uint32(b[92:]))),
		Port:    listens(binary.BigEndian.Uint16(b[96:])),
	}
	r.NumWant = min(max(r.NumWant, -1), MaxPeers)
	switch binary.BigEndian.Uint32(b[80:]) {
	case 1:
		r.Event = swarm.Completed
	case 2:
		r.Event = swarm.Started
	case 3:
		r.Event = swarm.Stopped
	}
	return r, nil
}

func (u *UDP) scrape(ctx context.Context, b []byte) ([]byte, error) {
	const size = len(swarm.Hash{})
	if len(b) < size {
		return nil, &Failure{Text: "a scrape names a torrent at least"}
	}
	var hashes []swarm.Hash
	for ; len(b) >= size && len(hashes) < maxScrape; b = b[size:] {
		hashes = append(hashes, swarm.Hash(b))
	}
	counts, err := u.handler.Scrape(ctx, hashes)
	if err != nil {
		return nil, err
	}
	var out []byte
	for i := range hashes {
		var c Count
		if i < len(counts) {
			c = counts[i].settle()
		}
		out = binary.BigEndian.AppendUint32(out, uint32(c.Seeders))
		out = binary.BigEndian.AppendUint32(out, 0)
		out = binary.BigEndian.AppendUint32(out, uint32(c.Leechers))
	}
	return out, nil
}
