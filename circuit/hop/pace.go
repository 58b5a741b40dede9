package hop

import (
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// pace keeps handshakes to half a processor while cells are carried, so that a
// flood of CREATEs slows down other CREATEs and nobody's stream.
type pace struct {
	mu    sync.Mutex
	cells uint64    // carried, when last asked
	at    time.Time // of that
	busy  bool
}

const (
	paceEvery = 10 * time.Millisecond

	// paceCells is the rate, in cells a second, below which no cell waits for a
	// processor: 8 MB/s.
	paceCells = 8_000_000 / cell.Payload
)

// rest returns how long one of so many workers rests after a handshake that
// took so long.
func (p *pace) rest(took time.Duration, cells uint64, workers int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if dt := now.Sub(p.at); dt >= paceEvery {
		p.busy = float64(cells-p.cells) > paceCells*dt.Seconds()
		p.cells, p.at = cells, now
	}
	if !p.busy {
		return 0
	}
	return took * time.Duration(2*workers-1)
}
