package front

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
	"github.com/shoal-p2p/shoal/proxy/utp"
)

// mute finds a client that is bound to a network interface or address other than
// the sidecar's. libtorrent then closes each connection to a peer as soon as it
// stands, because its own end is 127.0.0.1. Its tracker works, and it shows nothing.
type mute struct {
	mu   sync.Mutex
	n    int       // guarded by mu: connections in a row on which the client sent nothing
	last time.Time // guarded by mu: when it closed the last of them
}

const (
	muteMin = 2                // a single one may have been closed for another reason
	muteFor = 10 * time.Minute // how long after the last the warning stays
)

// textMute is the warning on the status page.
const textMute = "A client announces but never dials a peer: it closes each connection as soon as it stands. " +
	"It is probably bound to a network interface or address: set that to any (qBittorrent: Tools > Options > Advanced > Network interface; Deluge: Preferences > Network), " +
	"or start Shoal with --socks at the address that the client is bound to, and a password."

// note records whether the client sent anything on a connection to a peer.
func (m *mute) note(spoke bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if spoke {
		m.n = 0
		return
	}
	m.n++
	m.last = time.Now()
}

// shows reports whether the warning is due.
func (m *mute) shows(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n >= muteMin && now.Sub(m.last) < muteFor
}

// Attend returns s, and notices a client that closes each connection at once.
func (c *Client) Attend(s utp.Session) utp.Session { return attended{s, &c.mute} }

// attended is a session whose connection is watched.
type attended struct {
	utp.Session
	to *mute
}

// Serve implements utp.Session.
func (a attended) Serve(ctx context.Context, conn swarm.Conn) {
	a.Session.Serve(ctx, &listened{Conn: conn, to: a.to})
}

// listened is the client's connection. Only one goroutine at a time reads it.
type listened struct {
	swarm.Conn
	to    *mute
	known bool
}

func (l *listened) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if !l.known && (n > 0 || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
		l.known = true
		l.to.note(n > 0)
	}
	return n, err
}
