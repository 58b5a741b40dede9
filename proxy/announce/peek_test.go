package announce

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var kinds = []struct {
	sent string
	kind Kind
}{
	{"GET /announce?info_hash=x HTTP/1.1\r\n", Web},
	{"HEAD / HTTP/1.1\r\n", Web},
	{"CONNECT tracker.invalid:443 HTTP/1.1", Web},
	{"OPTIONS * HTTP/1.1\r\n", Web},
	{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", TLS},
	{"\x13BitTorrent protocol" + "\x00\x00", BitTorrent},
	{"\x13BitTorrent protokol", Other},
	{"\x16\x02\x00", Other},
	{"GETX", Other},
	{"get / HTTP/1.1", Other},
	{"\xf3\x99\x00\x17", Other},
	{"SSH-2.0-x", Other},
	{"\x05\x01\x00", Other},
}

func TestPeekTellsKindsApartAndKeepsTheBytes(t *testing.T) {
	for _, c := range kinds {
		sent, want := c.sent, c.kind
		for _, whole := range []bool{true, false} {
			ours, theirs := net.Pipe()
			go func() {
				rest := sent
				for len(rest) > 0 && !whole {
					theirs.Write([]byte(rest[:1]))
					rest = rest[1:]
				}
				theirs.Write([]byte(rest))
				theirs.Close()
			}()
			conn, k, err := Peek(ours)
			if err != nil || k != want {
				t.Fatalf("Peek(%q) = %v, %v, want %v", sent, k, err, want)
			}
			if got, _ := io.ReadAll(conn); string(got) != sent {
				t.Errorf("read again %q, want %q", got, sent)
			}
			ours.Close()
		}
	}
}

func TestPeekWaitsTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, sent := range []string{"", "GE", "\x13BitTorrent"} {
			ours, theirs := net.Pipe()
			go theirs.Write([]byte(sent))
			start := time.Now()
			_, _, err := Peek(ours)
			if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != ReadTimeout {
				t.Errorf("%q: %v after %v", sent, err, time.Since(start))
			}
			ours.Close()
			theirs.Close()
		}
	})
}

func FuzzPeek(f *testing.F) {
	for _, c := range kinds {
		f.Add([]byte(c.sent))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(in), peekSize)
		k, err := kindOf(r)
		if err != nil && err != io.EOF {
			t.Errorf("%q: %v", in, err)
		}
		if k == BitTorrent && !strings.HasPrefix(string(in), "\x13BitTorrent protocol") {
			t.Errorf("%q is no %v", in, k)
		}
		if rest, _ := io.ReadAll(r); !bytes.Equal(rest, in) {
			t.Errorf("read again %q, want %q", rest, in)
		}
	})
}
