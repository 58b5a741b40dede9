package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/meter"
	"github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// network starts a network of the real programs, with one tracker.
func (b *bench) network(ctx context.Context, name string, c testnet.Config) (*testnet.Net, error) {
	dir, err := b.folder(name)
	if err != nil {
		return nil, err
	}
	if c.Trackers == 0 {
		c.Trackers = 1
	}
	c.State, c.Shoal, c.Tracker = filepath.Join(dir, "net"), b.shoal, b.tracker
	return testnet.Start(ctx, c)
}

// relayPIDs returns the process ids of a network's relays.
func relayPIDs(n *testnet.Net) (pids []int) {
	for _, r := range n.Relays {
		pids = append(pids, r.PID)
	}
	return pids
}

// mostResident returns the memory of the relay that holds most, bytes.
func mostResident(n *testnet.Net) (most int64, err error) {
	for _, r := range n.Relays {
		m, err := meter.Resident(r.PID)
		if err != nil {
			return 0, err
		}
		most = max(most, m)
	}
	return most, nil
}

// meeting is how swarms are joined by a source behind one sidecar and a sink
// behind another.
type meeting struct {
	from, to *testnet.Sidecar // the source's, the sink's
	users    []string         // of the source at its sidecar, each a peer of the sink's; none: one without a name
	hashes   []peer.Hash
	limit    time.Duration // for each end; 0: meetLimit
}

// meetLimit is how long it may take until a sink hears of a source.
const meetLimit = 30 * time.Second

// met is what became of it.
type met struct {
	ways         []peer.Way // of the sink, for each swarm as many as the source has users; To is "" where it found nobody
	source, sink []peer.Swarm
	missing      int    // ways where the sink found nobody
	trouble      string // of the first of them
}

// atOnce is how many torrents a client announces at the same time.
const atOnce = 32

// meet announces both ends until they know of each other in every swarm.
func (e *ends) meet(m meeting) (out met, err error) {
	if m.limit == 0 {
		m.limit = meetLimit
	}
	if len(m.users) == 0 {
		m.users = []string{""}
	}
	for _, user := range m.users {
		var from peer.Announced
		o := peer.Announce{SOCKS: m.from.SOCKS, User: user, Hashes: m.hashes, Port: e.port, Limit: m.limit, AtOnce: atOnce}
		if err := e.source.Call("Peer.Announce", o, &from); err != nil {
			return out, err
		}
		out.source = from.Swarms
	}
	var to peer.Announced
	o := peer.Announce{SOCKS: m.to.SOCKS, Hashes: m.hashes, Peers: len(m.users), Limit: m.limit, AtOnce: atOnce}
	if err := e.sink.Call("Peer.Announce", o, &to); err != nil {
		return out, err
	}
	out.sink = to.Swarms
	for i, s := range to.Swarms {
		for k := range m.users {
			way := peer.Way{SOCKS: m.to.SOCKS, Hash: m.hashes[i]}
			if k < len(s.Peers) {
				way.To = s.Peers[k]
			} else {
				out.missing++
				if out.trouble == "" {
					out.trouble = fmt.Sprintf("the source heard %q, the sink %q", out.source[i].Trouble, s.Trouble)
				}
			}
			out.ways = append(out.ways, way)
		}
	}
	return out, nil
}

// must is meet where every swarm has to come to it.
func (e *ends) must(m meeting) ([]peer.Way, error) {
	out, err := e.meet(m)
	if err == nil && out.missing > 0 {
		err = fmt.Errorf("%d of %d peers were not found by the sink: %s", out.missing, len(out.ways), out.trouble)
	}
	return out.ways, err
}

func hashes(n int) (hs []peer.Hash) {
	for range n {
		hs = append(hs, peer.RandomHash())
	}
	return hs
}
