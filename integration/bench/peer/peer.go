// Package peer is the two ends of every transfer that is measured: a source
// that sends pieces as fast as they are taken, and a sink that counts them.
// They speak as much BitTorrent as a sidecar needs to hear (BEP 3), over every
// path the same, so that no path has cheaper ends than another.
// Not here: what is between the ends; files, hashes and requests for pieces.
package peer

import "sync"

// Peer is the service of a process that is an end (package child). One process
// may be a source and a sink.
type Peer struct {
	mu  sync.Mutex
	cut chan struct{} // guarded by mu; closed by Cut, nil while nobody waits for that
}

// Cut ends every Pull under way, well.
func (p *Peer) Cut(struct{}, *struct{}) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut != nil {
		close(p.cut)
		p.cut = nil
	}
	return nil
}

// whenCut returns what is closed by the next Cut.
func (p *Peer) whenCut() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut == nil {
		p.cut = make(chan struct{})
	}
	return p.cut
}
