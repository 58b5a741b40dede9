package program

import (
	"os"
	"strings"

	"github.com/shoal-p2p/shoal/tracker/directory"
)

// Network reads the network file that --network names.
func Network(file string) (directory.Network, error) {
	if _, err := os.Stat(file); err == nil {
		return directory.LoadNetwork(file)
	}
	if strings.HasPrefix(file, directory.LinkPrefix) {
		return directory.Network{}, Usagef("--network: this is a tracker link, not a file: specify it with --tracker")
	}
	switch scheme, _, found := strings.Cut(file, ":"); {
	case !found:
	case scheme == "magnet":
		return directory.Network{}, Usagef("--network: this is a magnet link, not a network file: open it in the torrent client")
	case scheme == "http" || scheme == "https" || scheme == "file":
		return directory.Network{}, Usagef("--network: %s is a URL: download it, and specify the file", file)
	}
	return directory.LoadNetwork(file)
}
