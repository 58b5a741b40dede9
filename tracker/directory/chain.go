package directory

import (
	"errors"
	"fmt"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// ErrOld is what a Chain returns for a view older than one it has seen. A
// tracker's views only go forward: whoever shows an older one hides something,
// or is behind.
var ErrOld = errors.New("view is older than one already seen")

// EquivocationError says that a tracker signed two views that can't both be
// true. It tells different people different things and is believed no more.
type EquivocationError struct {
	Tracker [32]byte
	Number  uint64 // of the view that exists twice
}

func (e *EquivocationError) Error() string {
	return fmt.Sprintf("directory: tracker %s signed two different views with the number %d and is no longer believed", onion.ID(e.Tracker).Short(), e.Number)
}

// chainLength is how many views a Chain remembers: two days of hourly ones.
const chainLength = 48

// Chain is what a reader remembers of the views of one tracker, so that none is
// taken back or shown in two forms. The zero value has seen nothing.
type Chain struct {
	links []chainLink // by number, ascending; at most chainLength
}

type chainLink struct {
	number uint64
	hash   [32]byte
}

// Newest returns the number of the newest view seen, 0 for none.
func (c *Chain) Newest() uint64 {
	if len(c.links) == 0 {
		return 0
	}
	return c.links[len(c.links)-1].number
}

// Check reports whether v, verified, goes on from what c has seen. The errors
// are ErrOld and *EquivocationError.
func (c *Chain) Check(v *View) error {
	for _, l := range c.links {
		if l.number == v.Number && l.hash != v.hash {
			return &EquivocationError{v.Tracker(), l.number}
		}
		if l.number+1 == v.Number && l.hash != v.Previous {
			return &EquivocationError{v.Tracker(), l.number}
		}
	}
	if newest := c.Newest(); v.Number < newest {
		return fmt.Errorf("directory: %w: number %d, seen %d", ErrOld, v.Number, newest)
	}
	return nil
}

// Add remembers v, for which Check returned nil.
func (c *Chain) Add(v *View) {
	if v.Number <= c.Newest() && len(c.links) > 0 {
		return
	}
	c.links = append(c.links, chainLink{v.Number, v.hash})
	if n := len(c.links) - chainLength; n > 0 {
		c.links = append([]chainLink(nil), c.links[n:]...)
	}
}
