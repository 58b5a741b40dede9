package testnet

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// writeNetwork writes the network file: a test network of all trackers, with
// as many relays for entries as one file may name.
func (n *Net) writeNetwork(trackers, relays []place) error {
	file := directory.Network{Test: true, ViewEvery: n.config.ViewEvery}
	for _, t := range trackers {
		link, err := directory.ParseLink(t.name)
		if err != nil {
			return err
		}
		file.Trackers = append(file.Trackers, link.Tracker)
	}
	for _, r := range relays[:min(len(relays), directory.MaxEntries)] {
		entry, err := parseEntry(r.name)
		if err != nil {
			return fmt.Errorf("%q of a relay: %w", r.name, err)
		}
		file.Entries = append(file.Entries, entry)
	}
	if err := file.Check(); err != nil {
		return err
	}
	return os.WriteFile(n.Network, file.File(), 0o644)
}

// parseEntry reads ID@ADDR.
func parseEntry(s string) (e directory.EntryRelay, err error) {
	id, addr, _ := strings.Cut(s, "@")
	if e.ID, err = onion.ParseID(id); err != nil {
		return e, err
	}
	e.Addr, err = netip.ParseAddrPort(addr)
	return e, err
}
