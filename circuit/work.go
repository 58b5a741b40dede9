package circuit

import "sync"

// work is the goroutines of a Client's circuits and streams. The zero value is ready.
type work struct {
	mu     sync.Mutex
	closed bool // guarded by mu: wait was called
	group  sync.WaitGroup
}

// Go runs f in a goroutine that wait waits for. A goroutine that starts after
// wait was called is on its own: by then every circuit is over, so f can't block.
func (w *work) Go(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		go f()
		return
	}
	w.group.Go(f)
}

// wait returns once every goroutine has ended.
func (w *work) wait() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.group.Wait()
}
