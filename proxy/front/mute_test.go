package front

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// reads is a connection whose reads are given.
type reads struct {
	swarm.Conn
	n   int
	err error
}

func (r reads) Read([]byte) (int, error) { return r.n, r.err }

// readsOnce is a session that reads until something comes.
type readsOnce struct{}

func (readsOnce) Cancel() {}
func (readsOnce) Serve(_ context.Context, conn swarm.Conn) {
	conn.Read(make([]byte, 1))
	conn.Read(make([]byte, 1))
}

// TestAClientThatClosesEachConnectionIsNamed also tries one that does so once, one
// that sends something, and one whose connections end for another reason.
func TestAClientThatClosesEachConnectionIsNamed(t *testing.T) {
	closed, reset, word := reads{err: io.EOF}, reads{err: syscall.ECONNRESET}, reads{n: 1}
	silent, ours := reads{err: os.ErrDeadlineExceeded}, reads{err: net.ErrClosed}
	for name, c := range map[string]struct {
		conns []reads
		want  bool
	}{
		"none":                    {nil, false},
		"one":                     {[]reads{closed}, false},
		"two":                     {[]reads{closed, reset}, true},
		"a word before":           {[]reads{word, closed, closed}, true},
		"a word after":            {[]reads{closed, closed, word}, false},
		"a word between":          {[]reads{closed, word, closed}, false},
		"silence is no end":       {[]reads{closed, silent, silent}, false},
		"closed on the way to it": {[]reads{closed, ours, ours}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var m mute
			for _, conn := range c.conns {
				attended{readsOnce{}, &m}.Serve(t.Context(), conn)
			}
			if got := m.shows(time.Now()); got != c.want {
				t.Errorf("%s: shown %v, want %v", name, got, c.want)
			}
			if m.shows(time.Now().Add(muteFor)) {
				t.Errorf("%s: still shown after %v", name, muteFor)
			}
		})
	}
}
