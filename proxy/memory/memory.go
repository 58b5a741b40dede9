// Package memory remembers which clients are in which swarms, so that a sidecar
// that is started again takes them back before they announce: an upgrade, or a
// crash, does not take a seed from the network.
//
// What it remembers names torrents. So it lies in a folder that ends with the
// machine's power, and where there is none nothing is kept.
// Not here: where that folder is (package state), what a membership is (package
// swarm), when a client counts as gone (package proxy).
package memory

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/proxy/proc"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

const (
	// MaxAway is how long a sidecar may be gone and still take its clients back.
	// Clients that met nobody for longer have changed what they share.
	MaxAway = 30 * time.Minute

	// forgotten is after how long nothing that a sidecar said of its clients
	// counts any more: its records have expired.
	forgotten = 90 * time.Minute

	maxClients = 256
	maxSwarms  = 4096      // of all clients
	maxAgain   = time.Hour // until an announce

	// unsaid is until the next announce of a client that does so to the DHT
	// alone: libtorrent's come every quarter of an hour.
	unsaid = 20 * time.Minute

	batch     = 100 * time.Millisecond // a change is written after this time, with those that follow it
	saveEvery = time.Second            // at most
	beatEvery = 5 * time.Minute        // without a change, so that the file tells when the sidecar ended
)

// Client is a torrent client.
type Client struct {
	Name   swarm.Client   `json:"-"`
	Addr   netip.Addr     `json:"addr,omitzero"` // where it is
	UDP    netip.AddrPort `json:"udp,omitzero"`  // where its packets come from; zero: it has no UDP association
	Owner  proc.ID        `json:"owner,omitzero"`
	Swarms []Swarm        `json:"swarms"`
}

// Swarm is one that a client is in.
type Swarm struct {
	Hash  Hash          `json:"hash"`
	Port  uint16        `json:"port,omitzero"` // where the client listens; 0: not known
	Left  Left          `json:"left"`
	Again time.Duration `json:"again"` // the client announces again within this time
}

// Hash is a swarm.Hash that can be written: its text is hexadecimal.
type Hash swarm.Hash

// LogValue keeps the name of a torrent out of every log.
func (h Hash) LogValue() slog.Value { return swarm.Hash(h).LogValue() }

// String is redacted like LogValue.
func (h Hash) String() string { return swarm.Hash(h).String() }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(h)) {
		return errors.New("an info-hash of another size")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// Left is whether a client lacks bytes of a torrent.
type Left string

// What a client said.
const (
	Nothing   Left = "nothing" // a seeder
	Something Left = "something"
	Unknown   Left = "unknown"
)

// Say notes a swarm.Announce's Left. A client that does not say it lacks what
// it lacked before.
func (s *Swarm) Say(left uint64) {
	switch left {
	case swarm.Unknown:
	case 0:
		s.Left = Nothing
	default:
		s.Left = Something
	}
}

// Announce returns a value of swarm.Announce's Left that says the same.
func (l Left) Announce() uint64 {
	switch l {
	case Nothing:
		return 0
	case Something:
		return 1
	}
	return swarm.Unknown
}

// Memory is what a sidecar remembers. It is safe for concurrent use.
type Memory struct {
	file    string // "" keeps nothing
	changed chan struct{}

	mu      sync.Mutex
	clients map[swarm.Client]*client // guarded by mu
	n       int                      // guarded by mu: swarms of all clients
}

type client struct {
	Client
	swarms map[swarm.Hash]Swarm
}

var file = &state.Kind{
	Name: "memory", Version: 1, Limit: 4 << 20, Policy: state.Erase, What: "the memory of clients",
	Lost: "clients are back in their swarms when they announce again",
}

// The body is JSON.
type body struct {
	Saved   time.Time `json:"saved"`
	Clients []line    `json:"clients"`
}

// line is a client with its name, which may be any bytes.
type line struct {
	Name []byte `json:"name"`
	Client
}

// Earlier is what an earlier run remembered.
type Earlier struct {
	Clients []Client
	Away    time.Duration // how long ago it ended, give or take minutes
}

// Open returns the memory in a file and what an earlier run has left there. The
// name "" is a memory that ends with the process.
func Open(name string, now time.Time) (*Memory, Earlier, error) {
	m := &Memory{file: name, changed: make(chan struct{}, 1), clients: make(map[swarm.Client]*client)}
	if name == "" {
		return m, Earlier{}, nil
	}
	var e Earlier
	_, err := file.Load(name, func(b []byte) (err error) {
		e, err = parse(b, now)
		return err
	})
	return m, e, err
}

func parse(b []byte, now time.Time) (Earlier, error) {
	var f body
	if err := json.Unmarshal(b, &f); err != nil {
		return Earlier{}, err
	}
	all, err := f.clients()
	away := now.Sub(f.Saved).Abs()
	if err != nil || away > forgotten {
		return Earlier{}, err
	}
	return Earlier{all, away}, nil
}

// clients checks and returns what a file holds.
func (f *body) clients() (all []Client, err error) {
	swarms := 0
	for _, l := range f.Clients {
		c := l.Client
		c.Name = swarm.Client(l.Name)
		if slices.ContainsFunc(all, func(o Client) bool { return o.Name == c.Name }) {
			return nil, errors.New("a client twice")
		}
		for _, s := range c.Swarms {
			if s.Again < 0 || s.Again > maxAgain {
				return nil, fmt.Errorf("an announce after %v", s.Again)
			}
		}
		swarms += len(c.Swarms)
		all = append(all, c)
	}
	if len(all) > maxClients || swarms > maxSwarms {
		return nil, fmt.Errorf("%d clients in %d swarms are too many", len(all), swarms)
	}
	return all, nil
}

// client returns what is kept of a client. Caller holds mu.
func (m *Memory) client(name swarm.Client) *client {
	c := m.clients[name]
	if c == nil && len(m.clients) < maxClients {
		c = &client{Client: Client{Name: name}, swarms: make(map[swarm.Hash]Swarm)}
		m.clients[name] = c
	}
	return c
}

// Met remembers where a client is.
func (m *Memory) Met(name swarm.Client, addr netip.Addr) {
	m.edit(name, func(c *client) { c.Addr = addr })
}

// Heard remembers where a client's packets come from, and whose they are.
func (m *Memory) Heard(name swarm.Client, udp netip.AddrPort, o proc.ID) {
	m.edit(name, func(c *client) { c.UDP, c.Owner = udp, o })
}

func (m *Memory) edit(name swarm.Client, change func(*client)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.client(name)
	if c == nil {
		return
	}
	before := c.Client
	change(c)
	if c.Addr != before.Addr || c.UDP != before.UDP || c.Owner != before.Owner {
		m.wake()
	}
}

// Join remembers that a client is in a swarm; say, which may be nil, adds what
// it said there.
func (m *Memory) Join(name swarm.Client, h swarm.Hash, say func(*Swarm)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.client(name)
	if c == nil {
		return
	}
	old, known := c.swarms[h]
	s := old
	if !known {
		s = Swarm{Hash: Hash(h), Left: Unknown, Again: unsaid}
	}
	if say != nil {
		say(&s)
	}
	s.Again = min(s.Again, maxAgain)
	if !known && m.n >= maxSwarms || known && old == s {
		return
	}
	if !known {
		m.n++
	}
	c.swarms[h] = s
	m.wake()
}

// Leave forgets that a client is in a swarm.
func (m *Memory) Leave(name swarm.Client, h swarm.Hash) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.clients[name]
	if c == nil {
		return
	}
	if _, known := c.swarms[h]; known {
		delete(c.swarms, h)
		m.n--
		m.wake()
	}
}

// Has reports whether a client is remembered to be in a swarm.
func (m *Memory) Has(name swarm.Client, h swarm.Hash) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.clients[name]
	if c == nil {
		return false
	}
	_, in := c.swarms[h]
	return in
}

func (m *Memory) wake() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Run keeps the file up with the memory until ctx ends. It writes soon after
// each change: a process that is killed leaves what it knew a second ago.
func (m *Memory) Run(ctx context.Context) {
	if m.file == "" {
		return
	}
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	failing := false
	for over := false; !over; {
		select {
		case <-ctx.Done():
			over = true
		case <-beat.C:
		case <-m.changed:
			over = !pause(ctx, batch)
		}
		err := m.save(time.Now())
		if err != nil && !failing {
			slog.Warn("clients would have to announce again after a restart", "err", err)
		}
		failing = err != nil
		if !over {
			over = !pause(ctx, saveEvery-batch)
			if over {
				m.save(time.Now()) // what changed meanwhile
			}
		}
	}
}

// pause reports whether d has passed before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (m *Memory) save(now time.Time) error { return m.SaveAs(m.file, now) }

// SaveAs writes what is remembered to a file, for Open.
func (m *Memory) SaveAs(name string, now time.Time) error {
	f := body{Saved: now}
	for _, c := range m.all() {
		f.Clients = append(f.Clients, line{[]byte(c.Name), c})
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return file.Save(name, b)
}

// all returns a copy of what is remembered.
func (m *Memory) all() (all []Client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.clients)) {
		c := m.clients[name]
		out := c.Client
		out.Swarms = slices.SortedFunc(maps.Values(c.swarms), func(a, b Swarm) int { return bytes.Compare(a.Hash[:], b.Hash[:]) })
		all = append(all, out)
	}
	return all
}
