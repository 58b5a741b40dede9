package setup

import "fmt"

// What a user should know of several clients.
const (
	dhtOff     = "The DHT is off, because the client asks the system's DNS for the DHT's first nodes: add a tracker to magnets that have none, or use shoal run."
	dhtOn      = "The DHT stays on: the client asks the system's DNS for the DHT's first nodes, which shows that a torrent client runs here, though not what it shares."
	httpsFails = "HTTPS trackers will fail with \"certificate verify failed\", because the sidecar answers them with certificates of its own; other trackers work."
)

// dropsHTTPS reports whether a client is to stop checking the certificates of
// HTTPS trackers. The sidecar answers those itself, so the check guards nothing
// between a client and a sidecar on the same computer, and makes each fail.
func (w Want) dropsHTTPS() bool { return !w.KeepHTTPS && w.SOCKS.Addr().IsLoopback() }

// boundNotes returns what to know of a client that is bound.
func boundNotes(p Profile, w Want) []string {
	switch {
	case p.Bound == "":
		return nil
	case w.KeepBound:
		return []string{fmt.Sprintf("It stays bound to %s, and transfers nothing through Shoal: every connection to the sidecar comes from there and not from this computer's loopback.", p.Bound)}
	}
	return []string{fmt.Sprintf("The binding to %s is removed: a bound client transfers nothing through Shoal. Without the sidecar it would then use any interface; --keep-interface keeps the binding.", p.Bound)}
}

// runOnly is what to know of a client that is safe under shoal run alone.
func runOnly(c Client) string {
	return fmt.Sprintf("Start %s under shoal run, and never without: %s.", c.Title(), c.NoSOCKS())
}
