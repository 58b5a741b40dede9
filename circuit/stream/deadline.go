package stream

import (
	"sync"
	"time"
)

// deadline is a point in time that waiters are woken at. The fields are
// guarded by mu, which set, pass and their callers hold.
type deadline struct {
	mu    *sync.Mutex
	waits *sync.Cond

	passed bool
	cancel chan struct{} // closed when passed becomes true
	at     time.Time     // zero: never
	timer  *time.Timer
}

func newDeadline(mu *sync.Mutex) deadline {
	return deadline{mu: mu, waits: sync.NewCond(mu), cancel: make(chan struct{})}
}

// set moves the deadline to t; zero means never.
func (d *deadline) set(t time.Time) {
	if d.passed {
		d.passed, d.cancel = false, make(chan struct{})
	}
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at = time.Time{}
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.pass()
		return
	}
	d.at = time.Now().Add(wait) // by the monotonic clock, whatever clock t is by
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.fire)
	} else {
		d.timer.Reset(wait)
	}
}

// fire runs on the timer, and may be late: then the deadline has moved.
func (d *deadline) fire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.at.IsZero() && !time.Now().Before(d.at) {
		d.pass()
	}
}

// pass wakes all who wait, and cancels what is under way.
func (d *deadline) pass() {
	d.at = time.Time{}
	if !d.passed {
		d.passed = true
		close(d.cancel)
	}
	d.waits.Broadcast()
}

// stop ends the timer.
func (d *deadline) stop() {
	d.at = time.Time{}
	if d.timer != nil {
		d.timer.Stop()
	}
}
