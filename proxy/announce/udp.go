package announce

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"time"

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
//	      4 seeders, 6 bytes for each peer
//
// The options say which tracker is meant; we are all of them, so they are not read.
const (
	magic        = 0x41727101980
	headerSize   = 8 + 4 + 4
	announceSize = headerSize + 20 + 20 + 3*8 + 4*4 + 2
	maxScrape    = 74 // hashes in one scrape (BEP 15)

	actConnect  = 0
	actAnnounce = 1
	actScrape   = 2
	actError    = 3
)

// idWindow is how long connection ids are made alike. BEP 15 lets a client use
// one for a minute and a tracker take it for two: this window's and the two
// before are taken.
const idWindow = time.Minute

// UDP answers UDP trackers. It holds no state for a client: a connection id is
// a keyed hash of the client's address and the time. Safe for concurrent use.
type UDP struct {
	handler Handler
	key     [32]byte
	waiting chan struct{} // one for each packet that waits for the handler
}

// maxWaiting is more than a client with a thousand torrents asks at its start.
// What is beyond is dropped: the client sends it again.
const maxWaiting = 1024

// NewUDP returns a UDP that asks h.
func NewUDP(h Handler) *UDP {
	u := &UDP{handler: h, waiting: make(chan struct{}, maxWaiting)}
	rand.Read(u.key[:]) // never fails (crypto/rand)
	return u
}

// IsUDP says if b has the shape of a request to a UDP tracker. µTP and DHT
// packets don't, but for one µTP packet in 2^31: ask for stand-ins first.
func IsUDP(b []byte) bool {
	if len(b) < headerSize {
		return false
	}
	id := binary.BigEndian.Uint64(b)
	switch n := len(b) - headerSize; binary.BigEndian.Uint32(b[8:]) {
	case actConnect:
		return id == magic
	case actAnnounce:
		return len(b) >= announceSize
	case actScrape:
		return n > 0 && n%len(swarm.Hash{}) == 0
	}
	return false
}

// Answer returns the answer to packet b from a client at from, or nil where
// none is due. It waits for the Handler, so each packet is given a goroutine
// of its own; b is not kept.
func (u *UDP) Answer(ctx context.Context, b []byte, from netip.AddrPort) []byte {
	if len(b) < headerSize {
		return nil
	}
	id, action := binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
	head := func(action uint32) []byte {
		return append(binary.BigEndian.AppendUint32(nil, action), b[12:16]...)
	}
	fail := func(text string) []byte { return append(head(actError), text...) }

	now := time.Now()
	if action == actConnect {
		if id != magic {
			return nil
		}
		return binary.BigEndian.AppendUint64(head(actConnect), u.id(from, now))
	}
	if action != actAnnounce && action != actScrape {
		return fail("unknown action")
	}
	if !u.knows(id, from, now) {
		return fail("connection id out of date, connect again")
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
		body, err = u.announce(ctx, b, from)
	} else {
		body, err = u.scrape(ctx, b[headerSize:])
	}
	if err != nil {
		return fail(failureOf(err).Text)
	}
	return append(head(action), body...)
}

func (u *UDP) announce(ctx context.Context, b []byte, from netip.AddrPort) ([]byte, error) {
	q, err := parseAnnounce(b)
	if err != nil {
		return nil, err
	}
	r, err := u.handler.Announce(ctx, q)
	if err != nil {
		return nil, err
	}
	r = r.settle(q)
	out := binary.BigEndian.AppendUint32(nil, uint32(seconds(r.Interval)))
	out = binary.BigEndian.AppendUint32(out, uint32(r.Leechers))
	out = binary.BigEndian.AppendUint32(out, uint32(r.Seeders))
	if !from.Addr().Unmap().Is4() {
		return out, nil // over IPv6 peers are IPv6 ones, of which there are none
	}
	return appendPeers(out, r.Peers), nil
}

// parseAnnounce reads the announce in b. What follows it is for nobody.
func parseAnnounce(b []byte) (Request, error) {
	if len(b) < announceSize {
		return Request{}, &Failure{Text: "announce too short"}
	}
	r := Request{
		Hash:    swarm.Hash(b[16:36]),
		Left:    binary.BigEndian.Uint64(b[64:]),
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
	if len(b) == 0 || len(b)%size != 0 || len(b)/size > maxScrape {
		return nil, &Failure{Text: "a scrape names 1 to 74 torrents"}
	}
	hashes := make([]swarm.Hash, 0, len(b)/size)
	for ; len(b) > 0; b = b[size:] {
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

// id returns the connection id of a client at from in the window of t.
func (u *UDP) id(from netip.AddrPort, t time.Time) uint64 {
	m := hmac.New(sha256.New, u.key[:])
	m.Write(binary.BigEndian.AppendUint64(nil, uint64(t.UnixNano()/int64(idWindow))))
	addr, _ := from.MarshalBinary() // never fails
	m.Write(addr)
	return binary.BigEndian.Uint64(m.Sum(nil))
}

func (u *UDP) knows(id uint64, from netip.AddrPort, now time.Time) bool {
	got := binary.BigEndian.AppendUint64(nil, id)
	ok := 0
	for _, age := range []time.Duration{0, idWindow, 2 * idWindow} {
		want := binary.BigEndian.AppendUint64(nil, u.id(from, now.Add(-age)))
		ok |= subtle.ConstantTimeCompare(got, want)
	}
	return ok == 1
}
