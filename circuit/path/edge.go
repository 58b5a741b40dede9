package path

import (
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

const (
	// edgeLife is how long a failed edge is avoided: about the time a relay
	// needs to restart or a route to heal.
	edgeLife = 10 * time.Minute

	// maxEdges bounds the memory of failed edges; beyond it the oldest goes.
	maxEdges = 4096
)

// edge is one step of a path, in the direction the circuit is built.
type edge struct{ from, to onion.ID }

// edges remembers which relays couldn't reach which. Which of the two was at
// fault isn't known, so neither is avoided, only the step.
type edges map[edge]time.Time

func (e edges) add(now time.Time, from, to onion.ID) {
	if len(e) >= maxEdges {
		e.trim(now)
	}
	e[edge{from, to}] = now
}

func (e edges) failed(now time.Time, from, to onion.ID) bool {
	at, ok := e[edge{from, to}]
	return ok && now.Sub(at) < edgeLife
}

// trim drops what is over, and if nothing is, the oldest.
func (e edges) trim(now time.Time) {
	var oldest edge
	var at time.Time
	for k, t := range e {
		if now.Sub(t) >= edgeLife {
			delete(e, k)
		} else if at.IsZero() || t.Before(at) {
			oldest, at = k, t
		}
	}
	if len(e) >= maxEdges {
		delete(e, oldest)
	}
}
