package tracker

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

const (
	// maxNames is how many names one circuit may announce under: a swarm has two
	// around the change of its day.
	maxNames = 2

	// nameFor is after how long a name may give way to another: a circuit may
	// stand for days, and the swarm has a new name each.
	nameFor = 20 * time.Hour
)

// visitor is what one circuit has spoken of: one member of one swarm, or one relay.
type visitor struct {
	mu    sync.Mutex
	names [maxNames]spoken // guarded by mu, the oldest first
	n     int              // guarded by mu
	relay onion.ID         // guarded by mu: published; zero for none
}

// spoken is a name, and the key of the one record under it.
type spoken struct {
	name, t [32]byte
	since   time.Time
}

var (
	errNames  = errors.New("tracker: a circuit announces one swarm")
	errMember = errors.New("tracker: a circuit announces one member")
	errRelay  = errors.New("tracker: a circuit publishes one relay")
)

func visitorOf(c *hop.Circuit) *visitor {
	return c.Value(func() any { return new(visitor) }).(*visitor)
}

// announces reports whether a circuit may speak of r's name, and of its record, too.
func (v *visitor) announces(r *announce.Request, now time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := slices.IndexFunc(v.names[:v.n], func(s spoken) bool { return s.name == r.Name })
	if i < 0 {
		if v.n == maxNames {
			if now.Sub(v.names[0].since) < nameFor {
				return errNames
			}
			copy(v.names[:], v.names[1:])
			v.n--
		}
		i = v.n
		v.names[i] = spoken{name: r.Name, since: now}
		v.n++
	}
	if r.Outer == nil {
		return nil
	}
	switch s := &v.names[i]; s.t {
	case r.Outer.T:
	case [32]byte{}:
		s.t = r.Outer.T
	default:
		return errMember
	}
	return nil
}

// publishes reports whether a circuit may speak of relay id.
func (v *visitor) publishes(id onion.ID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.relay != id && v.relay != (onion.ID{}) {
		return errRelay
	}
	v.relay = id
	return nil
}
