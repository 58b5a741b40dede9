package announce

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fake is a Handler that notes what it was asked.
type fake struct {
	response Response
	err      error
	counts   []Count

	mu    sync.Mutex
	asked []string // guarded by mu
	last  Request  // guarded by mu
}

var events4 = [...]string{"none", "started", "completed", "stopped"}

func (f *fake) Announce(ctx context.Context, r Request) (Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = r
	f.asked = append(f.asked, fmt.Sprintf("announce port=%d event=%s left=%d numwant=%d", r.Port, events4[r.Event], r.Left, r.NumWant))
	return f.response, f.err
}

func (f *fake) Scrape(ctx context.Context, hashes []swarm.Hash) ([]Count, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf("scrape of %d", len(hashes)))
	return f.counts, f.err
}

// twoPeers is a Response with everything in it.
func twoPeers() *fake {
	return &fake{
		response: Response{
			Peers:    []netip.AddrPort{netip.MustParseAddrPort("198.18.1.2:6881"), netip.MustParseAddrPort("198.18.3.4:6881")},
			Beacon:   netip.MustParseAddrPort("198.18.0.1:6881"),
			Seeders:  1,
			Leechers: 2,
			External: netip.MustParseAddr("198.18.0.2"),
		},
		counts: []Count{{3, 4}, {5, 6}},
	}
}

// talk gives Serve all that a client sends before it half closes, and returns
// all that the client got.
func talk(t *testing.T, h Handler, sent []byte) (answer []byte, err error) {
	t.Helper()
	c := &script{in: bytes.NewReader(sent)}
	err = Serve(t.Context(), c, h)
	return c.out.Bytes(), err
}

// script is a conn whose other end has said everything already.
type script struct {
	net.Conn // nil: nothing else is called
	in       *bytes.Reader
	out      bytes.Buffer
}

func (s *script) Read(b []byte) (int, error)       { return s.in.Read(b) }
func (s *script) Write(b []byte) (int, error)      { return s.out.Write(b) }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Close() error                     { return nil }

// ask sends one request over a pipe, reads one answer whole, and hangs up.
func ask(t *testing.T, h Handler, request []byte) (head, body string, closed bool, err error) {
	t.Helper()
	ours, theirs := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { err = Serve(t.Context(), ours, h) })
	wg.Go(func() { theirs.Write(request) })
	r := bufio.NewReader(theirs)
	var b strings.Builder
	length := 0
	for {
		line, rerr := r.ReadString('\n')
		if rerr != nil {
			t.Fatalf("head ends after %q: %v", b.String(), rerr)
		}
		b.WriteString(line)
		if n, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			length, _ = strconv.Atoi(strings.TrimSpace(n))
		}
		if line == "\r\n" {
			break
		}
	}
	bb := make([]byte, length)
	if _, rerr := io.ReadFull(r, bb); rerr != nil {
		t.Fatalf("body: %v", rerr)
	}
	closed = strings.Contains(b.String(), "Connection: close\r\n")
	if closed { // then nothing follows
		if n, rerr := r.Read(make([]byte, 1)); n != 0 || rerr != io.EOF {
			t.Errorf("after an answer with Connection: close: %d bytes, %v", n, rerr)
		}
	}
	theirs.Close()
	wg.Wait()
	return b.String(), string(bb), closed, err
}

func TestGoldenHTTPAnswers(t *testing.T) {
	const file = "testdata/http.txt"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	parts := strings.Split(string(old), "\n== ")
	out.WriteString(parts[0])
	for _, part := range parts[1:] {
		title, rest, _ := strings.Cut(part, "\n")
		fmt.Fprintf(&out, "\n== %s\n", title)
		var request bytes.Buffer
		for line := range strings.Lines(rest) {
			if r, ok := strings.CutPrefix(line, ">"); ok {
				out.WriteString(line)
				request.WriteString(strings.TrimPrefix(strings.TrimSuffix(r, "\n"), " ") + "\r\n")
			}
		}
		h := twoPeers()
		head, body, _, err := ask(t, h, request.Bytes())
		for _, a := range h.asked {
			fmt.Fprintf(&out, "asked %s\n", a)
		}
		if err != nil {
			fmt.Fprintf(&out, "refused %v\n", err)
		}
		for line := range strings.Lines(head) {
			fmt.Fprintf(&out, "%s\n", strings.TrimSpace("< "+strings.TrimRight(line, "\r\n")))
		}
		fmt.Fprintf(&out, "%q\n", body)
	}
	compare(t, file, old, out.Bytes())
}

func compare(t *testing.T, file string, old, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if bytes.Equal(old, got) {
		return
	}
	want, have := strings.Split(string(old), "\n"), strings.Split(string(got), "\n")
	for i := range max(len(want), len(have)) {
		var a, b string
		if i < len(want) {
			a = want[i]
		}
		if i < len(have) {
			b = have[i]
		}
		if a != b {
			t.Fatalf("%s:%d:\n got %s\nwant %s", file, i+1, b, a)
		}
	}
}

func TestGoldenUDPAnswers(t *testing.T) {
	const file = "testdata/udp.txt"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	h := twoPeers()
	u := NewUDP(h)
	var out bytes.Buffer
	for line := range strings.Lines(string(old)) {
		packet, ok := strings.CutPrefix(line, "> ")
		if !ok {
			if !strings.HasPrefix(line, "< ") && !strings.HasPrefix(line, "asked ") {
				out.WriteString(line)
			}
			continue
		}
		b, err := unhex(packet)
		if err != nil {
			t.Fatal(err)
		}
		answer := u.Answer(t.Context(), b, byName)
		out.WriteString(line)
		for _, a := range h.asked {
			fmt.Fprintf(&out, "asked %s\n", a)
		}
		h.asked = nil
		fmt.Fprintf(&out, "< %s\n", rehex(answer))
	}
	compare(t, file, old, out.Bytes())
}

// unhex reads a packet of the golden file.
func unhex(s string) ([]byte, error) {
	return hex.DecodeString(strings.NewReplacer(" ", "", "\n", "").Replace(s))
}

// rehex is its inverse, with a space after each four bytes.
func rehex(b []byte) string {
	s := fmt.Sprintf("%x", b)
	if len(b) >= 8 && b[3] == actError {
		return s[:8] + " " + s[8:16] + " " + strconv.Quote(string(b[8:]))
	}
	var parts []string
	for len(s) > 8 {
		parts, s = append(parts, s[:8]), s[8:]
	}
	return strings.Join(append(parts, s), " ")
}
