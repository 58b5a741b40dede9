// Package linktest is the wire under a link, and a network of such wires, in
// memory: with delay, a rate and buffers, also in the virtual time of
// testing/synctest.
// Not here: what flows on it.
package linktest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Shape is what a wire is like, each way. The zero value has neither delay nor
// limit of rate.
type Shape struct {
	Delay  time.Duration // one way
	Rate   float64       // bytes a second; 0: no limit
	Buffer int           // bytes under way, and waiting to be read, that Write takes; 0: 4 MiB
}

// Pipe returns the two ends of a wire.
func Pipe(s Shape) (a, b net.Conn) {
	if s.Buffer == 0 {
		s.Buffer = 4 << 20
	}
	ab, ba := newLane(s), newLane(s)
	return &end{out: ab, in: ba}, &end{out: ba, in: ab}
}

// lane is one direction.
type lane struct {
	shape Shape

	mu      sync.Mutex
	changed sync.Cond
	packets []packet
	unread  int
	free    time.Time // when the wire has sent all before
	lossy   time.Time // until when what is sent is lost, and repeated
	shut    bool      // no more is written
	dead    bool      // nobody reads
	read    deadline
	write   deadline
}

type packet struct {
	due time.Time
	b   []byte
}

func newLane(s Shape) *lane {
	l := &lane{shape: s}
	l.changed.L = &l.mu
	return l
}

// deadline is guarded by its lane's mu.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (l *lane) set(d *deadline, t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at = t
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), l.wake)
	}
	l.changed.Broadcast()
}

func (l *lane) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.Broadcast()
}

// put takes b, as much as there is room for at a time.
func (l *lane) put(b []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n < len(b) {
		switch {
		case l.shut:
			return n, net.ErrClosed
		case l.dead:
			return n, io.ErrClosedPipe
		case l.write.passed():
			return n, os.ErrDeadlineExceeded
		}
		k := min(len(b)-n, l.shape.Buffer-l.unread)
		if k == 0 {
			l.changed.Wait()
			continue
		}
		l.send(append([]byte(nil), b[n:n+k]...))
		n += k
	}
	return n, nil
}

// send puts b on the wire. Caller holds mu.
func (l *lane) send(b []byte) {
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	if l.shape.Rate > 0 {
		l.free = l.free.Add(time.Duration(float64(len(b)) / l.shape.Rate * 1e9))
	}
	due := l.repeated(l.free).Add(l.shape.Delay)
	l.packets = append(l.packets, packet{due, b})
	l.unread += len(b)
	if wait := due.Sub(now); wait > 0 {
		time.AfterFunc(wait, l.wake)
	} else {
		l.changed.Broadcast()
	}
}

// repeated returns when what TCP sends at at is sent for the last time: again
// and again until it is not lost, after twice as long each time.
func (l *lane) repeated(at time.Time) time.Time {
	for wait := 200*time.Millisecond + 2*l.shape.Delay; at.Before(l.lossy); wait *= 2 {
		at = at.Add(wait)
	}
	return at
}

// Lose has a wire, of which c is an end, lose all that is sent on it for d.
func Lose(c net.Conn, d time.Duration) {
	for _, l := range []*lane{c.(*end).in, c.(*end).out} {
		l.mu.Lock()
		l.lossy = time.Now().Add(d)
		l.mu.Unlock()
	}
}

func (l *lane) get(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.dead:
			return 0, net.ErrClosed
		case l.read.passed():
			return 0, os.ErrDeadlineExceeded
		case len(l.packets) > 0 && !time.Now().Before(l.packets[0].due):
			p := &l.packets[0]
			n := copy(b, p.b)
			if p.b = p.b[n:]; len(p.b) == 0 {
				l.packets = l.packets[1:]
			}
			l.unread -= n
			l.changed.Broadcast()
			return n, nil
		case l.shut && len(l.packets) == 0:
			return 0, io.EOF
		}
		l.changed.Wait()
	}
}

// end is one end of a wire.
type end struct{ out, in *lane }

func (e *end) Read(b []byte) (int, error)  { return e.in.get(b) }
func (e *end) Write(b []byte) (int, error) { return e.out.put(b) }

// Close loses nothing that was written.
func (e *end) Close() error {
	for _, l := range []*lane{e.in, e.out} {
		l.mu.Lock()
		if l == e.out {
			l.shut = true
		} else {
			l.dead = true
		}
		l.changed.Broadcast()
		l.mu.Unlock()
	}
	e.in.set(&e.in.read, time.Time{})
	e.out.set(&e.out.write, time.Time{})
	return nil
}

func (e *end) LocalAddr() net.Addr  { return addr{} }
func (e *end) RemoteAddr() net.Addr { return addr{} }

func (e *end) SetDeadline(t time.Time) error {
	e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.set(&e.in.read, t)
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.out.set(&e.out.write, t)
	return nil
}

type addr struct{}

func (addr) Network() string { return "memory" }
func (addr) String() string  { return "memory" }
