package netns

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/shoal-p2p/shoal/proxy/proc"
)

const (
	dialTimeout = 10 * time.Second // of a published port

	// openWait is how long a published port that the command has not opened yet
	// is waited for: the connection has been accepted outside already.
	openWait  = 3 * time.Second
	openRetry = 20 * time.Millisecond

	// watchEvery is how often a published port is looked at until the command
	// has opened it, at first. It grows, because some commands never do.
	watchEvery = 100 * time.Millisecond
	watchMost  = 2 * time.Second
)

// listening returns where the command can be reached at port, if it listens.
func listening(port uint16) (netip.AddrPort, bool) {
	for _, at := range proc.Self().Listeners() {
		if at.Port() != port {
			continue
		}
		if at.Addr().IsUnspecified() { // of IPv6 too, unless it takes nothing else
			at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
		}
		return at, true
	}
	return netip.AddrPort{}, false
}

// watch reports each of ports when the command listens there, as long as the
// process lives.
func (s *supervisor) watch(ports []uint16) {
	for wait := watchEvery; len(ports) > 0; wait = min(wait*5/4, watchMost) {
		var closed []uint16
		for _, p := range ports {
			if _, open := listening(p); open {
				_ = s.ctl.send(message{Kind: kindOpen, Port: p})
			} else {
				closed = append(closed, p)
			}
		}
		ports = closed
		time.Sleep(wait)
	}
}

// dial connects to a port of the command and passes the connection to Run.
func (s *supervisor) dial(id uint64, port uint16) {
	answer := message{Kind: kindDialed, ID: id}
	conn, err := dialOpen(port)
	if err != nil {
		answer.Text = err.Error()
		_ = s.ctl.send(answer)
		return
	}
	defer conn.Close()
	f, err := conn.(*net.TCPConn).File()
	if err != nil {
		answer.Text = err.Error()
		_ = s.ctl.send(answer)
		return
	}
	defer f.Close()
	_ = s.ctl.send(answer, int(f.Fd()))
}

// dialOpen connects to a port once it is open.
func dialOpen(port uint16) (net.Conn, error) {
	loopback := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	conn, err := net.DialTimeout("tcp4", loopback, dialTimeout)
	for until := time.Now().Add(openWait); err != nil && time.Now().Before(until); time.Sleep(openRetry) {
		if at, open := listening(port); open { // perhaps not at loopback
			conn, err = net.DialTimeout("tcp", at.String(), dialTimeout)
		}
	}
	return conn, err
}
