package testnet

import (
	"encoding/json"
	"os"
)

// writeNetwork writes the network file: a test network of all trackers, with
// every relay as an entry.
func (n *Net) writeNetwork(trackers, relays []place) error {
	file := struct {
		Test     bool     `json:"test"`
		Trackers []string `json:"trackers"`
		Entries  []string `json:"entries"`
	}{Test: true}
	for _, t := range trackers {
		file.Trackers = append(file.Trackers, t.name)
	}
	for _, r := range relays {
		file.Entries = append(file.Entries, r.name)
	}
	b, err := json.MarshalIndent(file, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(n.Network, append(b, '\n'), 0o644)
}
