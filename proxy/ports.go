package proxy

import (
	"encoding/json"
	"net/netip"

	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

var portsFile = &state.Kind{
	Name: "client-ports", Version: 1, Limit: 256 << 10, Policy: state.Cache, What: "the addresses of clients",
	Lost: "a client that takes connections by UDP alone is reached once it has sent a packet",
}

// loadPorts returns where clients' UDP packets came from in an earlier run.
func loadPorts(file string) (ports map[swarm.Client]netip.AddrPort, err error) {
	_, err = portsFile.Load(file, func(b []byte) error {
		ports = nil
		return json.Unmarshal(b, &ports)
	})
	return ports, err
}

// savePorts writes ports for the next run, readable by its owner only.
func savePorts(file string, ports map[swarm.Client]netip.AddrPort) error {
	b, err := json.Marshal(ports)
	if err != nil {
		return err
	}
	return portsFile.Save(file, b)
}
