package testnet

import (
	"fmt"
	"os"

	"github.com/shoal-p2p/shoal/tracker/directory"
)

// writeNetwork writes the network file: a test network of all trackers, with
// as many relays for entries as one file may name.
func (n *Net) writeNetwork(trackers, relays []place) error {
	file := directory.Network{Test: true, ViewEvery: n.config.ViewEvery}
	for _, t := range trackers {
		id, err := directory.ParseEntry(t.name)
		if err != nil {
			return fmt.Errorf("%q of a tracker: %w", t.name, err)
		}
		file.Trackers = append(file.Trackers, directory.Tracker{Key: [32]byte(id.ID), Addr: id.Addr})
	}
	for _, r := range relays[:min(len(relays), directory.MaxEntries)] {
		entry, err := directory.ParseEntry(r.name)
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
