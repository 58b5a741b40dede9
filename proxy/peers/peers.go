// Package peers gives the peers of a swarm stand-ins: addresses that a torrent
// client can dial and show, and that lead nowhere but to this sidecar.
//
// A stand-in belongs to one (client, swarm, peer) for good: a secret says which
// it is, so that a sidecar that starts again gives out the same ones, as long as
// two do not want the same. Clients keep addresses and dial them days later. No
// file holds them: it would confirm to its reader which swarms a client was in.
// Not here: who the peers are (package swarm), what is carried to them
// (packages socks and inbound).
package peers

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// Port is the port that stand-ins are given out with. A lookup ignores ports:
// clients tell each other the address with a port of their own.
const Port = 6881

// The limits on what a swarm full of strangers can make a client hold.
const (
	MaxNew    = 50   // stand-ins that one Assign makes
	MaxLive   = 512  // stand-ins of one swarm that are not in quarantine
	MaxPerDay = 2048 // stand-ins made in a day for one client
)

// How long an unused stand-in lives, and how long it then rests.
const (
	Unused     = 7 * 24 * time.Hour
	Quarantine = 30 * 24 * time.Hour

	sweepEvery = time.Hour
	maxDays    = 1 << 16 // clients that stand-ins were made for on one day
)

// idle is when a stand-in with whose peer no handshake was ever finished may
// make room for another of its swarm.
const idle = time.Hour

// The errors of Meet.
var (
	ErrSwarmFull = errors.New("peers: this swarm has all the stand-ins that it may have")
	ErrDayFull   = errors.New("peers: this client has had all the stand-ins of a day")
	ErrRangeFull = errors.New("peers: no stand-in is left for this client")
)

// Prefix is the range of the stand-ins: the one large range that every client
// dials and none takes for a local network (RFC 2544).
var Prefix = netip.MustParsePrefix("198.18.0.0/15")

// Is says if a is in the range of the stand-ins.
func Is(a netip.Addr) bool { return Prefix.Contains(a.Unmap()) }

// misread is how rTorrent up to 0.9.8 begins an address that the DHT gave it.
const misread = "6:"

// Meant returns the stand-in that rTorrent means by a. It reads an address from
// the DHT together with the "6:" that precedes it in the packet, and so takes
// the first two bytes of every address for the last two of 54.58.0.0/16, and the
// last two for the port. Anything else is returned as it is.
func Meant(a netip.AddrPort) netip.AddrPort {
	ip := a.Addr().Unmap()
	if !ip.Is4() {
		return a
	}
	b := ip.As4()
	stand := netip.AddrFrom4([4]byte{b[2], b[3], byte(a.Port() >> 8), byte(a.Port())})
	if string(b[:2]) != misread || !Is(stand) {
		return a
	}
	return netip.AddrPortFrom(stand, Port)
}

// The first 256 addresses are the sidecar's own, the last are left free, and
// so are those that end in 0 or 255, which some take for a network's.
const (
	first    = 1 << 8
	last     = 1<<17 - 1<<8
	octets   = 254 // usable addresses among 256
	slots    = (last - first) / 256 * octets
	perBlock = 256
)

// at returns the address of slot i.
func at(i int) netip.Addr {
	return fromOffset(uint32(first + i/octets*perBlock + 1 + i%octets))
}

// slotOf is the inverse of at.
func slotOf(a netip.Addr) (int, bool) {
	off, ok := offset(a)
	if !ok || off < first || off >= last || off%perBlock == 0 || off%perBlock == perBlock-1 {
		return 0, false
	}
	off -= first
	return int(off/perBlock*octets + off%perBlock - 1), true
}

func fromOffset(off uint32) netip.Addr {
	b := Prefix.Addr().As4()
	var out [4]byte
	binary.BigEndian.PutUint32(out[:], binary.BigEndian.Uint32(b[:])+off)
	return netip.AddrFrom4(out)
}

func offset(a netip.Addr) (uint32, bool) {
	if a = a.Unmap(); !Prefix.Contains(a) {
		return 0, false
	}
	b := a.As4()
	return binary.BigEndian.Uint32(b[:]) & (1<<17 - 1), true
}

// Beacons is how many beacons there are.
const Beacons = octets

// Beacon returns the i-th of the stand-ins that are the sidecar's own, counted
// around. A beacon never becomes a peer's.
func Beacon(i int) netip.Addr { return fromOffset(uint32(1 + (i%Beacons+Beacons)%Beacons)) }

// IsBeacon says if a is one of them.
func IsBeacon(a netip.Addr) bool {
	off, ok := offset(a)
	return ok && off >= 1 && off <= Beacons
}

// Source returns the loopback address that an inbound connection of the peer
// behind stand-in a comes from: one of its own, since clients drop a second
// connection from one address. Linux takes all of 127.0.0.0/8 for its own.
func Source(a netip.Addr) netip.Addr {
	b := a.Unmap().As4()
	b[0] = 127
	return netip.AddrFrom4(b)
}

// Peer is who a stand-in stands for.
type Peer struct {
	Client swarm.Client // whom the stand-in was given to
	Hash   swarm.Hash
	Key    swarm.Key
}

// Table is the stand-ins of all clients. It is safe for concurrent use.
type Table struct {
	secret [32]byte

	mu      sync.Mutex
	entries map[int]*entry    // by slot
	known   map[id]int        // which slot an id has
	live    map[group]int     // entries of a swarm outside quarantine
	made    map[clientID]made // stand-ins of today
}

// entry is one stand-in.
type entry struct {
	id     id
	group  group
	client clientID
	used   int64 // hours since 1970 of the last use
	met    bool  // a handshake with the peer was finished once
	rests  bool  // in quarantine or free

	peer *Peer // nil in quarantine
}

type (
	id       [16]byte // keyed hash of (client, swarm, peer)
	group    [8]byte  // keyed hash of (client, swarm)
	clientID [8]byte  // keyed hash of a client
)

type made struct {
	day int64
	n   int
}

// New returns an empty table. The secret decides which addresses it gives out.
func New(secret [32]byte) *Table {
	return &Table{
		secret:  secret,
		entries: make(map[int]*entry),
		known:   make(map[id]int),
		live:    make(map[group]int),
		made:    make(map[clientID]made),
	}
}

// Run sends what was not used for long into quarantine, until ctx ends.
func (t *Table) Run(ctx context.Context) {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			t.Sweep()
		}
	}
}

func (t *Table) sum(out []byte, label byte, parts ...[]byte) {
	m := hmac.New(sha256.New, t.secret[:])
	m.Write([]byte{label})
	for _, p := range parts {
		m.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		m.Write(p)
	}
	copy(out, m.Sum(nil))
}

func (t *Table) ids(p Peer) (i id, g group, o clientID) {
	t.sum(i[:], 'p', []byte(p.Client), p.Hash[:], p.Key[:])
	t.sum(g[:], 's', []byte(p.Client), p.Hash[:])
	t.sum(o[:], 'c', []byte(p.Client))
	return i, g, o
}

// hours is the clock of the table.
func hours(t time.Time) int64 { return t.Unix() / 3600 }

// Assign returns stand-ins for the peers that an announce found, those met
// before first. Peers beyond a limit are left out.
func (t *Table) Assign(c swarm.Client, h swarm.Hash, found []swarm.Key) []netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	var good, old, fresh []netip.Addr
	var unknown []Peer
	for _, k := range found {
		p := Peer{c, h, k}
		i, _, _ := t.ids(p)
		s, ok := t.known[i]
		if !ok {
			unknown = append(unknown, p)
			continue
		}
		e := t.entries[s]
		if t.use(e, p, now) != nil {
			continue
		}
		if e.met {
			good = append(good, at(s))
		} else {
			old = append(old, at(s))
		}
	}
	for _, p := range unknown {
		if len(fresh) == MaxNew {
			break
		}
		i, _, _ := t.ids(p)
		if _, twice := t.known[i]; twice {
			continue
		}
		s, err := t.make(p, now)
		if err != nil {
			break
		}
		fresh = append(fresh, at(s))
	}
	return append(append(good, old...), fresh...)
}

// Meet returns the stand-in of a peer with whom a handshake was finished.
func (t *Table) Meet(c swarm.Client, h swarm.Hash, k swarm.Key) (netip.Addr, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	p := Peer{c, h, k}
	i, _, _ := t.ids(p)
	s, ok := t.known[i]
	if !ok {
		var err error
		if s, err = t.make(p, now); err != nil {
			return netip.Addr{}, err
		}
	}
	e := t.entries[s]
	if err := t.use(e, p, now); err != nil {
		return netip.Addr{}, err
	}
	e.met = true
	return at(s), nil
}

// Lookup returns whose stand-in a is: the client that it was given to, the
// swarm and the peer. It is false for an address that this run gave to nobody.
func (t *Table) Lookup(a netip.Addr) (Peer, bool) {
	s, ok := slotOf(a)
	if !ok {
		return Peer{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[s]
	if e == nil || e.peer == nil {
		return Peer{}, false
	}
	t.touch(e, time.Now())
	return *e.peer, true
}

// Valid reports whether a can be a peer's, in this run or an earlier one.
func Valid(a netip.Addr) bool {
	_, ok := slotOf(a)
	return ok
}

// use marks e as used by its peer, and takes it out of quarantine.
func (t *Table) use(e *entry, p Peer, now time.Time) error {
	if e.rests {
		if t.live[e.group] >= MaxLive && !t.evict(e.group, now) {
			return ErrSwarmFull
		}
		e.rests = false
		t.live[e.group]++
	}
	e.peer = &p
	t.touch(e, now)
	return nil
}

func (t *Table) touch(e *entry, now time.Time) {
	e.used = max(e.used, hours(now))
}

// make gives a peer a stand-in of its own.
func (t *Table) make(p Peer, now time.Time) (int, error) {
	i, g, o := t.ids(p)
	today := made{day: now.Unix() / 86400}
	if m := t.made[o]; m.day >= today.day {
		today = m
	}
	if today.n >= MaxPerDay || today.n == 0 && len(t.made) >= maxDays {
		return 0, ErrDayFull
	}
	if t.live[g] >= MaxLive && !t.evict(g, now) {
		return 0, ErrSwarmFull
	}
	s, ok := t.free(i, o, now)
	if !ok {
		return 0, ErrRangeFull
	}
	if e := t.entries[s]; e != nil {
		delete(t.known, e.id)
	}
	t.entries[s] = &entry{id: i, group: g, client: o, used: hours(now), peer: &p}
	t.known[i] = s
	t.live[g]++
	today.n++
	t.made[o] = today
	return s, nil
}

// free returns the slot for id: the first from where the id's hash points that
// nobody had, or that the same client had and left long ago. The hash makes a
// peer find its own again after a restart.
func (t *Table) free(i id, o clientID, now time.Time) (int, bool) {
	start := int(binary.BigEndian.Uint64(i[:]) % slots)
	reused := -1
	for n := range slots {
		s := (start + n) % slots
		e := t.entries[s]
		if e == nil {
			return s, true
		}
		if reused < 0 && e.client == o && e.rests && hours(now)-e.used >= int64((Unused+Quarantine)/time.Hour) {
			reused = s
		}
	}
	return reused, reused >= 0
}

// evict sends the stand-in of a swarm that was unused the longest into
// quarantine, if it is one whose peer was never met.
func (t *Table) evict(g group, now time.Time) bool {
	var oldest *entry
	for _, e := range t.entries {
		if e.group != g || e.rests || e.met || hours(now)-e.used < int64(idle/time.Hour) {
			continue
		}
		if oldest == nil || e.used < oldest.used {
			oldest = e
		}
	}
	if oldest == nil {
		return false
	}
	t.rest(oldest)
	return true
}

func (t *Table) rest(e *entry) {
	e.rests, e.peer = true, nil
	if t.live[e.group]--; t.live[e.group] <= 0 {
		delete(t.live, e.group)
	}
}

// Sweep sends what was not used for long into quarantine. Run calls it.
func (t *Table) Sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(time.Now())
}

func (t *Table) sweep(now time.Time) {
	for _, e := range t.entries {
		if !e.rests && hours(now)-e.used >= int64(Unused/time.Hour) {
			t.rest(e)
		}
	}
	for o, m := range t.made {
		if m.day < now.Unix()/86400 {
			delete(t.made, o)
		}
	}
}

// Live returns how many stand-ins are in use.
func (t *Table) Live() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, l := range t.live {
		n += l
	}
	return n
}
