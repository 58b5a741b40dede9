package announce

import (
	"bufio"
	"fmt"
	"net/textproto"
	"strings"
)

// httpRequest is a request's line and header. They are read here rather than by
// net/http, which refuses a target that is no URL; torrents name trackers by such.
type httpRequest struct {
	method string
	target string // between the method and the protocol, spaces included
	old    bool   // HTTP/1.0
	header textproto.MIMEHeader
}

func readRequest(in *bufio.Reader) (*httpRequest, error) {
	r := textproto.NewReader(in)
	line, err := r.ReadLine()
	if err != nil {
		return nil, err
	}
	method, rest, _ := strings.Cut(line, " ")
	i := strings.LastIndexByte(rest, ' ')
	if i < 0 || !strings.HasPrefix(rest[i+1:], "HTTP/1.") {
		return nil, fmt.Errorf("announce: a request line of %d bytes without a protocol", len(line))
	}
	out := &httpRequest{method: method, target: strings.TrimSpace(rest[:i]), old: rest[i+1:] == "HTTP/1.0"}
	if out.header, err = r.ReadMIMEHeader(); err != nil {
		return nil, err
	}
	return out, nil
}

// last reports whether no other request can follow on the same connection: a
// body is not read.
func (r *httpRequest) last() bool {
	if n := r.header.Get("Content-Length"); n != "" && n != "0" || r.header.Get("Transfer-Encoding") != "" {
		return true
	}
	if r.old {
		return !r.asks("keep-alive")
	}
	return r.asks("close")
}

// asks reports whether the Connection header holds an option.
func (r *httpRequest) asks(option string) bool {
	for _, line := range r.header["Connection"] {
		for word := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(word), option) {
				return true
			}
		}
	}
	return false
}
