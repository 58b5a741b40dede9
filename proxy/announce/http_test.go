package announce

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

const hash = "aaaaaaaaaaaaaaaaaaaa"

// get is an announce as a client would write it.
func get(query string) []byte {
	return []byte("GET /announce?peer_id=-XX0100-abcdefghijkl&port=6881&" + query + " HTTP/1.1\r\nHost: tracker.invalid\r\n\r\n")
}

// decode reads an answer's body.
func decode(t *testing.T, body string) (m map[string]any) {
	t.Helper()
	if err := bencode.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("answer %q: %v", body, err)
	}
	return m
}

func TestFailuresSayWhatToDoAndHealSoon(t *testing.T) {
	for _, c := range []struct {
		err      error
		text     string
		interval int64
	}{
		{swarm.ErrNotReady, TextNotReady, 10},
		{fmt.Errorf("start: %w", swarm.ErrNotReady), TextNotReady, 10},
		{swarm.ErrNoTracker, TextNoTracker, 30},
		{context.DeadlineExceeded, TextSlow, 30},
		{context.Canceled, TextSlow, 30},
		{&Failure{Text: TextNotProxiedEnd, Retry: 90 * time.Second}, TextNotProxiedEnd, 90},
		{&Failure{Text: "x"}, "x", 30},
		{errors.New("secret detail"), TextFailed, 30},
	} {
		for _, query := range []string{"info_hash=" + hash, "info_hash=" + hash + "&compact=0"} {
			_, body, _, _ := ask(t, &fake{err: c.err}, get(query))
			m := decode(t, body)
			if m["failure reason"] != c.text || m["interval"] != c.interval || m["min interval"] != c.interval {
				t.Errorf("%v: got %v, want %q after %d s", c.err, m, c.text, c.interval)
			}
			if got, want := m["retry in"], (c.interval+59)/60; got != want {
				t.Errorf("%v: retry in %v minutes, want %d", c.err, got, want)
			}
			if m["peers"] != nil {
				t.Errorf("%v: a failure with peers", c.err)
			}
		}
	}
}

func TestAnswersHoldTheHandlersWarningAndPeers(t *testing.T) {
	beacon := netip.MustParseAddrPort("198.18.0.1:6881")
	peer := []netip.AddrPort{netip.MustParseAddrPort("198.18.1.2:6881")}
	for _, c := range []struct {
		name    string
		r       Response
		query   string
		warning any
		peers   int
	}{
		{"nobody", Response{}, "", nil, 0},
		{"the beacon alone", Response{Beacon: beacon, Warning: TextNoPeers}, "", TextNoPeers, 1},
		{"somebody", Response{Peers: peer, Beacon: beacon}, "", nil, 2},
		{"the handler's words", Response{Peers: peer, Warning: TextNotProxied}, "", TextNotProxied, 1},
		{"the handler's words, nobody", Response{Warning: TextNotProxied}, "", TextNotProxied, 0},
		{"numwant=0", Response{Peers: peer, Beacon: beacon}, "&numwant=0", nil, 1},
		{"stopped", Response{Peers: peer, Beacon: beacon}, "&event=stopped", nil, 0},
		{"stopped, nobody", Response{}, "&event=stopped", nil, 0},
		{"no port", Response{Peers: []netip.AddrPort{netip.MustParseAddrPort("198.18.1.2:0")}}, "", nil, 0},
		{"IPv6", Response{Peers: []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:5")}}, "", nil, 0},
	} {
		_, body, _, _ := ask(t, &fake{response: c.r}, get("info_hash="+hash+c.query))
		m := decode(t, body)
		if m["warning message"] != c.warning {
			t.Errorf("%s: warning %v, want %v", c.name, m["warning message"], c.warning)
		}
		peers, ok := m["peers"].(string)
		if !ok || len(peers) != 6*c.peers {
			t.Errorf("%s: peers %q, want %d", c.name, m["peers"], c.peers)
		}
		_, body, _, _ = ask(t, &fake{response: c.r}, get("info_hash="+hash+"&compact=0"+c.query))
		if list, ok := decode(t, body)["peers"].([]any); !ok || len(list) != c.peers {
			t.Errorf("%s: plain peers %q, want %d", c.name, m["peers"], c.peers)
		}
	}
}

func TestAnswersStayWithinLimits(t *testing.T) {
	r := Response{Seeders: -1, Leechers: -5, Interval: time.Second}
	for i := range 1000 {
		r.Peers = append(r.Peers, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 1))
	}
	for want, n := range map[string]int{"": MaxPeers, "&numwant=7": 7, "&numwant=-3": MaxPeers, "&numwant=99999999": MaxPeers} {
		_, body, _, _ := ask(t, &fake{response: r}, get("info_hash="+hash+want))
		m := decode(t, body)
		if got := len(m["peers"].(string)) / 6; got != n {
			t.Errorf("numwant %q: %d peers, want %d", want, got, n)
		}
		if m["interval"] != int64(30) || m["complete"] != int64(0) || m["incomplete"] != int64(0) {
			t.Errorf("numwant %q: %v", want, m)
		}
	}
}

func TestAHandlerHasTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, body, _, _ := ask(t, slow{}, get("info_hash="+hash))
		if got := decode(t, body)["failure reason"]; got != TextSlow {
			t.Errorf("failure reason %v, want %q", got, TextSlow)
		}
		if d := time.Since(start); d != Wait {
			t.Errorf("answered after %v, want %v", d, Wait)
		}
		_, body, _, _ = ask(t, slow{}, []byte("GET /scrape?info_hash="+hash+" HTTP/1.0\r\n\r\n"))
		if got := decode(t, body)["failure reason"]; got != TextSlow {
			t.Errorf("scrape: failure reason %v, want %q", got, TextSlow)
		}
	})
}

// slow is a Handler that has no answer.
type slow struct{}

func (slow) Announce(ctx context.Context, r Request) (Response, error) {
	<-ctx.Done()
	return Response{}, ctx.Err()
}

func (slow) Scrape(ctx context.Context, hashes []swarm.Hash) ([]Count, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAKeptConnectionAnswersRequestAfterRequest(t *testing.T) {
	ours, theirs := net.Pipe()
	h := twoPeers()
	done := make(chan error, 1)
	go func() { done <- Serve(t.Context(), ours, h) }()
	// Both in one write: a client may send the next before it read the answer.
	go theirs.Write(append(get("info_hash="+hash+"&event=started"), get("info_hash="+hash+"&event=stopped")...))
	r := bufio.NewReader(theirs)
	for range 2 {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || decode(t, string(body))["peers"] == nil {
			t.Errorf("answered %q, %v", body, err)
		}
	}
	theirs.Close()
	if err := <-done; err != nil {
		t.Errorf("got %v, want nil", err)
	}
	if len(h.asked) != 2 || h.last.Event != swarm.Stopped {
		t.Errorf("asked %v", h.asked)
	}
}

func TestAKeptConnectionEndsAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- Serve(t.Context(), ours, twoPeers()) }()
		go io.Copy(io.Discard, theirs)
		theirs.Write(get("info_hash=" + hash))
		start := time.Now()
		if err := <-done; err != nil {
			t.Errorf("got %v, want nil", err)
		}
		if d := time.Since(start); d != IdleTimeout {
			t.Errorf("closed after %v, want %v", d, IdleTimeout)
		}
	})
}

func TestWhoSendsNoRequestIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, sent string
		want       error
		status     string
	}{
		{"nothing", "", ErrSilent, ""},
		{"half a request", "GET /announce?info_hash=" + hash + " HTTP/1.1\r\nHost: x", ErrSilent, "408"},
		{"garbage", "\x00\x01\x02\r\n\r\n", ErrMalformed, "400"},
		{"no version", "GET /announce?info_hash=" + hash + "\r\n\r\n", ErrMalformed, "400"},
		{"too much", "GET /announce?info_hash=" + hash + "&x=" + strings.Repeat("x", MaxRequest) + " HTTP/1.1\r\n\r\n", ErrTooLarge, "431"},
		{"too many headers", "GET /announce?info_hash=" + hash + " HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", MaxRequest/6) + "\r\n", ErrTooLarge, "431"},
		{"a body to write", "POST /announce?info_hash=" + hash + " HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", ErrNoAnnounce, "403"},
		{"HEAD", "HEAD /announce?info_hash=" + hash + " HTTP/1.1\r\n\r\n", ErrNoAnnounce, "403"},
		{"a proxy", "CONNECT tracker.invalid:443 HTTP/1.1\r\n\r\n", ErrNoAnnounce, "403"},
		{"a scrape of everything", "GET /scrape HTTP/1.1\r\n\r\n", ErrNoAnnounce, "403"},
		{"another page", "GET /index.html HTTP/1.1\r\n\r\n", ErrNoAnnounce, "403"},
		{"part of a file", "GET /f?x=info_hash HTTP/1.1\r\nRange: bytes=0-\r\n\r\n", ErrWebSeed, "403"},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			done := make(chan error, 1)
			h := twoPeers()
			start := time.Now()
			go func() { done <- Serve(t.Context(), ours, h) }()
			go theirs.Write([]byte(c.sent))
			answer, _ := io.ReadAll(theirs)
			err := <-done
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
			if len(h.asked) > 0 {
				t.Errorf("%s: asked %v", c.name, h.asked)
			}
			if c.status != "" && !strings.HasPrefix(string(answer), "HTTP/1.1 "+c.status) {
				t.Errorf("%s: answered %q, want %s", c.name, answer, c.status)
			}
			if d := time.Since(start); d > ReadTimeout {
				t.Errorf("%s: took %v", c.name, d)
			}
			theirs.Close()
		})
	}
}

// oddTargets are announces whose targets are no URLs, as torrents and clients
// make them.
var oddTargets = []string{
	"?" + base + "&left=1",
	base + "&x?" + base + "&left=1",
	"/announce.php?passkey=0123456789abcdef?" + base + "&left=1",
	"/ann%ounce?" + base + "&left=1",
	"/announce%?" + base + "&left=1",
	"/an nounce?" + base + "&left=1",
	"/ announce ?" + base + "&left=1 ",
	"http://tracker.invalid:6969/announce?" + base + "&left=1",
	"//announce?" + base + "&left=1",
	"/\xff\xfe?" + base + "&left=1",
	"/announce?" + base + "&left=1&key=\x01",
	"/[announce]?" + base + "&left=1#%",
}

// TestATargetThatIsNoURLIsAnswered: nothing depends on the path.
func TestATargetThatIsNoURLIsAnswered(t *testing.T) {
	for _, target := range oddTargets {
		h := twoPeers()
		head, body, _, err := ask(t, h, []byte("GET "+target+" HTTP/1.1\r\nHost: tracker.invalid\r\n\r\n"))
		if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") || decode(t, body)["peers"] == nil {
			t.Errorf("%q: answered %q %q, %v", target, head, body, err)
		}
		if h.last.Hash != swarm.Hash([]byte(hash)) || h.last.Port != 6881 {
			t.Errorf("%q: asked for %+v", target, h.last)
		}
	}
}

func TestABodyEndsTheConnection(t *testing.T) {
	h := twoPeers()
	sent := "GET /announce?info_hash=" + hash + " HTTP/1.1\r\nContent-Length: 100\r\n\r\n"
	head, _, closed, err := ask(t, h, []byte(sent))
	if !closed || err != nil || !strings.HasPrefix(head, "HTTP/1.1 200") {
		t.Errorf("got %q, closed %v, %v", head, closed, err)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ours, theirs := net.Pipe()
	defer theirs.Close()
	done := make(chan error)
	go func() { done <- Serve(ctx, ours, twoPeers()) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestATruncatedRequestAsksNothing(t *testing.T) {
	for _, whole := range requests(t) {
		for i := range len(whole) {
			h := twoPeers()
			answer, err := talk(t, h, whole[:i])
			if len(h.asked) != 0 {
				t.Fatalf("asked after %d of %d bytes of %q", i, len(whole), whole)
			}
			if i > 0 && err == nil {
				t.Errorf("no error after %d of %d bytes, answer %q", i, len(whole), answer)
			}
		}
	}
}

// requests returns those of the golden file.
func requests(t testing.TB) (out [][]byte) {
	b, err := os.ReadFile("testdata/http.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(b), "\n== ")[1:] {
		var r bytes.Buffer
		for line := range strings.Lines(part) {
			if l, ok := strings.CutPrefix(line, ">"); ok {
				r.WriteString(strings.TrimPrefix(strings.TrimSuffix(l, "\n"), " ") + "\r\n")
			}
		}
		out = append(out, r.Bytes())
	}
	return out
}

func TestNothingPersonalReachesTheHandler(t *testing.T) {
	plain, personal := twoPeers(), twoPeers()
	ask(t, plain, get("info_hash="+hash+"&left=5"))
	ask(t, personal, []byte("GET /secret-passkey/announce?info_hash="+hash+"&peer_id=-TR3000-abcdefghijkl&port=6881&left=5"+
		"&ip=192.0.2.1&ipv4=192.0.2.1&ipv6=2001%3adb8::1&key=77&trackerid=abc&corrupt=1 HTTP/1.1\r\n"+
		"User-Agent: Transmission/3.00\r\nX-Forwarded-For: 192.0.2.1\r\nCookie: a=b\r\n\r\n"))
	if plain.last != personal.last {
		t.Errorf("the handler got %+v with personal things, %+v without", personal.last, plain.last)
	}
}

func FuzzServe(f *testing.F) {
	for _, r := range requests(f) {
		f.Add(r)
	}
	for _, target := range oddTargets {
		f.Add([]byte("GET " + target + " HTTP/1.1\r\n\r\n"))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		answer, err := talk(t, twoPeers(), in)
		r := bufio.NewReader(bytes.NewReader(answer))
		for {
			if _, perr := r.Peek(1); perr == io.EOF {
				return
			}
			resp, rerr := http.ReadResponse(r, nil)
			if rerr != nil {
				t.Fatalf("unreadable answer %q: %v (Serve: %v)", answer, rerr, err)
			}
			body, rerr := io.ReadAll(resp.Body)
			if rerr != nil {
				t.Fatalf("unreadable body of %q: %v", answer, rerr)
			}
			if resp.StatusCode != http.StatusOK {
				continue
			}
			m := decode(t, string(body))
			if m["failure reason"] == nil && m["peers"] == nil && m["files"] == nil {
				t.Fatalf("neither peers nor files nor a failure: %q", body)
			}
		}
	})
}

func BenchmarkServe(b *testing.B) {
	request := requests(b)[0]
	h := twoPeers()
	for b.Loop() {
		if err := Serve(b.Context(), &script{in: bytes.NewReader(request)}, h); err != nil {
			b.Fatal(err)
		}
		h.asked = h.asked[:0]
	}
}
