// Package seldom keeps a log readable when the same thing happens again and
// again: it is written at once the first time, and then once in a while with how
// often it happened.
// Not here: what is written.
package seldom

import (
	"context"
	"sync"
	"time"
)

// Every is how often one kind of thing is written after its first time.
const Every = 10 * time.Minute

// maxKinds bounds how many kinds are remembered: a text from outside may be part
// of a kind.
const maxKinds = 64

// Log remembers what was written. The zero value is ready, and safe for
// concurrent use. Run has to run for what is to be written later.
type Log struct {
	mu    sync.Mutex
	kinds map[string]*kind // guarded by mu
}

// kind is one kind of thing.
type kind struct {
	n     uint64    // times since it was written
	next  time.Time // before which it is not written again
	write func(times uint64)
}

// Note notes that something of a kind has happened. write, the newest of its
// kind, is called with how often that was since the last call. It must not block,
// nor call Note.
func (l *Log) Note(name string, write func(times uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[name]
	if k == nil {
		if l.kinds == nil || len(l.kinds) >= maxKinds {
			l.kinds = make(map[string]*kind)
		}
		k = new(kind)
		l.kinds[name] = k
	}
	k.n++
	k.write = write
	k.flush()
}

// flush writes k if it is time.
func (k *kind) flush() {
	if now := time.Now(); k.n > 0 && !now.Before(k.next) {
		k.write(k.n)
		k.n, k.next = 0, now.Add(Every)
	}
}

// Run writes what is due until ctx ends.
func (l *Log) Run(ctx context.Context) {
	tick := time.NewTicker(Every / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.mu.Lock()
		for _, k := range l.kinds {
			k.flush()
		}
		l.mu.Unlock()
	}
}
