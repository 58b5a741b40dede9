// Package witness says, from a recording of every packet of a test network,
// what each party got to see, and holds it against what it may see.
// Not here: how packets are recorded (package capture), how the network and its
// clients are started (packages testnet and clients).
package witness

import (
	"bytes"
	"encoding/base32"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoal-p2p/shoal/integration/capture"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// Party is one process of the network and whom it exchanged packets with.
type Party struct {
	Name     string // "relay 3"
	Addr     netip.Addr
	Contacts []netip.Addr // in ascending order
}

// Report is what a recording shows.
type Report struct {
	Trackers, Relays, Sidecars []Party

	Links int   // connections between parties
	Bytes int64 // carried by them

	// Wrong are the sentences that should not be true. None: nobody saw what
	// they must never see.
	Wrong []string
}

// Look reads a recording of the loopback interface of net, during which its
// sidecars carried torrents. names are further words that may appear on no
// link, such as the host name of a torrent's tracker.
func Look(trace *capture.Trace, net *testnet.Net, torrents []torrent.Torrent, names ...string) Report {
	l := look{trace: trace, parties: make(map[netip.Addr]string)}
	for i, t := range net.Trackers {
		l.add(&l.Trackers, "tracker", i, netip.MustParseAddrPort(t.Addr).Addr())
	}
	for i, r := range net.Relays {
		l.add(&l.Relays, "relay", i, netip.MustParseAddrPort(r.Addr).Addr())
	}
	for i, s := range net.Sidecars {
		l.add(&l.Sidecars, "sidecar", i, s.Source)
	}
	l.contacts()
	l.content(torrents, names)
	if trace.Cut > 0 {
		l.wrong("%d bytes are missing from the recording", trace.Cut)
	}
	return l.Report
}

type look struct {
	Report
	trace   *capture.Trace
	parties map[netip.Addr]string // the kind of each
}

func (l *look) wrong(format string, args ...any) {
	l.Wrong = append(l.Wrong, fmt.Sprintf(format, args...))
}

func (l *look) add(to *[]Party, kind string, i int, addr netip.Addr) {
	contacts := make([]netip.Addr, 0, 8)
	for a := range l.trace.Contacts(addr) {
		contacts = append(contacts, a)
	}
	slices.SortFunc(contacts, netip.Addr.Compare)
	*to = append(*to, Party{Name: fmt.Sprintf("%s %d", kind, i+1), Addr: addr, Contacts: contacts})
	l.parties[addr] = kind
}

// contacts checks who talked to whom: sidecars and trackers to relays alone,
// relays to nobody outside the network.
func (l *look) contacts() {
	may := map[string][]string{
		"sidecar": {"relay"},
		"relay":   {"relay", "tracker", "sidecar"},
		"tracker": {"relay", "tracker"},
	}
	for _, p := range slices.Concat(l.Sidecars, l.Trackers, l.Relays) {
		for _, a := range p.Contacts {
			kind, known := l.parties[a]
			if !known {
				l.wrong("%s exchanged packets with %v, which is not of the network", p.Name, a)
			} else if !slices.Contains(may[l.parties[p.Addr]], kind) {
				l.wrong("%s exchanged packets with a %s, %v", p.Name, kind, a)
			}
		}
	}
}

// content checks that no link carried a piece of the files, or what they are
// called by.
func (l *look) content(torrents []torrent.Torrent, names []string) {
	var files [][]byte
	words := [][]byte{[]byte("BitTorrent protocol"), []byte("info_hash")}
	for _, n := range names {
		words = append(words, []byte(n))
	}
	for _, t := range torrents {
		files = append(files, t.Data)
		hex := t.Hash.String()
		words = append(words, []byte(t.Name), t.Hash[:], []byte(hex), []byte(strings.ToUpper(hex)),
			[]byte(base32.StdEncoding.EncodeToString(t.Hash[:])))
	}
	finder := capture.NewFinder(files...)
	links := make(map[string]bool)
	for _, f := range l.trace.Flows(func(capture.Flow) bool { return true }) {
		if l.parties[f.From.Addr()] == "" && l.parties[f.To.Addr()] == "" {
			continue // between a client and its sidecar
		}
		payload := l.trace.Payload[f]
		l.Bytes += int64(len(payload))
		ends := []string{f.From.String(), f.To.String()}
		slices.Sort(ends)
		links[strings.Join(ends, "-")] = true
		if at := finder.Find(payload); at >= 0 {
			l.wrong("%v carried bytes of the file, at %d", f, at)
		}
		for _, w := range words {
			if at := bytes.Index(payload, w); at >= 0 {
				l.wrong("%v carried %q, at %d", f, w, at)
			}
		}
	}
	l.Links = len(links)
}

// SawBoth returns the relays that exchanged packets with both sidecars, as a
// relay does that happens to be guard, or entry, of both. It can't tell that
// their circuits meet, but it is no proof of anything either.
func (r Report) SawBoth(a, b int) []Party {
	var both []Party
	for _, p := range r.Relays {
		if slices.Contains(p.Contacts, r.Sidecars[a].Addr) && slices.Contains(p.Contacts, r.Sidecars[b].Addr) {
			both = append(both, p)
		}
	}
	return both
}

// Numbers returns which of the relays a party exchanged packets with, counted from 1.
func (r Report) Numbers(p Party) []int {
	var some []int
	for i, relay := range r.Relays {
		if slices.Contains(p.Contacts, relay.Addr) {
			some = append(some, i+1)
		}
	}
	return some
}
