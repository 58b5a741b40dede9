package peer

import (
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/anacrolix/utp"
)

// chunk is what a source writes at once: sixteen pieces, the same each time.
var chunk = slices.Repeat(piece(blockSize), 16)

// Listen makes the process a source at the address at, where port 0 means any,
// and returns the address. It takes handshakes for any swarm.
func (p *Peer) Listen(at string, addr *string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	*addr = accept(l)
	return nil
}

// ListenUTP is Listen for µTP (BEP 29), by the library that a sidecar uses.
func (p *Peer) ListenUTP(at string, addr *string) error {
	l, err := utp.Listen(at)
	if err != nil {
		return err
	}
	*addr = accept(l)
	return nil
}

// accept serves what l accepts until the process ends, and returns where l is.
func accept(l net.Listener) string {
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return l.Addr().String()
}

// serve does what a sink asks, order after order, until it hangs up or got its bulk.
func serve(conn net.Conn) {
	defer conn.Close()
	h, err := readHello(conn)
	if err != nil {
		return
	}
	if _, err := conn.Write(hello(h)); err != nil {
		return
	}
	for {
		o, err := readOrder(conn)
		if err != nil {
			return
		}
		if o.mebibytes == 0 {
			if _, err := conn.Write(piece(int(o.length))); err != nil {
				return
			}
			continue
		}
		if err := send(conn, o); err != nil {
			return
		}
		if c, ok := conn.(*net.TCPConn); ok { // µTP has no half of a connection to close
			c.CloseWrite()
			readOrder(c) // returns when the sink hangs up
		}
		return
	}
}

// send writes pieces until there were enough of them or the time is over.
func send(conn net.Conn, o order) error {
	limit := min(time.Duration(o.milliseconds)*time.Millisecond, maxBulk)
	conn.SetWriteDeadline(time.Now().Add(limit + maxDrain))
	end := time.Now().Add(limit)
	for left := int64(o.mebibytes) << 20; left > 0 && time.Now().Before(end); left -= int64(len(chunk)) {
		if _, err := conn.Write(chunk); err != nil {
			return fmt.Errorf("peer: send: %w", err)
		}
	}
	return nil
}

// maxDrain is how long what was sent may take to arrive.
const maxDrain = time.Minute
