package path

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/state"
)

// maxFile bounds the file, bytes.
const maxFile = 8 << 20

var guardsKind = &state.Kind{
	Name: "guards", Version: 1, Limit: maxFile, Policy: state.Cache, What: "the guards",
	Lost: "new guards are drawn: a few more relays learn this computer's address",
}

// The file. Times are RFC 3339, ids as onion.ID prints them.
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

// SaveGuards writes the guards to file, readable to its owner alone, if they
// changed since the last time. Call it after a Choose: guards that a crash
// forgets are guards drawn again.
func (c *Chooser) SaveGuards(file string) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	f := c.guards.file()
	changed := c.guards.changed
	c.guards.changed = false
	c.mu.Unlock()
	if !changed {
		return nil
	}
	b, err := json.MarshalIndent(f, "", "\t")
	if err == nil {
		err = guardsKind.Save(file, append(b, '\n'))
	}
	if err != nil {
		c.mu.Lock()
		c.guards.changed = true
		c.mu.Unlock()
	}
	return err
}

func (gs *Guards) file() guardsFile {
	f := guardsFile{Replaced: gs.replaced, Guards: []guardLine{}}
	if gs.entry != (onion.ID{}) {
		f.Entry = gs.entry.String()
	}
	for _, g := range gs.list {
		f.Guards = append(f.Guards, guardLine{
			ID: g.id.String(), Addr: g.addr, Added: g.added, Until: g.until, Listed: g.listed,
			Rejected: g.rejected,
			Tried:    g.tried, Stood: g.stood, DownSince: g.downSince, Downs: g.downs,
		})
	}
	return f
}
