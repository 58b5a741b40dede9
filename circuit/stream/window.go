package stream

import "github.com/shoal-p2p/shoal/circuit/window"

const (
	windowFloor = 64 << 10

	// windowOpening is the window of a stream whose far side has proven itself.
	// With a third more a path of 1 MB/s is promised above 512 KiB before the
	// window has measured it, and streams over a long one are no faster.
	windowOpening = 96 << 10

	// windowCeiling carries 25 MB/s over a round trip of 300 ms.
	windowCeiling = 8 << 20

	// windowStep makes a WINDOW, which costs a cell, one cell in 64.
	windowStep = 64 * MaxData
)

// kind is the kind of all windows of streams, bytes of data. The memory behind
// one is at most about twice the window, and as much as the window when records
// are full.
var kind = window.Kind{Floor: windowFloor, Opening: windowOpening, Ceiling: windowCeiling, Step: windowStep}

// inbox counts what came, in bytes since the stream began, and decides with its
// window what the far side may send.
type inbox struct {
	window.Window
	received uint64
	read     uint64
}

// receive counts n bytes that arrived. It reports false, and counts nothing,
// when they go beyond the limit.
func (i *inbox) receive(n int) bool {
	if uint64(n) > i.Granted()-i.received {
		return false
	}
	i.received += uint64(n)
	if i.Timed(i.received) {
		i.Received(i.received, window.Clock())
	}
	return true
}

// widen allows what a stream in use begins with, and reports whether the far
// side must be told the limit.
func (i *inbox) widen() bool {
	_, tell := i.Widen(i.read, 1<<63)
	return tell
}

// drain counts n bytes that were read, and reports whether the far side must be told the limit.
func (i *inbox) drain(n int) bool {
	i.read += uint64(n)
	_, tell := i.Grant(i.read, 1<<63, window.Clock)
	return tell
}
