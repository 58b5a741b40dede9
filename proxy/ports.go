package proxy

import (
	"encoding/json"
	"net/netip"
	"os"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// maxPorts bounds the file of where clients were, bytes.
const maxPorts = 256 << 10

// loadPorts returns where clients' UDP packets came from in an earlier run. It
// is a help, no more: what can't be read counts as nothing.
func loadPorts(file string) map[swarm.Client]netip.AddrPort {
	b, err := os.ReadFile(file)
	if err != nil || len(b) > maxPorts {
		return nil
	}
	var ports map[swarm.Client]netip.AddrPort
	if json.Unmarshal(b, &ports) != nil {
		return nil
	}
	return ports
}

// savePorts writes ports for the next run, readable by its owner only.
func savePorts(file string, ports map[swarm.Client]netip.AddrPort) error {
	b, err := json.Marshal(ports)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
