package socks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/vectortest"
)

// wire returns the lines of testdata/wire.txt.
func wire(t testing.TB) [][3]string { return vectortest.Lines(t, "testdata/wire.txt") }

func describe(b []byte) string {
	h, body, err := parseHeader(b)
	if err != nil {
		return err.Error()
	}
	if h.name != "" {
		return strings.TrimSpace(fmt.Sprintf("%q port %d body %x", h.name, h.port, body))
	}
	return strings.TrimSpace(fmt.Sprintf("%v port %d body %x", h.addr, h.port, body))
}

func TestGoldenWire(t *testing.T) {
	for _, l := range wire(t) {
		b := []byte(l[1])
		if got := describe(b); got != l[2] {
			t.Errorf("%s %x is %s, want %s", l[0], b, got, l[2])
		}
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	for _, l := range wire(t) {
		h, body, err := parseHeader([]byte(l[1]))
		if l[0] != "header" || err != nil {
			continue
		}
		if got := append(h.append(nil), body...); string(got) != l[1] {
			t.Errorf("made %x of %x", got, l[1])
		}
	}
}

func TestTruncatedHeaderIsRefused(t *testing.T) {
	for _, l := range wire(t) {
		_, body, err := parseHeader([]byte(l[1]))
		if l[0] != "header" || err != nil {
			continue
		}
		for i := range len(l[1]) - len(body) {
			if _, _, err := parseHeader([]byte(l[1][:i])); err == nil {
				t.Errorf("took %d bytes of %x", i, l[1])
			}
		}
	}
}

func FuzzHeader(f *testing.F) {
	for _, l := range wire(f) {
		f.Add([]byte(l[1]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := parseHeader(b)
		if err != nil {
			return
		}
		if got := append(h.append(nil), body...); !bytes.Equal(got, b) {
			t.Errorf("made %x of %x", got, b)
		}
		h.addrPort()
	})
}

func FuzzGreeting(f *testing.F) {
	f.Add([]byte{5, 1, 0})
	f.Add([]byte{5, 2, 0, 2})
	f.Add([]byte{5, 3, 1, 0, 2, 9})
	f.Add([]byte{4, 1, 0, 80, 0, 0, 0, 1, 0, 'x', 0})
	f.Add([]byte("CONNECT x:80 HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		got, err := new(Server).greeting(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), &out})
		if _, counts := reasonOf(err); err != nil && !counts && len(b) > 0 {
			t.Errorf("%x is refused and counts as nothing: %v", b, err)
		}
		if answered := out.Len() > 0; answered != (errors.Is(err, errSOCKS4) || errors.Is(err, errHTTP)) {
			t.Errorf("%x is answered %q: %v", b, &out, err)
		}
		if err != nil {
			return
		}
		if len(got) != 2+int(b[1]) || got[0] != 5 || got[1] != b[1] {
			t.Errorf("made %x of %x", got, b)
		}
		for m := range 256 {
			if bytes.Count(got[2:], []byte{byte(m)}) != bytes.Count(b[2:len(got)], []byte{byte(m)}) {
				t.Errorf("made %x of %x", got, b)
			}
		}
		if bytes.IndexByte(got[2:], 2) > 0 {
			t.Errorf("user names come after something else in %x", got)
		}
	})
}
