package link

import (
	"time"

	"github.com/shoal-p2p/shoal/circuit/window"
)

// TCP finds out that the other side is gone only when something is sent, and
// then after many minutes. So neither side of a link is ever silent for long:
// one that has sent nothing since it last looked sends KEEPALIVE, and one that
// has received nothing for holdTime closes the link. Nobody is asked for an
// answer: an answer could wait for seconds behind what is under way to a slow
// line, while what comes from there shows that the line is fine.
//
// A loss of up to three seconds is no end. In the worst case it begins just
// before the KEEPALIVE that is due after 4 s; TCP's repeats then come after 0.2,
// 0.6, 1.4 and 3.0 s, over a long path after 0.5, 1.5 and 3.5 s.
//
// What an observer learns: that a link is idle, which shows without it, too.
const (
	keepaliveEvery = 2 * time.Second // so a side is silent for twice as long at most
	holdTime       = 8 * time.Second
)

// keepalive is what a link knows of its silence.
type keepalive struct {
	due   bool          // send KEEPALIVE, unless anything else goes out
	timer *time.Timer   // nil before Run and after the link's end
	next  time.Duration // when timer fires, on the clock of package window
	out   uint64        // bytes sent when it fired last
}

// end stops the timer. The link's err is set: look does no more if it is about to run.
func (k *keepalive) end() {
	if k.timer != nil {
		k.timer.Stop()
	}
}

// keepalive begins to look after l's silence.
func (l *Link) keepalive() {
	now := window.Clock()
	l.wire.heard.Store(int64(now))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.alive.next = now + keepaliveEvery
		l.alive.timer = time.AfterFunc(keepaliveEvery, l.look)
	}
}

// look sends KEEPALIVE if nothing else was sent, and closes a link on which
// nothing came.
func (l *Link) look() {
	now := window.Clock()
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	heard := time.Duration(l.wire.heard.Load())
	if now-l.alive.next > keepaliveEvery/2 {
		// This process was stopped, or got no processor: what came may still
		// be unread.
		heard = now
		l.wire.heard.Store(int64(now))
	}
	if now-heard >= holdTime {
		l.mu.Unlock()
		l.abandon()
		return
	}
	sent := l.bytesOut.Load()
	l.alive.due = l.alive.due || sent == l.alive.out
	l.alive.out = sent
	due := l.alive.due
	wait := min(keepaliveEvery, heard+holdTime-now)
	l.alive.next = now + wait
	l.alive.timer.Reset(wait)
	l.mu.Unlock()
	if due {
		l.flushOut()
	}
}

// abandon closes a link whose other side is gone. What is under way to it is
// dropped, and should it still be there it hears of the end.
func (l *Link) abandon() {
	if tcp, ok := l.wire.Conn.(interface{ SetLinger(seconds int) error }); ok {
		tcp.SetLinger(0)
	}
	l.close(silence())
}
