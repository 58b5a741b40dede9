// Package demo shows what Shoal does, on one machine and in under a minute: two
// real qBittorrents move a picture through a network of real processes, and a
// recording of every packet says what each party got to see.
// Not here: the network (package testnet), the clients (package clients), what
// is right and wrong in a recording (package witness).
package demo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxPicture bounds the picture, bytes: the whole recording is kept in memory,
// and every link is in it.
const maxPicture = 32 << 20

// Config says what to move, with which programs.
type Config struct {
	Picture        string // file to move; "": one that is drawn
	Shoal, Tracker string // the programs
	Out            io.Writer
}

// dirVariable tells the part inside the namespace where its files go.
const dirVariable = "SHOAL_DEMO_DIR"

// load returns the picture and what it is called.
func (c Config) load() (name string, data []byte, err error) {
	if c.Picture == "" {
		data, err = Picture()
		return "shoal.png", data, err
	}
	info, err := os.Stat(c.Picture)
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("picture %s: %w", c.Picture, errors.Unwrap(err)) // a PathError
	case !info.Mode().IsRegular():
		return "", nil, fmt.Errorf("picture %s: not a file", c.Picture)
	case info.Size() == 0 || info.Size() > maxPicture:
		return "", nil, fmt.Errorf("picture %s: %d bytes, want 1 to %d", c.Picture, info.Size(), maxPicture)
	}
	data, err = os.ReadFile(c.Picture)
	return filepath.Base(c.Picture), data, err
}

var errClient = errors.New("the demo needs a real torrent client: sudo apt-get install qbittorrent-nox (or `make demo`, which does it)")
