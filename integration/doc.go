// Package integration holds the tests of the whole: the real programs, real
// torrent clients, and what each party got to see.
// Not here: what the tests are made of (the packages below).
package integration
