package uplink

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
)

// journal logs each change of state once, in words. Nothing in it joins two ends
// of a circuit, names a torrent or holds an address.
type journal struct {
	log *slog.Logger

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
func (j *journal) trackers(n Tally) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n.Asked < n.All || n.Answer == j.answer {
		return
	}
	first := j.answer < 0
	j.answer = n.Answer
	switch {
	case n.Answer < n.All:
		j.log.Warn(fmt.Sprintf("%d of %d trackers answer", n.Answer, n.All))
	case !first:
		j.log.Info(fmt.Sprintf("%d of %d trackers answer", n.Answer, n.All))
	}
}

func (j *journal) guardLost(f *fault.Fault) {
	j.log.Warn("a guard is lost; the other one carries everything", "why", f.Text())
}

func (j *journal) guardBack() { j.log.Info("the guard that was lost is back") }
