package proxy

import (
	"path/filepath"
	"time"

	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/proxy/memory"
	"github.com/shoal-p2p/shoal/proxy/socks"
)

// openMemory opens what is remembered of clients, and returns those of an
// earlier run that are to be taken back, and those that are gone.
func openMemory(cfg Config) (m *memory.Memory, back, gone []memory.Client, err error) {
	file := ""
	if !cfg.NoSOCKS { // a command ends with its sidecar
		dir, err := state.Volatile(cfg.State)
		if err != nil {
			cfg.Log.Debug("a restart of the sidecar will not remember its clients", "err", err)
		} else {
			file = filepath.Join(dir, "memory")
		}
	}
	var earlier memory.Earlier
	if m, earlier, err = memory.Open(file, time.Now()); err != nil {
		return nil, nil, nil, err
	}
	if earlier.Away > memory.MaxAway {
		return m, nil, earlier.Clients, nil
	}
	back, gone = present(earlier.Clients)
	for _, c := range back { // announces that failed meanwhile are tried again ever later
		for i, s := range c.Swarms {
			c.Swarms[i].Again = max(s.Again, earlier.Away)
		}
	}
	return m, back, gone, nil
}

// present tells those clients that may still run, and can be told apart, from
// those that are gone: the process is there, or it is not known and no other
// client could be meant.
func present(earlier []memory.Client) (back, gone []memory.Client) {
	unnamed := 0
	for _, c := range earlier {
		if socks.IsUnnamed(c.Name) {
			unnamed++
		}
	}
	for _, c := range earlier {
		switch {
		case c.Owner.Known() && !c.Owner.Runs(),
			!c.Owner.Known() && socks.IsUnnamed(c.Name) && unnamed > 1:
			gone = append(gone, c)
		default:
			back = append(back, c)
		}
	}
	return back, gone
}

// known returns where clients with UDP associations were.
func known(earlier []memory.Client) (all []socks.Known) {
	for _, c := range earlier {
		if c.UDP.IsValid() {
			all = append(all, socks.Known{Client: c.Name, UDP: c.UDP, Owner: c.Owner})
		}
	}
	return all
}
