package path

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/state"
)

// maxFile bounds each file, bytes.
const maxFile = 8 << 20

var (
	guardsKind = &state.Kind{
		Name: "guards", Version: 1, Limit: maxFile, Policy: state.Cache, What: "the guards",
		Lost: "new guards are drawn: a few more relays learn this computer's address",
	}
	pinsKind = &state.Kind{
		Name: "middles", Version: 1, Limit: maxFile, Policy: state.Cache, What: "the middle relays of each swarm",
		Lost: "new middle relays are drawn: a few more relays stand beside the guards",
	}
)

// The files. Times are RFC 3339, ids as onion.ID prints them.
type guardsFile struct {
	Entry    string      `json:"entry,omitempty"`
	Replaced time.Time   `json:"replaced,omitzero"`
	Guards   []guardLine `json:"guards"`
}

type guardLine struct {
	ID        string         `json:"id"`
	Addr      netip.AddrPort `json:"addr"`
	Added     time.Time      `json:"added"`
	Until     time.Time      `json:"until"`
	Listed    time.Time      `json:"listed"`
	Rejected  bool           `json:"rejected,omitempty"`
	Tried     int            `json:"tried"`
	Stood     int            `json:"stood"`
	DownSince time.Time      `json:"down_since,omitzero"`
	Downs     int            `json:"downs,omitempty"`
}

type pinsFile struct {
	Keys map[string][]pinLine `json:"keys"`
}

type pinLine struct {
	ID     string    `json:"id"`
	Until  time.Time `json:"until"`
	Listed time.Time `json:"listed"`
}

// LoadGuards reads the guards of file. A file that is missing or damaged gives
// an empty set.
func LoadGuards(file string) (*Guards, error) {
	gs := &Guards{}
	_, err := guardsKind.Load(file, func(b []byte) error {
		read, err := parseGuards(b)
		if err == nil {
			gs = read
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return gs, nil
}

func parseGuards(b []byte) (*Guards, error) {
	var f guardsFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	gs := &Guards{replaced: f.Replaced}
	for _, l := range f.Guards {
		g, err := l.guard()
		if err != nil {
			return nil, err
		}
		if gs.get(g.id) != nil {
			return nil, fmt.Errorf("guard %s twice", g.id.Short())
		}
		gs.list = append(gs.list, g)
	}
	if f.Entry != "" {
		id, err := onion.ParseID(f.Entry)
		if err != nil {
			return nil, err
		}
		gs.entry = id
	}
	return gs, nil
}

func (l guardLine) guard() (guard, error) {
	id, err := onion.ParseID(l.ID)
	if err != nil {
		return guard{}, err
	}
	if life := l.Until.Sub(l.Added); life <= 0 || life > maxGuardLife {
		return guard{}, fmt.Errorf("guard %s: %v is no lifetime", id.Short(), life)
	}
	if l.Tried < 0 || l.Tried > halveAt+1 || l.Stood < 0 || l.Stood > l.Tried || l.Downs < 0 {
		return guard{}, fmt.Errorf("guard %s: counts %d of %d, %d", id.Short(), l.Stood, l.Tried, l.Downs)
	}
	return guard{
		id: id, addr: l.Addr, added: l.Added, until: l.Until, listed: l.Listed,
		rejected: l.Rejected,
		tried:    l.Tried, stood: l.Stood, downSince: l.DownSince, downs: l.Downs,
	}, nil
}

// LoadPins reads the pinned middles of file as LoadGuards does.
func LoadPins(file string) (*Pins, error) {
	ps := &Pins{}
	_, err := pinsKind.Load(file, func(b []byte) error {
		read, err := parsePinned(b)
		if err == nil {
			ps = read
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return ps, nil
}

func parsePinned(b []byte) (*Pins, error) {
	var f pinsFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if len(f.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys exceed %d", len(f.Keys), maxKeys)
	}
	ps := &Pins{keys: make(map[Key]*pinned)}
	for k, lines := range f.Keys {
		key, err := parseKey(k)
		if err != nil {
			return nil, err
		}
		if ps.keys[key], err = parsePins(lines); err != nil {
			return nil, err
		}
	}
	return ps, nil
}

func parseKey(s string) (Key, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(Key{}) {
		return Key{}, fmt.Errorf("a key of %d letters", len(s))
	}
	return Key(b), nil
}

func parsePins(lines []pinLine) (*pinned, error) {
	if len(lines) > PinsPerKey {
		return nil, fmt.Errorf("%d middles exceed %d", len(lines), PinsPerKey)
	}
	p := &pinned{}
	for _, l := range lines {
		id, err := onion.ParseID(l.ID)
		if err != nil {
			return nil, err
		}
		if life := l.Until.Sub(l.Listed); life > maxPinLife {
			return nil, fmt.Errorf("middle %s: %v is too long", id.Short(), life)
		}
		if p.used.Before(l.Listed) {
			p.used = l.Listed
		}
		p.list = append(p.list, pin{id: id, until: l.Until, listed: l.Listed})
	}
	return p, nil
}

// SaveGuards writes the guards to file, atomically and readable to its owner
// alone, if they changed since the last time. Call it after a Choose: guards
// that a crash forgets are guards drawn again.
func (c *Chooser) SaveGuards(file string) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	f := guardsFile{Replaced: c.guards.replaced, Guards: []guardLine{}}
	if c.guards.entry != (onion.ID{}) {
		f.Entry = c.guards.entry.String()
	}
	for _, g := range c.guards.list {
		f.Guards = append(f.Guards, guardLine{
			ID: g.id.String(), Addr: g.addr, Added: g.added, Until: g.until, Listed: g.listed,
			Rejected: g.rejected,
			Tried:    g.tried, Stood: g.stood, DownSince: g.downSince, Downs: g.downs,
		})
	}
	changed := c.guards.changed
	c.guards.changed = false
	c.mu.Unlock()
	if !changed {
		return nil
	}
	if err := save(guardsKind, file, f); err != nil {
		c.mu.Lock()
		c.guards.changed = true
		c.mu.Unlock()
		return err
	}
	return nil
}

// SavePins writes the pinned middles to file as SaveGuards does.
func (c *Chooser) SavePins(file string) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	f := pinsFile{Keys: make(map[string][]pinLine, len(c.pins.keys))}
	for k, p := range c.pins.keys {
		lines := []pinLine{}
		for _, q := range p.list {
			lines = append(lines, pinLine{ID: q.id.String(), Until: q.until, Listed: q.listed})
		}
		f.Keys[base64.RawURLEncoding.EncodeToString(k[:])] = lines
	}
	changed := c.pins.changed
	c.pins.changed = false
	c.mu.Unlock()
	if !changed {
		return nil
	}
	if err := save(pinsKind, file, f); err != nil {
		c.mu.Lock()
		c.pins.changed = true
		c.mu.Unlock()
		return err
	}
	return nil
}

// save writes v to file.
func save(k *state.Kind, file string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return fmt.Errorf("path: %w", err)
	}
	return k.Save(file, append(b, '\n'))
}
