package directory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
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
//	  "test": true,
//	  "view_every": "2s"
//	}
//
// Addresses are IP addresses with a port: a name would tell a resolver who is
// about to use Shoal. The last two are for test networks and may be left out.
type Network struct {
	Trackers []Tracker
	Entries  []EntryRelay

	// Test marks a network for trying things out: relays may share a /16 and
	// have addresses that are not public, and circuits may have no own relays.
	// Nobody is hidden in such a network.
	Test bool

	// ViewEvery is how often trackers sign a view: the constant ViewEvery, but
	// in a test network, where it may be shorter. How long views count stays.
	ViewEvery time.Duration
}

// Rules are what n says about paths.
func (n *Network) Rules() path.Rules { return path.Rules{Test: n.Test, SameNet: n.Test} }

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
	}
	seen := make(map[[32]byte]bool)
	for _, t := range n.Trackers {
		if t.Key == [32]byte{} || seen[t.Key] {
			return errors.New("a tracker's key is zero or named twice")
		}
		seen[t.Key] = true
	}
	for _, e := range n.Entries {
		if e.ID == (onion.ID{}) || seen[e.ID] {
			return errors.New("an entry relay's id is zero, named twice or a tracker's")
		}
		seen[e.ID] = true
	}
	return nil
}

// File returns n as a network file.
func (n *Network) File() []byte {
	file := networkFile{Test: n.Test}
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

// parseAddr reads IP:PORT in the one form in which it is written.
func parseAddr(s string) (netip.AddrPort, error) {
	if len(s) > len("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535") {
		return netip.AddrPort{}, fmt.Errorf("address of %d characters", len(s))
	}
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("address %q is not IP:PORT; names are not looked up", s)
	case a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Addr().Zone() != "" || a.Addr().Is4In6() || a.String() != s:
		return netip.AddrPort{}, fmt.Errorf("address %q can't be dialled", s)
	}
	return a, nil
}

// Link is a tracker in one string, to be passed on by any means that keeps it
// as it is:
//
//	shoal://KEY@HOST:PORT?entry=ID@HOST:PORT&entry=ID@HOST:PORT
type Link struct {
	Tracker Tracker
	Entries []EntryRelay
}

const (
	linkScheme = "shoal://"
	linkEntry  = "entry="

	// MaxLink is the longest tracker link, bytes.
	MaxLink = 8 << 10
)

// String returns the form that ParseLink reads.
func (l Link) String() string {
	var b strings.Builder
	b.WriteString(linkScheme + onion.ID(l.Tracker.Key).String() + "@" + l.Tracker.Addr.String())
	for i, e := range l.Entries {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(linkEntry + e.ID.String() + "@" + e.Addr.String())
	}
	return b.String()
}

// ParseLink reads what String wrote, and nothing else.
func ParseLink(s string) (Link, error) {
	if len(s) > MaxLink {
		return Link{}, fmt.Errorf("tracker link of %d characters, at most %d", len(s), MaxLink)
	}
	rest, ok := strings.CutPrefix(s, linkScheme)
	if !ok {
		return Link{}, notLink(s)
	}
	head, query, some := strings.Cut(rest, "?")
	key, addr, err := parseAt(head)
	if err != nil {
		return Link{}, fmt.Errorf("tracker link: %w", err)
	}
	l := Link{Tracker: Tracker{Key: key, Addr: addr}}
	if some {
		for part := range strings.SplitSeq(query, "&") {
			entry, ok := strings.CutPrefix(part, linkEntry)
			if !ok {
				return Link{}, fmt.Errorf("tracker link: a part does not begin with %s", linkEntry)
			}
			id, addr, err := parseAt(entry)
			if err != nil {
				return Link{}, fmt.Errorf("tracker link: entry relay: %w", err)
			}
			l.Entries = append(l.Entries, EntryRelay{ID: id, Addr: addr})
		}
	}
	n := Network{Trackers: []Tracker{l.Tracker}, Entries: l.Entries, ViewEvery: ViewEvery}
	if err := n.Check(); err != nil {
		return Link{}, fmt.Errorf("tracker link: %w", err)
	}
	return l, nil
}

// ParseEntry reads an entry relay as a relay prints it: ID@IP:PORT.
func ParseEntry(s string) (EntryRelay, error) {
	id, addr, err := parseAt(s)
	if err != nil {
		return EntryRelay{}, fmt.Errorf("entry relay: %w", err)
	}
	return EntryRelay{ID: id, Addr: addr}, nil
}

func parseAt(s string) (id onion.ID, a netip.AddrPort, err error) {
	name, addr, ok := strings.Cut(s, "@")
	if !ok {
		return id, a, errors.New("want KEY@IP:PORT")
	}
	if id, err = onion.ParseID(name); err != nil {
		return id, a, err
	}
	a, err = parseAddr(addr)
	return id, a, err
}

// FromLinks returns the network of the trackers and entry relays that links
// name; entry relays that several of them name count once.
func FromLinks(links ...Link) (Network, error) {
	n := Network{ViewEvery: ViewEvery}
	seen := make(map[onion.ID]bool)
	for _, l := range links {
		n.Trackers = append(n.Trackers, l.Tracker)
		for _, e := range l.Entries {
			if !seen[e.ID] {
				seen[e.ID] = true
				n.Entries = append(n.Entries, e)
			}
		}
	}
	return n, n.Check()
}
