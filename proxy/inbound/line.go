package inbound

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// maxSaid is how much a client says before it is answered: a handshake, and
// what some send right behind it. It must wait with more.
const maxSaid = 16 << 10

// line is a stream whose far client has not answered yet: until it does, the
// client can go over to another stream, and doesn't notice.
type line struct {
	spare   func() swarm.Conn // a stream to use when this one fails, or nil
	wait    time.Duration     // for another one to come by swap, then
	onHeard func()            // called once

	moving chan struct{} // taken by who looks for another stream; there is one
	wmu    sync.Mutex    // held while the stream is written to

	mu      sync.Mutex
	cur     swarm.Conn
	said    []byte        // all that was written, until heard
	resend  bool          // cur has not been told yet what was said
	heard   bool          // something was read
	ended   bool          // nothing more will be written
	closed  bool          // by Close
	lost    bool          // no other stream was found in time
	changed chan struct{} // closed when one of the above changes
	rd, wd  time.Time     // deadlines
}

func newLine(s swarm.Conn) *line {
	return &line{cur: s, changed: make(chan struct{}), moving: make(chan struct{}, 1)}
}

// change wakes who waits. l.mu is held.
func (l *line) change() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// swap puts s in the stream's place, if nothing was heard of that. s hears all
// that was said.
func (l *line) swap(s swarm.Conn) bool {
	l.mu.Lock()
	if l.heard || l.closed || l.lost {
		l.mu.Unlock()
		return false
	}
	old := l.cur
	l.cur, l.resend = s, true
	s.SetReadDeadline(l.rd)
	s.SetWriteDeadline(l.wd)
	l.change()
	l.mu.Unlock()
	old.Close() // ends a Write to it
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.flush()
	return true
}

// flush tells a new stream what was said. l.wmu is held. An error is for the
// next Read to find.
func (l *line) flush() {
	l.mu.Lock()
	if !l.resend {
		l.mu.Unlock()
		return
	}
	l.resend = false
	said, s, ended := slices.Clone(l.said), l.cur, l.ended
	l.mu.Unlock()
	s.Write(said)
	if ended {
		s.CloseWrite()
	}
}

// move finds a stream in place of s, which has failed without an answer.
func (l *line) move(s swarm.Conn) bool {
	l.moving <- struct{}{}
	defer func() { <-l.moving }()
	if l.moved(s) {
		return true
	}
	if l.spare != nil {
		if other := l.spare(); other != nil {
			if l.swap(other) {
				return true
			}
			other.Close()
		}
	}
	if l.wait == 0 {
		l.lose(s)
		return l.moved(s)
	}
	t := time.NewTimer(l.wait)
	defer t.Stop()
	for {
		l.mu.Lock()
		changed, over := l.changed, l.heard || l.closed || l.lost || l.cur != s
		l.mu.Unlock()
		if over {
			return l.moved(s)
		}
		select {
		case <-changed:
		case <-t.C:
			l.lose(s)
		}
	}
}

// lose gives the line up, unless another stream has taken the place of s.
func (l *line) lose(s swarm.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = l.lost || l.cur == s
}

func (l *line) moved(s swarm.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur != s && !l.closed
}

// Read implements net.Conn.
func (l *line) Read(b []byte) (int, error) {
	for {
		l.mu.Lock()
		s := l.cur
		l.mu.Unlock()
		n, err := s.Read(b)
		l.mu.Lock()
		switch {
		case s != l.cur && !l.closed: // what an abandoned stream said is not heard
			l.mu.Unlock()
			continue
		case n > 0:
			first := !l.heard
			l.heard, l.said = true, nil
			if first {
				l.change()
			}
			l.mu.Unlock()
			if first && l.onHeard != nil {
				l.onHeard()
			}
			return n, err
		case err == nil, l.heard, l.closed, errors.Is(err, os.ErrDeadlineExceeded):
			l.mu.Unlock()
			return 0, err
		}
		l.mu.Unlock()
		if !l.move(s) {
			return 0, err
		}
	}
}

// Write implements net.Conn.
func (l *line) Write(b []byte) (int, error) {
	if err := l.room(len(b)); err != nil {
		return 0, err
	}
	l.wmu.Lock()
	l.flush()
	l.mu.Lock()
	if !l.heard {
		l.said = append(l.said, b...)
	}
	s := l.cur
	l.mu.Unlock()
	n, err := s.Write(b)
	l.wmu.Unlock()
	if err == nil || l.moved(s) {
		return len(b), nil // or another stream was told, or will be
	}
	l.mu.Lock()
	final := l.heard || l.closed || errors.Is(err, os.ErrDeadlineExceeded)
	l.mu.Unlock()
	if !final && l.move(s) {
		return len(b), nil
	}
	return n, err
}

// room waits until n more bytes may be said.
func (l *line) room(n int) error {
	for {
		l.mu.Lock()
		ok := l.heard || len(l.said) == 0 || len(l.said)+n <= maxSaid
		changed, closed, until := l.changed, l.closed, l.wd
		l.mu.Unlock()
		if closed {
			return net.ErrClosed
		}
		if ok {
			return nil
		}
		var late <-chan time.Time
		if !until.IsZero() {
			wait := time.Until(until)
			if wait <= 0 {
				return os.ErrDeadlineExceeded
			}
			t := time.NewTimer(wait)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-changed:
		case <-late:
			return os.ErrDeadlineExceeded
		}
	}
}

// CloseWrite says that nothing more will be written.
func (l *line) CloseWrite() error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.flush()
	l.mu.Lock()
	l.ended = true
	s := l.cur
	l.mu.Unlock()
	return s.CloseWrite()
}

// Close implements net.Conn.
func (l *line) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.change()
	s := l.cur
	l.mu.Unlock()
	return s.Close()
}

// LocalAddr implements net.Conn.
func (l *line) LocalAddr() net.Addr { return l.stream().LocalAddr() }

// RemoteAddr implements net.Conn.
func (l *line) RemoteAddr() net.Addr { return l.stream().RemoteAddr() }

func (l *line) stream() swarm.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur
}

// SetDeadline implements net.Conn.
func (l *line) SetDeadline(t time.Time) error {
	return errors.Join(l.SetReadDeadline(t), l.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (l *line) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rd = t
	return l.cur.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (l *line) SetWriteDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wd = t
	l.change() // for room
	return l.cur.SetWriteDeadline(t)
}
