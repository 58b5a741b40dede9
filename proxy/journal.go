package proxy

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/seldom"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// journal logs each change of state once, in words. Nothing in it joins two ends
// of a circuit, names a torrent or holds an address.
type journal struct {
	log   *slog.Logger
	often seldom.Log

	mu       sync.Mutex
	began    time.Time            // guarded by mu, as is all below
	wasReady bool                 // the last that was logged
	causes   map[fault.Cause]bool // logged since it was last ready
	answer   int                  // trackers, as last logged; below 0: never
}

func newJournal(log *slog.Logger) *journal {
	return &journal{log: log, began: time.Now(), answer: -1, causes: make(map[fault.Cause]bool)}
}

// ready logs that the sidecar is ready, or why it is not: each cause once until
// it is ready again.
func (j *journal) ready(f *fault.Fault) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case f == nil && j.wasReady:
	case f == nil:
		j.log.Info("ready", "after", time.Since(j.began).Round(100*time.Millisecond))
		j.wasReady = true
		clear(j.causes)
	case f.Cause == fault.Starting, j.causes[f.Cause]:
	default:
		if j.wasReady {
			j.wasReady, j.began = false, time.Now()
		}
		j.causes[f.Cause] = true
		j.log.Warn("not ready", attrs(f)...)
	}
}

// attrs is f in a log: why, and what to do where there is anything.
func attrs(f *fault.Fault) []any {
	if f.Advice == "" {
		return []any{"why", f.Text()}
	}
	return []any{"why", f.Text(), "advice", f.Advice}
}

// trackers logs how many trackers answer, when that changes.
func (j *journal) trackers(n tally) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n.asked < n.all || n.answer == j.answer {
		return
	}
	first := j.answer < 0
	j.answer = n.answer
	switch {
	case n.answer < n.all:
		j.log.Warn(fmt.Sprintf("%d of %d trackers answer", n.answer, n.all))
	case !first:
		j.log.Info(fmt.Sprintf("%d of %d trackers answer", n.answer, n.all))
	}
}

func (j *journal) guardLost(f *fault.Fault) {
	j.log.Warn("a guard is lost; the other one carries everything", "why", f.Text())
}

func (j *journal) guardBack() { j.log.Info("the guard that was lost is back") }

// failed logs a fault of the sidecar's own.
func (j *journal) failed(err error) {
	j.often.Note("failed: "+err.Error(), func(times uint64) {
		j.log.Error("an announce or a connection failed", "err", err, "times", times)
	})
}

// client logs that another client has appeared, and by what it is known.
func (j *journal) client(name swarm.Client) {
	by := "its connections, without a user name"
	switch {
	case name == confined:
		by = "shoal run"
	case strings.HasPrefix(string(name), "user "):
		by = "a SOCKS user name"
	}
	j.log.Info("a client uses this sidecar", "known by", by)
}

// refused logs a refusal.
func (j *journal) refused(r status.Reason) {
	j.often.Note("refused: "+r.String(), func(times uint64) {
		j.log.Info("refused", "what", r.Text(), "times", times)
	})
}
