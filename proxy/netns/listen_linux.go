package netns

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
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

	// closedLong is how long a published port may be closed before the user is
	// asked whether it is the right one.
	closedLong = time.Minute
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
	warn := time.Now().Add(closedLong)
	for wait := watchEvery; len(ports) > 0; wait = min(wait*5/4, watchMost) {
		ports = slices.DeleteFunc(ports, func(p uint16) bool {
			_, open := listening(p)
			if open {
				_ = s.ctl.send(message{Kind: kindOpen, Port: p})
			}
			return open
		})
		if !warn.IsZero() && time.Now().After(warn) {
			for _, p := range ports {
				_ = s.ctl.send(message{Kind: kindSay, Text: fmt.Sprintf("the command does not listen on port %d, which is published: is that the port of its web interface?", p)})
			}
			warn = time.Time{}
		}
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
