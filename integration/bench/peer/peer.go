// Package peer is the two ends of every transfer that is measured: a source
// that sends pieces as fast as they are taken, and a sink that counts them.
// They speak as much BitTorrent as a sidecar needs to hear (BEP 3), over every
// path the same, so that no path has cheaper ends than another.
// Not here: what is between the ends; files, hashes and requests for pieces.
package peer

// Peer is the service of a process that is an end (package child). One process
// may be a source and a sink.
type Peer struct{}
