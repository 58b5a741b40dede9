package socks

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// TestOtherProxyTypesAreRefusedInTheirOwnWords, and counted by name.
func TestOtherProxyTypesAreRefusedInTheirOwnWords(t *testing.T) {
	s := start(t, Config{})
	for i, request := range [][]byte{
		{4, 1, 0, 80, 1, 2, 3, 4, 0},
		append([]byte{4, 1, 0, 80, 1, 2, 3, 4}, "user\x00"...),
		append([]byte{4, 1, 0, 80, 0, 0, 0, 1, 0}, "tracker.invalid\x00"...), // 4a
		{4, 2, 0, 80, 1, 2, 3, 4, 0},                                         // BIND
	} {
		c := dial(t, s)
		c.say(request...)
		if got, err := io.ReadAll(c.conn); err != nil || string(got) != "\x00\x5b\x00\x00\x00\x00\x00\x00" {
			t.Errorf("SOCKS4 request %x was answered %x, %v", request, got, err)
		}
		s.counted(t, status.SOCKS4, i+1)
	}
	for i, request := range []string{
		"GET http://tracker.invalid/announce?x HTTP/1.1\r\nHost: tracker.invalid\r\n\r\n",
		"CONNECT 198.18.1.1:6881 HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nA: " + strings.Repeat("b", 4000) + "\r\n\r\n",
	} {
		c := dial(t, s)
		c.say([]byte(request)...)
		answer, err := http.ReadResponse(bufio.NewReader(c.conn), nil)
		if err != nil {
			t.Fatalf("%.40q: %v", request, err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusNotImplemented || !strings.Contains(string(body), "proxy type to SOCKS5") {
			t.Errorf("%.40q was answered %s %q, %v", request, answer.Status, body, err)
		}
		s.counted(t, status.HTTPProxy, i+1)
	}
}

// TestALookAtWhetherShoalIsThereCountsAsNothing.
func TestALookAtWhetherShoalIsThereCountsAsNothing(t *testing.T) {
	s := start(t, Config{})
	for range 3 {
		c := dial(t, s)
		c.conn.CloseWrite()
		c.ended()
	}
	dial(t, s).say(4, 1) // something to wait for
	c := dial(t, s)
	c.say(9)
	c.ended()
	s.counted(t, status.Unreadable, 1)
}

// TestANameIsResolvedToAnAddressThatStandsForIt: Tor's RESOLVE, as torsocks uses it.
func TestANameIsResolvedToAnAddressThatStandsForIt(t *testing.T) {
	s := start(t, Config{})
	resolve := func(user, name string) netip.Addr {
		t.Helper()
		c := dial(t, s)
		c.login(user, "")
		code, a := c.request(0xf0, name, 0)
		if code != 0 || a.Port() != 0 {
			t.Errorf("%s is reply %d, %v", name, code, a)
		}
		c.ended()
		return a.Addr()
	}
	a, b := resolve("", "tracker.invalid"), resolve("", "other.invalid")
	if a == b || peers.Is(a) || resolve("", "tracker.invalid") != a {
		t.Errorf("two names are %v and %v", a, b)
	}
	for _, literal := range []string{"192.0.2.7", "198.18.5.5"} {
		if got := resolve("", literal); got.String() != literal {
			t.Errorf("%s is %v", literal, got)
		}
	}
	where := func(user, host string) string {
		t.Helper()
		c, _ := connect(t, s, user, host, 80)
		c.say('x')
		return (<-s.where).host
	}
	if got := where("", a.String()); got != "tracker.invalid" {
		t.Errorf("%v leads to %q", a, got)
	}
	if got := where("another", a.String()); got != a.String() {
		t.Errorf("%v leads another client to %q", a, got)
	}
	s.counted(t, status.Command, 0)
}

// TestNamesAreBounded for each client, and so are the clients.
func TestNamesAreBounded(t *testing.T) {
	s := start(t, Config{})
	n := s.namesOf("client 1")
	for i := range peers.MaxNames {
		n.Addr(fmt.Sprint(i))
	}
	c := dial(t, s)
	c.login("", "")
	if code, _ := c.request(0xf0, "one.more", 0); code != 4 {
		t.Errorf("reply %d to one name too many", code)
	}
	s.counted(t, status.Full, 1)
	for i := range maxNamers - 1 {
		s.namesOf(named(fmt.Sprint(i)))
	}
	if s.namesOf(swarm.Client("user one more")) != nil {
		t.Errorf("more than %d clients have names", maxNamers)
	}
}
