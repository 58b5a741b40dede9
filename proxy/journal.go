package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// refusedEvery is how often a kind of refusal is logged after its first, with
// how many there were.
const refusedEvery = 10 * time.Minute

// journal logs each change of state once, in words. Nothing in it joins two ends
// of a circuit, names a torrent or holds an address.
type journal struct {
	log *slog.Logger

	mu       sync.Mutex
	began    time.Time            // guarded by mu, as is all below
	wasReady bool                 // the last that was logged
	causes   map[fault.Cause]bool // logged since it was last ready
	answer   int                  // trackers, as last logged; below 0: never
	refusals map[status.Reason]*refusals
	failures map[string]time.Time // until when a failure is not logged again
}

// refusals are those of one kind since they were last logged.
type refusals struct {
	n    uint64
	next time.Time
}

func newJournal(log *slog.Logger) journal {
	return journal{log: log, began: time.Now(), answer: -1, causes: make(map[fault.Cause]bool), refusals: make(map[status.Reason]*refusals), failures: make(map[string]time.Time)}
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

// maxFailures bounds how many failures are remembered.
const maxFailures = 64

// failed logs a fault of the sidecar's own, the same one once in refusedEvery.
func (j *journal) failed(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now, text := time.Now(), err.Error()
	if now.Before(j.failures[text]) {
		return
	}
	if len(j.failures) >= maxFailures {
		clear(j.failures)
	}
	j.failures[text] = now.Add(refusedEvery)
	j.log.Error("an announce or a connection failed", "err", err)
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

// refused logs the first refusal of a kind at once.
func (j *journal) refused(r status.Reason) {
	j.mu.Lock()
	defer j.mu.Unlock()
	k := j.refusals[r]
	if k == nil {
		k = new(refusals)
		j.refusals[r] = k
	}
	k.n++
	j.summarise(r, k)
}

// summarise logs k unless it was logged lately. Caller holds mu.
func (j *journal) summarise(r status.Reason, k *refusals) {
	now := time.Now()
	if k.n == 0 || now.Before(k.next) {
		return
	}
	j.log.Info("refused", "what", r.Text(), "times", k.n)
	k.n, k.next = 0, now.Add(refusedEvery)
}

// run logs what refusals there were, until ctx ends.
func (j *journal) run(ctx context.Context) {
	tick := time.NewTicker(refusedEvery / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		j.mu.Lock()
		for r, k := range j.refusals {
			j.summarise(r, k)
		}
		j.mu.Unlock()
	}
}
