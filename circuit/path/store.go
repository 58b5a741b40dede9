package path

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// fileVersion is the version field of both files.
//
//	1  first
const fileVersion = 1

// maxFile bounds what is read of a file, bytes.
const maxFile = 8 << 20

// CorruptError says that a file could not be understood. It was renamed to
// Kept; nothing was lost or overwritten, and the caller may go on with the
// empty set it got.
type CorruptError struct {
	File, Kept string
	Err        error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("path: %s is damaged (%v); kept as %s", e.File, e.Err, e.Kept)
}

// Unwrap returns what was wrong with the file.
func (e *CorruptError) Unwrap() error { return e.Err }

// The files. Times are RFC 3339, ids as onion.ID prints them.
type guardsFile struct {
	Version  int         `json:"version"`
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
	Version int                  `json:"version"`
	Keys    map[string][]pinLine `json:"keys"`
}

type pinLine struct {
	ID     string    `json:"id"`
	Until  time.Time `json:"until"`
	Listed time.Time `json:"listed"`
}

// LoadGuards reads the guards of file. A file that isn't there gives an empty
// set; a damaged one an empty set and a *CorruptError; any other error (not
// readable, a newer version) comes with nil and leaves the file alone.
func LoadGuards(file string) (*Guards, error) {
	var f guardsFile
	gs := &Guards{}
	err := load(file, &f, func() (int, error) {
		for _, l := range f.Guards {
			g, err := l.guard()
			if err != nil {
				return f.Version, err
			}
			if gs.get(g.id) != nil {
				return f.Version, fmt.Errorf("guard %s twice", g.id.Short())
			}
			gs.list = append(gs.list, g)
		}
		if f.Entry != "" {
			id, err := onion.ParseID(f.Entry)
			if err != nil {
				return f.Version, err
			}
			gs.entry = id
		}
		gs.replaced = f.Replaced
		return f.Version, nil
	})
	var corrupt *CorruptError
	switch {
	case errors.As(err, &corrupt):
		return &Guards{}, err
	case err != nil:
		return nil, err
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

// LoadPins reads the pinned middles of file, with errors as LoadGuards.
func LoadPins(file string) (*Pins, error) {
	var f pinsFile
	ps := &Pins{keys: make(map[Key]*pinned)}
	err := load(file, &f, func() (int, error) {
		if len(f.Keys) > maxKeys {
			return f.Version, fmt.Errorf("%d keys exceed %d", len(f.Keys), maxKeys)
		}
		for k, lines := range f.Keys {
			key, err := parseKey(k)
			if err != nil {
				return f.Version, err
			}
			p, err := parsePins(lines)
			if err != nil {
				return f.Version, err
			}
			ps.keys[key] = p
		}
		return f.Version, nil
	})
	var corrupt *CorruptError
	switch {
	case errors.As(err, &corrupt):
		return &Pins{}, err
	case err != nil:
		return nil, err
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
	f := guardsFile{Version: fileVersion, Replaced: c.guards.replaced, Guards: []guardLine{}}
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
	if err := save(file, f); err != nil {
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
	f := pinsFile{Version: fileVersion, Keys: make(map[string][]pinLine, len(c.pins.keys))}
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
	if err := save(file, f); err != nil {
		c.mu.Lock()
		c.pins.changed = true
		c.mu.Unlock()
		return err
	}
	return nil
}

// load decodes file into v and calls parse, which returns the file's version.
func load(file string, v any, parse func() (version int, err error)) error {
	b, err := read(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("path: %w", err)
	}
	// A newer version may not even decode: look at its number first.
	var head struct{ Version int }
	if json.Unmarshal(b, &head) == nil && head.Version > fileVersion {
		return fmt.Errorf("path: %s is of version %d, this program knows %d", file, head.Version, fileVersion)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(v); err != nil {
		return setAside(file, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return setAside(file, errors.New("bytes after its end"))
	}
	version, err := parse()
	if err == nil && version != fileVersion {
		err = fmt.Errorf("version %d", version)
	}
	if err != nil {
		return setAside(file, err)
	}
	return nil
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One byte more than allowed makes a longer file fail to decode.
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// setAside renames a damaged file to the first free name beside it.
func setAside(file string, cause error) error {
	for i := 1; i < 1000; i++ {
		kept := fmt.Sprintf("%s.damaged-%d", file, i)
		if _, err := os.Lstat(kept); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := os.Rename(file, kept); err != nil {
			return fmt.Errorf("path: %s is damaged (%v) and can't be set aside: %w", file, cause, err)
		}
		return &CorruptError{File: file, Kept: kept, Err: cause}
	}
	return fmt.Errorf("path: %s is damaged (%v) and a thousand others lie beside it", file, cause)
}

// save writes v to file so that a crash leaves the old file or the new one.
func save(file string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return fmt.Errorf("path: %w", err)
	}
	// CreateTemp makes it 0600.
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".new-*")
	if err != nil {
		return fmt.Errorf("path: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("path: %w", err)
	}
	return nil
}
