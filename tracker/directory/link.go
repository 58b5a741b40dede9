package directory

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Link is a tracker in one word of letters and digits, which no shell, chat
// program, browser or QR code changes: the case of its letters does not count.
// It is "shoal1", the version, and the base32 (RFC 4648, no padding) of:
//
//	 0  32  the tracker's key
//	32   …  its address: 4 or 6, the address, port 2
//	 …   1  kind of network: 0 public or private, 1 test
//	 …   1  number of ranges of a private network, 0 to 4; for each: 4 or 6, the address, length 1
//	 …   1  number of entry relays, 0 to 8; for each: id 32, address as above
//	 …   4  first bytes of the hash of "shoal/1 link" || all before
//
// A link without entry relays is for relays: they dial the tracker itself.
type Link struct {
	Tracker Tracker
	Entries []EntryRelay   // at most MaxLinkEntries
	Within  []netip.Prefix // of a private network, as Network.Within
	Test    bool           // of a test network
}

const (
	// LinkPrefix is how each tracker link begins.
	LinkPrefix = "shoal1"

	labelLink = "shoal/1 link"
	linkSum   = 4

	// MaxLinkEntries is the most entry relays in a link.
	MaxLinkEntries = 8

	// MaxLink is the longest tracker link, characters.
	MaxLink = len(LinkPrefix) + (8*maxLinkBytes+4)/5

	maxLinkBytes = 32 + addrSize + 1 + 1 + MaxWithin*(1+16+1) + 1 + MaxLinkEntries*(32+addrSize) + linkSum
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

var (
	errLinkCut     = errors.New("the link is incomplete: copy it whole")
	errLinkChanged = errors.New("the link was changed on its way: copy it again")
)

// String returns the form that ParseLink reads.
func (l Link) String() string {
	if len(l.Entries) > MaxLinkEntries || len(l.Within) > MaxWithin {
		panic(fmt.Sprintf("directory: link with %d entry relays and %d ranges", len(l.Entries), len(l.Within)))
	}
	kind := byte(0)
	if l.Test {
		kind = 1
	}
	b := append([]byte(nil), l.Tracker.Key[:]...)
	b = append(appendAddr(b, l.Tracker.Addr), kind, byte(len(l.Within)))
	for _, p := range l.Within {
		b = append(appendIP(b, p.Addr()), byte(p.Bits()))
	}
	b = append(b, byte(len(l.Entries)))
	for _, e := range l.Entries {
		b = appendAddr(append(b, e.ID[:]...), e.Addr)
	}
	return LinkPrefix + base32Lower.EncodeToString(append(b, checkLink(b)...))
}

func checkLink(b []byte) []byte {
	sum := sha256.Sum256(append([]byte(labelLink), b...))
	return sum[:linkSum]
}

// ParseLink reads what String wrote, in letters of either case. Its errors say
// whether a link was cut short: that is what happens to links.
func ParseLink(s string) (Link, error) {
	l, err := parseLink(strings.ToLower(strings.TrimSpace(s)))
	if err != nil {
		return Link{}, fmt.Errorf("tracker link: %w", err)
	}
	return l, nil
}

func parseLink(s string) (Link, error) {
	text, isLink := strings.CutPrefix(s, LinkPrefix)
	switch {
	case strings.HasPrefix(LinkPrefix, s), strings.HasSuffix(s, "…"), strings.HasSuffix(s, "..."): // a program showed a part of it
		return Link{}, errLinkCut
	case !isLink:
		return Link{}, notLink(s)
	case len(s) > MaxLink:
		return Link{}, fmt.Errorf("%d characters, at most %d", len(s), MaxLink)
	}
	switch len(text) % 8 {
	case 1, 3, 6: // no number of bytes has this many characters: the last one is cut too
		text = text[:len(text)-1]
	}
	b, err := base32Lower.DecodeString(text)
	if err != nil {
		return Link{}, errLinkChanged
	}
	l, err := readLink(b)
	if err != nil {
		return Link{}, err
	}
	if l.String() != s {
		return Link{}, errLinkChanged
	}
	n := Network{Trackers: []Tracker{l.Tracker}, Entries: l.Entries, Within: l.Within, Test: l.Test, ViewEvery: ViewEvery}
	return l, n.Check()
}

func readLink(b []byte) (l Link, err error) {
	r := reader{b: b}
	l.Tracker = Tracker{Key: r.key(), Addr: r.addr()}
	kind := r.byte()
	l.Test = kind == 1
	for range r.count("ranges", 0, MaxWithin) {
		l.Within = append(l.Within, r.prefix())
	}
	for range r.count("entry relays", 0, MaxLinkEntries) {
		l.Entries = append(l.Entries, EntryRelay{ID: onion.ID(r.key()), Addr: r.addr()})
	}
	body := b[:len(b)-len(r.b)]
	sum := r.next(linkSum)
	r.end()
	switch {
	case errors.Is(r.err, errShort):
		return Link{}, errLinkCut
	case r.err != nil, kind > 1, !bytes.Equal(sum, checkLink(body)):
		return Link{}, errLinkChanged
	}
	return l, nil
}

// prefix reads a range of addresses; it may be no valid one.
func (r *reader) prefix() netip.Prefix {
	a := r.ip()
	return netip.PrefixFrom(a, int(r.byte()))
}

// ParseEntry reads an entry relay as a relay prints it: ID@IP:PORT.
func ParseEntry(s string) (EntryRelay, error) {
	name, at, ok := strings.Cut(s, "@")
	if !ok {
		return EntryRelay{}, errors.New("entry relay: want ID@IP:PORT")
	}
	id, err := onion.ParseID(name)
	if err != nil {
		return EntryRelay{}, fmt.Errorf("entry relay: %w", err)
	}
	addr, err := parseAddr(at)
	if err != nil {
		return EntryRelay{}, fmt.Errorf("entry relay: %w", err)
	}
	return EntryRelay{ID: id, Addr: addr}, nil
}

// FromLinks returns the network of the trackers and entry relays that links
// name; entry relays that several of them name count once. All must be of one
// kind of network.
func FromLinks(links ...Link) (Network, error) {
	n := Network{ViewEvery: ViewEvery}
	for i, l := range links {
		if i == 0 {
			n.Within, n.Test = l.Within, l.Test
		}
		other := Network{Within: l.Within, Test: l.Test}
		if other.Ranges() != n.Ranges() || l.Test != n.Test {
			return Network{}, fmt.Errorf("the links are of different networks: one is %s, one is %s", n.kind(), other.kind())
		}
		n.Trackers = append(n.Trackers, l.Tracker)
	}
	seen := make(map[onion.ID]bool)
	for i := range MaxLinkEntries { // in turn, so that no link keeps another's out
		for _, l := range links {
			if i < len(l.Entries) && !seen[l.Entries[i].ID] && len(n.Entries) < MaxEntries {
				seen[l.Entries[i].ID] = true
				n.Entries = append(n.Entries, l.Entries[i])
			}
		}
	}
	return n, n.Check()
}

// kind names n's kind in errors.
func (n *Network) kind() string {
	switch {
	case n.Test:
		return "a test"
	case len(n.Within) > 0:
		return "private within " + n.Ranges()
	}
	return "public"
}
