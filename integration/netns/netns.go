// Package netns runs the calling program again inside namespaces of its own:
// a network with nothing but a loopback interface, so that a real torrent
// client with default settings can talk to nobody else; and processes of its
// own, so that whatever it started is gone when it is, even when it is killed.
// Nothing has a name, so nothing is left to clean up.
// Not here: the sandbox of `shoal run` (package proxy/netns), which has a way out.
package netns

import "os"

// marker tells the program that it runs inside.
const marker = "SHOAL_INSIDE_NETNS"

// inside is read once and then kept from the processes that this one starts.
var inside = os.Getenv(marker) != ""

func init() { os.Unsetenv(marker) }

// Inside reports whether this process was started by Run.
func Inside() bool { return inside }

// Tests runs the tests of m inside, as TestMain's last line. Before it enters,
// prepare does what needs the network, in a folder that is removed at the end,
// and returns variables for the environment; it may be nil.
func Tests(m interface{ Run() int }, prepare func(dir string) (env []string, err error)) {
	os.Exit(tests(m, prepare))
}
