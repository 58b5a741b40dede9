// Package bare is a sidecar without the half that faces a torrent client: the
// packages of `shoal proxy` from swarms downwards, and nobody who scrubs,
// judges or answers. What it reads from a stream is what the sidecar at the
// other end let out; what it writes is what a hostile one could.
// Not here: what is said in a stream (the tests say so).
package bare

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/window"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/proxy/swarm"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

const (
	ownHops = 2         // as `shoal proxy` has them
	memory  = 256 << 20 // of windows, bytes
)

// Node is one such sidecar.
type Node struct {
	keeper   *directory.Keeper
	swarms   *swarm.Net
	circuits *circuit.Client
	entries  []path.Relay

	cancel context.CancelFunc
	upper  sync.WaitGroup // ends before what it stands on
	below  context.CancelFunc
	lower  sync.WaitGroup
}

// Start starts a node of the network in a file, which dials from source and
// keeps what it must in state. It returns once circuits can be built.
func Start(ctx context.Context, network, state string, source netip.Addr) (*Node, error) {
	net, err := directory.LoadNetwork(network)
	if err != nil {
		return nil, err
	}
	n := new(Node)
	for _, e := range net.Entries {
		n.entries = append(n.entries, path.Relay{ID: e.ID, Addr: e.Addr, Weight: 1})
	}
	if n.keeper, err = directory.OpenKeeper(filepath.Join(state, "views"), net, time.Now); err != nil {
		return nil, err
	}
	guards, err := path.LoadGuards(filepath.Join(state, "guards"))
	if err != nil {
		return nil, err
	}
	chooser := path.New(net.Rules(), path.NewRand(), guards, nil)
	links := &link.Pool{DialTCP: link.DialFrom(source)}
	n.circuits = circuit.New(circuit.Config{
		Links: links, Chooser: chooser, Relays: n.keeper.Relays, Own: ownHops,
		Step:   func() uint32 { return onion.Step(n.now()) },
		Budget: window.NewBudget(memory / cell.FrameSize), Hello: directory.Hello,
	})
	n.swarms = swarm.New(swarm.Config{
		State: state, Circuits: n.circuits, Chooser: chooser, Relays: n.keeper.Relays, Relay: n.keeper.Relay,
		Trackers: n.trackers, Budget: window.NewBudget(memory), Now: n.now,
	})
	var above, below context.Context
	above, n.cancel = context.WithCancel(context.Background())
	below, n.below = context.WithCancel(context.Background())
	n.lower.Go(func() { links.Run(below) })
	n.lower.Go(func() { n.keeper.Follow(below, n.circuits, true, n.source) })
	n.upper.Go(func() { n.swarms.Run(above) })
	err = process.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		err := n.keeper.Ready()
		return err == nil && len(n.trackers()) > 0, err
	})
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("bare: %w", err)
	}
	return n, nil
}

func (n *Node) now() time.Time { return time.Now().Add(n.keeper.ClockError()) }

func (n *Node) trackers() (all []path.Relay) {
	for _, t := range n.keeper.Trackers() {
		all = append(all, t.Hop())
	}
	return all
}

// source is who is asked for views: an entry relay.
func (n *Node) source(asked []onion.ID) (path.Relay, bool) {
	for _, e := range n.entries {
		if !slices.Contains(asked, e.ID) {
			return e, true
		}
	}
	return path.Relay{}, false
}

// Close withdraws what was announced, and returns when nothing runs any more.
func (n *Node) Close() {
	n.cancel()
	n.upper.Wait()
	n.below()
	n.circuits.Close()
	n.lower.Wait()
}

// Tracker returns one of the network's trackers.
func (n *Node) Tracker() (key [32]byte) { return n.trackers()[0].ID }

// Join makes this node a member of a swarm that others can find.
func (n *Node) Join(ctx context.Context, hash [20]byte, seeds bool) (swarm.Swarm, error) {
	s, err := n.swarms.Join("bare", hash)
	if err != nil {
		return nil, err
	}
	a := swarm.Announce{Event: swarm.Started, Left: swarm.Unknown, NumWant: -1}
	if seeds {
		a.Left = 0
	}
	err = process.Until(ctx, 200*time.Millisecond, func() (bool, error) {
		_, err := s.Announce(ctx, a)
		return err == nil, err
	})
	return s, err
}

// Dial opens a stream to a member that s learns of other than itself.
func (n *Node) Dial(ctx context.Context, s swarm.Swarm) (peer swarm.Key, conn swarm.Conn, err error) {
	err = process.Until(ctx, 200*time.Millisecond, func() (bool, error) {
		answer, err := s.Announce(ctx, swarm.Announce{Left: swarm.Unknown, NumWant: -1})
		if len(answer.Peers) == 0 {
			return false, fmt.Errorf("no peers: %w", err)
		}
		peer = answer.Peers[0]
		conn, err = s.Dial(ctx, peer)
		return err == nil, err
	})
	return peer, conn, err
}
