// Package swarm is where a tracker keeps the sealed records of swarms until
// they expire: in memory, or in Redis for those who outgrow one process.
// Not here: what is in a record and who may store it (package announce; callers
// have verified what they put), circuits, answers.
package swarm

import (
	"context"
	"errors"
	"time"

	"github.com/shoal-p2p/shoal/tracker/announce"
)

// The errors that the tracker's answers depend on.
var (
	// ErrFull says that a limit is reached: of all records, of swarms, or of
	// the one swarm's records.
	ErrFull = errors.New("swarm: limit reached")

	// ErrStale says that a record with a later expiry is held under the same
	// key: what came is a replay, or late.
	ErrStale = errors.New("swarm: a newer record is held")
)

// Counts are how many records a swarm holds. Some may have ended and not be
// swept yet: hints.
type Counts struct{ Seeders, Leechers int }

// Store keeps records by the name of their swarm and by their T: one for each
// pair, the newest. It may be used by many goroutines. Memory never fails but
// with the errors above; Redis may with others, or when ctx ends.
type Store interface {
	// Put stores o, which the caller has verified, in place of the record with
	// the same T if there is one. The errors are ErrFull and ErrStale.
	Put(ctx context.Context, name [32]byte, o *announce.Outer, now time.Time) error

	// Remove takes out the record with this T, if there is one.
	Remove(ctx context.Context, name, t [32]byte) error

	// Get appends to b at most n records that have not ended, chosen at random
	// each time, as they are sent: announce.OuterSize bytes each. It returns the
	// longer b, and how many records there are.
	Get(ctx context.Context, b []byte, name [32]byte, n int, now time.Time) ([]byte, Counts, error)

	// Expire takes out the records that ended, or some thousands of them, and
	// returns how many. A caller that gets more than 0 may call again at once.
	Expire(ctx context.Context, now time.Time) (int, error)
}

// Limits bound a Store. A zero field means its default.
type Limits struct {
	Records  int // in all; default 1,000,000
	Swarms   int // default 500,000
	PerSwarm int // records in one swarm; default 20,000
}

func (l Limits) withDefaults() Limits {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&l.Records, 1_000_000)
	set(&l.Swarms, 500_000)
	set(&l.PerSwarm, 20_000)
	return l
}
