package directory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
)

// MaxNetworkFile is the longest network file, bytes.
const MaxNetworkFile = 64 << 10

// Tracker is one of the trackers that a network believes.
type Tracker struct {
	Key  [32]byte
	Addr netip.AddrPort
}

// EntryRelay is a relay where a first start gets its first views.
type EntryRelay struct {
	ID   onion.ID
	Addr netip.AddrPort
}

// Network is whom a sidecar or relay believes, from a network file or from
// tracker links. A network file is JSON:
//
//	{
//	  "trackers": [{"key": "KEY", "addr": "192.0.2.1:9000"}],
//	  "entries":  [{"id": "ID", "addr": "192.0.2.2:9001"}],
//	  "within": ["100.64.0.0/10"],
//	  "test": true,
//	  "view_every": "2s"
//	}
//
// Addresses are IP addresses with a port: a name would tell a resolver who is
// about to use Shoal. A private network has "within", a test network the last
// two; a public network has none of these.
type Network struct {
	Trackers []Tracker
	Entries  []EntryRelay

	// Within are the ranges of private addresses that a private network lives
	// in, e.g. those of a LAN or a VPN: its relays and trackers have addresses
	// there and nowhere else. A public network has none.
	Within []netip.Prefix

	// Test marks a network for trying things out: relays may share a /16 and
	// have addresses that are not public, and circuits may have no own relays.
	// Nobody is hidden in such a network.
	Test bool

	// ViewEvery is how often trackers sign a view: the constant ViewEvery, but
	// in a test network, where it may be shorter. How long views count stays.
	ViewEvery time.Duration
}

// Rules are what n says about paths.
func (n *Network) Rules() path.Rules {
	return path.Rules{Test: n.Test, SameNet: n.Test, Private: len(n.Within) > 0}
}

// Trusts says whom a user believes who has few trackers, or nothing.
func (n *Network) Trusts() string {
	switch len(n.Trackers) {
	case 1:
		return "this network has one tracker: it alone decides which relays there are, so you trust it not to make up its own"
	case 2:
		return "this network has two trackers: a relay needs both, so you trust each of them not to hide relays from you"
	}
	return ""
}

// Tracker reports whether key is one of n's trackers, and where it is.
func (n *Network) Tracker(key [32]byte) (Tracker, bool) {
	for _, t := range n.Trackers {
		if t.Key == key {
			return t, true
		}
	}
	return Tracker{}, false
}

type networkFile struct {
	Trackers []trackerLine `json:"trackers"`
	Entries  []entryLine   `json:"entries,omitempty"`
	Within   []string      `json:"within,omitempty"`
	Test     bool          `json:"test,omitempty"`
	Every    string        `json:"view_every,omitempty"`
}

type trackerLine struct {
	Key  string `json:"key"`
	Addr string `json:"addr"`
}

type entryLine struct {
	ID   string `json:"id"`
	Addr string `json:"addr"`
}

// LoadNetwork reads the network file at path.
func LoadNetwork(path string) (Network, error) {
	f, err := os.Open(path)
	if err != nil {
		return Network{}, unreadable(path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxNetworkFile+1))
	if err != nil {
		return Network{}, unreadable(path, err)
	}
	n, err := ParseNetwork(b)
	if err != nil {
		return Network{}, fmt.Errorf("network file %s: %w", path, err)
	}
	return n, nil
}

// ParseNetwork reads a network file. What it doesn't know it refuses: a
// misspelt setting must not be a silent one.
func ParseNetwork(b []byte) (Network, error) {
	if len(b) > MaxNetworkFile {
		return Network{}, notNetwork(b, fmt.Errorf("longer than %d bytes", MaxNetworkFile))
	}
	b = bytes.TrimPrefix(b, utf8Mark)
	var file networkFile
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return Network{}, notNetwork(b, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Network{}, errors.New("something follows the closing brace")
	}
	n := Network{Test: file.Test, ViewEvery: ViewEvery}
	var err error
	if n.Within, err = ParseWithin(file.Within); err != nil {
		return Network{}, fmt.Errorf("within: %w", err)
	}
	for _, line := range file.Trackers {
		key, err := onion.ParseID(line.Key)
		if err != nil {
			return Network{}, fmt.Errorf("key of a tracker: %w", err)
		}
		addr, err := parseAddr(line.Addr)
		if err != nil {
			return Network{}, err
		}
		n.Trackers = append(n.Trackers, Tracker{Key: key, Addr: addr})
	}
	for _, line := range file.Entries {
		id, err := onion.ParseID(line.ID)
		if err != nil {
			return Network{}, fmt.Errorf("id of an entry relay: %w", err)
		}
		addr, err := parseAddr(line.Addr)
		if err != nil {
			return Network{}, err
		}
		n.Entries = append(n.Entries, EntryRelay{ID: id, Addr: addr})
	}
	if file.Every != "" {
		every, err := time.ParseDuration(file.Every)
		if err != nil || every <= 0 || every > ViewEvery {
			return Network{}, fmt.Errorf("view_every is %q, want a duration of at most %v", file.Every, ViewEvery)
		}
		n.ViewEvery = every
	}
	return n, n.Check()
}

// Check reports what keeps n from being a network.
func (n *Network) Check() error {
	switch {
	case len(n.Trackers) == 0:
		return errors.New("no tracker named")
	case len(n.Trackers) > MaxTrackers:
		return fmt.Errorf("%d trackers, at most %d", len(n.Trackers), MaxTrackers)
	case len(n.Entries) > MaxEntries:
		return fmt.Errorf("%d entry relays, at most %d", len(n.Entries), MaxEntries)
	case n.ViewEvery != ViewEvery && !n.Test:
		return errors.New("view_every is for test networks")
	case len(n.Within) > 0 && n.Test:
		return errors.New("within is for private networks, and test takes any address: one of them, not both")
	}
	if err := CheckWithin(n.Within); err != nil {
		return fmt.Errorf("within: %w", err)
	}
	seen := make(map[[32]byte]bool)
	for _, t := range n.Trackers {
		if t.Key == [32]byte{} || seen[t.Key] {
			return errors.New("a tracker's key is zero or named twice")
		}
		seen[t.Key] = true
		if err := n.check(t.Addr.Addr()); err != nil {
			return fmt.Errorf("tracker %s: %w", onion.ID(t.Key).Short(), err)
		}
	}
	for _, e := range n.Entries {
		if e.ID == (onion.ID{}) || seen[e.ID] {
			return errors.New("an entry relay's id is zero, named twice or a tracker's")
		}
		seen[e.ID] = true
		if err := n.check(e.Addr.Addr()); err != nil {
			return fmt.Errorf("entry relay %s: %w", e.ID.Short(), err)
		}
	}
	return nil
}

// File returns n as a network file.
func (n *Network) File() []byte {
	file := networkFile{Test: n.Test}
	for _, p := range n.Within {
		file.Within = append(file.Within, p.String())
	}
	for _, t := range n.Trackers {
		file.Trackers = append(file.Trackers, trackerLine{onion.ID(t.Key).String(), t.Addr.String()})
	}
	for _, e := range n.Entries {
		file.Entries = append(file.Entries, entryLine{e.ID.String(), e.Addr.String()})
	}
	if n.ViewEvery != ViewEvery {
		file.Every = n.ViewEvery.String()
	}
	b, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		panic(err) // strings and bools only
	}
	return append(b, '\n')
}
