package link

import (
	"sync"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// The bounds of a window, in cells.
const (
	// Floor is what a neighbour may send on a fresh circuit before it receives a
	// CREDIT: four cells, and the reserve that data may not touch.
	Floor = 4 + cell.Reserve

	// opening is the first window of a circuit that streams are about to use: 256 KiB.
	opening = 256 << 10 / cell.Payload

	// Ceiling is 8 MiB: 28 MB/s over a round trip of 300 ms.
	Ceiling = 8 << 20 / cell.Payload

	// creditStep is how much is taken before the neighbour is sent a CREDIT, of
	// at most a few dozen bytes on the wire: 256 KiB.
	creditStep = 256 << 10 / cell.Payload
)

// Cells is the kind of all windows that count cells.
var Cells = window.Kind{Floor: Floor, Opening: opening, Spare: cell.Reserve, Ceiling: Ceiling, Step: creditStep}

// Intake grants credit on a circuit whose cells are taken as they come, into
// memory that others account for. Only the link's reader may call Arrived.
type Intake struct {
	mu       sync.Mutex
	win      window.Window
	received uint64
}

// NewIntake returns an intake whose window grows out of b.
func NewIntake(b *window.Budget) *Intake { return &Intake{win: window.OpenFree(&Cells, b)} }

// Widen allows the neighbour at once what a circuit in use begins with.
func (i *Intake) Widen(from *Circuit) {
	i.mu.Lock()
	total, ok := i.win.Widen(i.received, 1<<63)
	i.mu.Unlock()
	if ok {
		from.Grant(total)
	}
}

// Arrived notes a cell and allows the neighbour more where that is worth a CREDIT.
func (i *Intake) Arrived(from *Circuit) {
	i.mu.Lock()
	i.received++
	if i.win.Timed(i.received) {
		i.win.Received(i.received, window.Clock())
	}
	total, ok := i.win.Grant(i.received, 1<<63, window.Clock)
	i.mu.Unlock()
	if ok {
		from.Grant(total)
	}
}

// Close gives the intake's memory back.
func (i *Intake) Close() {
	i.mu.Lock()
	i.win.Close()
	i.mu.Unlock()
}
