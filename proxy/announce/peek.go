package announce

import (
	"bufio"
	"bytes"
	"net"
	"time"
)

// Kind is what a client starts to say on a connection that leads to no peer.
type Kind uint8

// The kinds.
const (
	Other      Kind = iota // nothing that this package knows; encrypted BitTorrent looks so too
	Web                    // HTTP
	TLS                    // for package authority
	BitTorrent             // a peer's handshake, so the client was given a real address
)

func (k Kind) String() string { return [...]string{"other", "http", "tls", "bittorrent"}[k] }

// Peek waits until the first bytes on conn say what it is, ReadTimeout at most.
// The returned conn takes conn's place: it reads those bytes again. An error
// means that the client closed or stayed silent; conn is left open.
func Peek(conn net.Conn) (net.Conn, Kind, error) {
	conn.SetReadDeadline(time.Now().Add(ReadTimeout)) // fails on a closed conn; so does the read
	defer conn.SetReadDeadline(time.Time{})
	r := bufio.NewReaderSize(conn, peekSize)
	k, err := kindOf(r)
	if err != nil {
		return nil, Other, err
	}
	return &peeked{conn, r}, k, nil
}

// peekSize is more than any kind needs.
const peekSize = 64

// starts are the first bytes of each kind. No one is the start of another.
var starts = func() map[string]Kind {
	m := map[string]Kind{"\x16\x03": TLS, "\x13BitTorrent protocol": BitTorrent}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT"} {
		m[method+" "] = Web
	}
	return m
}()

// kindOf reads no further than it must: the client may be waiting for us.
func kindOf(r *bufio.Reader) (Kind, error) {
	for n := 1; ; n++ {
		got, err := r.Peek(n)
		if err != nil {
			return Other, err
		}
		possible := false
		for start, k := range starts {
			if start == string(got) {
				return k, nil
			}
			possible = possible || bytes.HasPrefix([]byte(start), got)
		}
		if !possible {
			return Other, nil
		}
	}
}

// peeked is a conn of which some bytes are in r.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }
