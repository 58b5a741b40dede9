package front

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/proxy/announce"
	"github.com/shoal-p2p/shoal/proxy/dht"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// Client is one torrent client of this sidecar.
type Client struct {
	f    *Front
	name swarm.Client
	udp  *announce.UDP
	dht  *dht.Server
	jobs chan struct{} // one for each packet that is being answered
	mute mute

	holds int         // guarded by f.mu: what keeps it from being forgotten
	acted atomic.Bool // it has done what a torrent client does

	mu       sync.Mutex
	addr     netip.Addr                   // guarded by mu: where the client is, loopback mostly
	listens  map[swarm.Hash]uint16        // guarded by mu: the port that it announced
	runs     map[swarm.Hash]swarm.Swarm   // guarded by mu: streams are taken for it
	rejoined map[swarm.Hash]time.Time     // guarded by mu: when a stand-in of an earlier run last asked for peers
	door     Door                         // guarded by mu: the newest that it used
	asked    bool                         // guarded by mu: a DHT packet has come by that door
	returns  time.Time                    // guarded by mu: after a restart of the sidecar, when the client has a door again
	silent   map[swarm.Hash]chan struct{} // guarded by mu: swarms of an earlier run; closed when the client asks again, or is out
}

// Use notes that the client uses door, nil for none, and where it is: the zero
// Addr where nothing says so.
func (c *Client) Use(door Door, at netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if door != nil && door != c.door {
		c.asked = false
		c.f.begin(func(ctx context.Context) { c.greet(ctx, door) })
	}
	c.door = door
	if at.IsValid() {
		c.addr = at
		c.f.cfg.Memory.Met(c.name, c.addr)
	}
}

func (c *Client) acts() { c.acted.Store(true) }

// greetAfter is when a client that has sent no DHT packet is pinged: one whose
// routing table is empty asks nobody, and drops what comes before it is ready.
var greetAfter = []time.Duration{time.Second, 2 * time.Second, 7 * time.Second}

// greet makes a client know its DHT node.
func (c *Client) greet(ctx context.Context, door Door) {
	for _, wait := range greetAfter {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		c.mu.Lock()
		over := c.asked || c.door != door
		c.mu.Unlock()
		if over {
			return
		}
		if at := door.Addr(); at.IsValid() {
			c.dht.Greet(at)
		}
	}
}

// rests reports whether the client is in no swarm, waits for no answer and is
// not about to return.
func (c *Client) rests() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.runs) == 0 && len(c.jobs) == 0 && time.Now().After(c.returns)
}

// lastDoor returns the newest door that the client used, nil when it has none.
func (c *Client) lastDoor() Door {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.door
}
