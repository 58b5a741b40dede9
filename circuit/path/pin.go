package path

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

const (
	// PinsPerKey is how many middles one isolation key keeps.
	PinsPerKey = 4

	minPinLife = 1 * 24 * time.Hour
	maxPinLife = 22 * 24 * time.Hour

	// unlistedPin is how long a pinned middle may be missing from the
	// directory before another is drawn in its place.
	unlistedPin = 24 * time.Hour

	// maxKeys bounds how many keys have pinned middles. Beyond it the key that
	// was used longest ago loses them.
	maxKeys = 8192
)

// Key says which circuits may share pinned middles: one per swarm and client.
// It is opaque here.
type Key [32]byte

// Pins holds the pinned middles of every key. It belongs to the Chooser it is
// given to. No file holds them: a middle follows from the seed, the key and the
// relays that there are, so that a sidecar that starts again draws the same ones.
// A file would have to name them by key, and so confirm to its reader which
// swarms the sidecar was in.
type Pins struct {
	seed [32]byte
	keys map[Key]*pinned
}

// NewPins returns the pins of a seed, which is secret and stays the same over
// restarts.
func NewPins(seed [32]byte) *Pins { return &Pins{seed: seed, keys: make(map[Key]*pinned)} }

// randomPins returns pins that end with the process.
func randomPins(rng *rand.Rand) *Pins {
	var seed [32]byte
	for i := range 4 {
		binary.LittleEndian.PutUint64(seed[8*i:], rng.Uint64())
	}
	return NewPins(seed)
}

type pinned struct {
	used  time.Time
	slots [PinsPerKey]pin // those of the zero ID are free
}

type pin struct {
	id     onion.ID
	until  time.Time
	listed time.Time
}

// draw is what decides one slot of a key: which relay, and until when.
type draw struct {
	block cipher.Block // a random order of relays
	until time.Time
}

// draw returns what decides a slot now. Each slot has a period of its own, the
// greater of two random ones, and begins it at a random time: most middles stay
// long, and when one goes can't be told from when it came.
func (ps *Pins) draw(key Key, slot int, now time.Time) draw {
	r := ps.derive(key, slot, 0)
	n := uint64(maxPinLife-minPinLife) + 1
	word := func(i int) uint64 { return binary.BigEndian.Uint64(r[8*i:]) }
	period := int64(minPinLife) + int64(max(word(0)%n, word(1)%n))
	start := int64(word(2) % uint64(period))
	turn := (now.UnixNano() - start) / period
	of := ps.derive(key, slot, 1+uint64(turn))
	block, err := aes.NewCipher(of[:16])
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	return draw{block, time.Unix(0, start+(turn+1)*period)}
}

func (ps *Pins) derive(key Key, slot int, turn uint64) []byte {
	m := hmac.New(sha256.New, ps.seed[:])
	m.Write([]byte("shoal/1 middle"))
	m.Write(key[:])
	m.Write(binary.BigEndian.AppendUint64([]byte{byte(slot)}, turn))
	return m.Sum(nil)
}

// score is what the relay with the least of all is drawn by: each relay is, with
// a chance in proportion to its weight (rendezvous hashing). It is the same
// whatever other relays there are.
func (d draw) score(r *Relay) float64 {
	var out [aes.BlockSize]byte
	d.block.Encrypt(out[:], r.ID[:aes.BlockSize])
	u := (float64(binary.BigEndian.Uint64(out[:])>>11) + 0.5) / (1 << 53) // above 0, below 1
	return -math.Log(u) / float64(min(r.Weight, maxWeight))
}

// pick returns the usable relay that ok accepts and d draws, nil if there is none.
func (d draw) pick(relays []Relay, ok func(*Relay) bool) (best *Relay) {
	var least float64
	for i := range relays {
		r := &relays[i]
		if !r.usable() || r.Weight == 0 || !ok(r) {
			continue
		}
		if s := d.score(r); best == nil || s < least {
			best, least = r, s
		}
	}
	return best
}

// of returns key's pinned middles that are listed now, after drawing what is
// missing. guards are those in use: a middle goes with each of them.
// Nothing about the last hop comes in here, see the package comment.
func (ps *Pins) of(key Key, now time.Time, relays []Relay, rules Rules, guards []*Relay) []*Relay {
	p := ps.entry(key, now)
	for i := range p.slots {
		q := &p.slots[i]
		if find(relays, q.id) != nil {
			q.listed = now
		}
		if !now.Before(q.until) || now.Sub(q.listed) > unlistedPin {
			*q = pin{}
		}
	}
	ps.fill(key, p, now, relays, rules, guards)
	live := p.live(relays)
	// A guard drawn later may conflict with all that are pinned, and a small
	// network may lose them all at once: then, and only then, four new ones.
	if !slices.ContainsFunc(live, func(r *Relay) bool { return !conflictsAny(rules, r, guards) }) && p.full() {
		p.slots = [PinsPerKey]pin{}
		ps.fill(key, p, now, relays, rules, guards)
		live = p.live(relays)
	}
	return live
}

func (p *pinned) full() bool {
	return !slices.ContainsFunc(p.slots[:], func(q pin) bool { return q.id == onion.ID{} })
}

func (p *pinned) live(relays []Relay) []*Relay {
	var live []*Relay
	for _, q := range p.slots {
		if r := find(relays, q.id); r != nil {
			live = append(live, r)
		}
	}
	return live
}

// fill draws until key has PinsPerKey, or as many as the network gives. They
// don't conflict with one another where the network is large enough, so that a
// last hop rules out one of them at most.
func (ps *Pins) fill(key Key, p *pinned, now time.Time, relays []Relay, rules Rules, guards []*Relay) {
	for i := range p.slots {
		if p.slots[i].id != (onion.ID{}) {
			continue
		}
		isNew := func(r *Relay) bool {
			return !slices.ContainsFunc(p.slots[:], func(q pin) bool { return q.id == r.ID }) && !conflictsAny(rules, r, guards)
		}
		live := p.live(relays)
		d := ps.draw(key, i, now)
		r := d.pick(relays, func(r *Relay) bool { return isNew(r) && !conflictsAny(rules, r, live) })
		if r == nil {
			r = d.pick(relays, isNew)
		}
		if r == nil {
			return
		}
		p.slots[i] = pin{id: r.ID, until: d.until, listed: now}
	}
}

// entry returns key's entry, made if there is none.
func (ps *Pins) entry(key Key, now time.Time) *pinned {
	p := ps.keys[key]
	if p == nil {
		if len(ps.keys) >= maxKeys {
			ps.dropOldest()
		}
		p = &pinned{}
		ps.keys[key] = p
	}
	p.used = now
	return p
}

func (ps *Pins) dropOldest() {
	var oldest Key
	var at time.Time
	for k, p := range ps.keys {
		if at.IsZero() || p.used.Before(at) {
			oldest, at = k, p.used
		}
	}
	delete(ps.keys, oldest)
}

func conflictsAny(rules Rules, r *Relay, others []*Relay) bool {
	return slices.ContainsFunc(others, func(o *Relay) bool { return rules.Conflict(r, o) })
}
