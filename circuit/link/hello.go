package link

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/shoal-p2p/shoal/circuit/window"
)

// The first bytes inside TLS. A dialler sends its version alone. An acceptor's
// are, big endian:
//
//	 0  1  version
//	 1  8  its time, seconds since 1970
//	 9  2  length of its hello
//	11  …  its hello

const (
	timeSize  = 8
	helloHead = timeSize + 2

	// MaxHello bounds an acceptor's hello, bytes.
	MaxHello = 8 << 10

	// maxTime keeps times from the network far from where time arithmetic
	// overflows: the year 9999.
	maxTime = 253402300799
)

// appendHello appends what an acceptor sends behind its version.
func appendHello(b []byte, now time.Time, hello []byte) []byte {
	if len(hello) > MaxHello {
		panic(fmt.Sprintf("link: hello of %d bytes, at most %d", len(hello), MaxHello))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(max(now.Unix(), 0)))
	return append(binary.BigEndian.AppendUint16(b, uint16(len(hello))), hello...)
}

// readHello reads what appendHello wrote.
func readHello(c io.Reader) (theirs neighbourTime, hello []byte, err error) {
	var b [helloHead]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return theirs, nil, err
	}
	s, n := binary.BigEndian.Uint64(b[:]), int(binary.BigEndian.Uint16(b[timeSize:]))
	if s > maxTime {
		return theirs, nil, fmt.Errorf("time %d is beyond the year 9999", s)
	}
	if n > MaxHello {
		return theirs, nil, fmt.Errorf("hello of %d bytes, at most %d", n, MaxHello)
	}
	hello = make([]byte, n)
	if _, err := io.ReadFull(c, hello); err != nil {
		return theirs, nil, err
	}
	return neighbourTime{time.Unix(int64(s), 0), window.Clock()}, hello, nil
}

// readVersion reads the version of the other side.
func readVersion(c io.Reader) error {
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	if b[0] != version {
		return wrongVersion(b[0])
	}
	return nil
}

// neighbourTime is what the other side's clock showed, and when that was.
type neighbourTime struct {
	shown time.Time
	at    time.Duration // on the clock of package window
}

// Time returns what the acceptor's clock shows now, for the side that dialled.
// It is the acceptor's word.
func (l *Link) Time() time.Time { return l.time.shown.Add(window.Clock() - l.time.at) }

// ClockAhead returns by how much this computer's clock is ahead of the
// acceptor's, to some seconds; below 0 when it is behind.
func (l *Link) ClockAhead() time.Duration { return time.Now().Round(0).Sub(l.Time()) }
