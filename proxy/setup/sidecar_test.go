package setup

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/proc"
)

// scripted answers what is written to it.
type scripted struct {
	answers io.Reader
	sent    bytes.Buffer
}

func (s *scripted) Read(b []byte) (int, error)  { return s.answers.Read(b) }
func (s *scripted) Write(b []byte) (int, error) { return s.sent.Write(b) }

func TestWhatAProxyAnswersIsUnderstood(t *testing.T) {
	for _, c := range []struct {
		name, user, password string
		answers              string
		sends                string
		want                 Answer
	}{
		{"no login wanted", "", "", "\x05\x00", "\x05\x01\x00", Served},
		{"a login wanted, none offered", "", "", "\x05\xff", "\x05\x01\x00", LoginMissing},
		{"accepted", "me", "secret", "\x05\x02\x01\x00", "\x05\x01\x02\x01\x02me\x06secret", Served},
		{"rejected", "me", "wrong", "\x05\x02\x01\x01", "\x05\x01\x02\x01\x02me\x05wrong", LoginRejected},
		{"a name without a password", "me", "", "\x05\x02\x01\x00", "\x05\x01\x02\x01\x02me\x00", Served},
		{"no names taken", "me", "secret", "\x05\xff", "\x05\x01\x02", Foreign},
		{"a name too long", strings.Repeat("a", 256), "", "\x05\x02", "\x05\x01\x02", LoginRejected},
		{"a method that was not offered", "", "", "\x05\x02", "\x05\x01\x00", Foreign},
		{"SOCKS4", "", "", "\x00\x5b", "\x05\x01\x00", Foreign},
		{"a web server", "", "", "HTTP/1.1 400 Bad Request\r\n", "\x05\x01\x00", Foreign},
		{"cut off", "", "", "\x05", "\x05\x01\x00", Foreign},
		{"cut off after the method", "me", "secret", "\x05\x02\x01", "\x05\x01\x02\x01\x02me\x06secret", Foreign},
		{"hung up", "", "", "", "\x05\x01\x00", Foreign},
	} {
		conn := &scripted{answers: strings.NewReader(c.answers)}
		if got := greet(conn, c.user, c.password); got != c.want || conn.sent.String() != c.sends {
			t.Errorf("%s: got %d after sending %q, want %d after %q", c.name, got, conn.sent.String(), c.want, c.sends)
		}
	}
}

func TestALookGivesNoLogin(t *testing.T) {
	for answers, want := range map[string]Answer{
		"\x05\x00": Served, "\x05\x02": Served, "\x05\xff": Served,
		"\x05\x01": Foreign, "\x04\x00": Foreign, "HTTP": Foreign, "\x05": Foreign, "": Foreign,
	} {
		conn := &scripted{answers: strings.NewReader(answers)}
		if got := look(conn); got != want || conn.sent.String() != "\x05\x02\x00\x02" {
			t.Errorf("%q: got %d after sending %q, want %d", answers, got, conn.sent.String(), want)
		}
	}
}

func FuzzGreet(f *testing.F) {
	f.Add("", []byte("\x05\x00"))
	f.Add("me", []byte("\x05\x02\x01\x00"))
	f.Add("me", []byte("HTTP/1.1"))
	f.Fuzz(func(t *testing.T, user string, answers []byte) {
		got := greet(&scripted{answers: bytes.NewReader(answers)}, user, "secret")
		if got.SOCKS5() && (len(answers) < 2 || answers[0] != socksVersion) {
			t.Errorf("%q is taken for SOCKS5: %d", answers, got)
		}
		if got == Served && user != "" && (len(answers) < 4 || answers[3] != 0) {
			t.Errorf("%q is taken for an accepted login", answers)
		}
	})
}

func TestNobodyIsToldApartFromAMuteProgram(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(ln.Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := ln.Accept(); err == nil { // and says nothing
			defer conn.Close()
			var b [4]byte
			io.ReadFull(conn, b[:3])
			cancel()
			conn.Read(b[:])
		}
	}()
	if got := Knock(ctx, at, "", ""); got != Foreign {
		t.Errorf("a mute one: got %d, want %d", got, Foreign)
	}
	ln.Close()
	if got := Knock(t.Context(), at, "", ""); got != Nobody {
		t.Errorf("a closed port: got %d, want %d", got, Nobody)
	}
}

func TestTheCommandForShoalRunIsExact(t *testing.T) {
	for _, c := range []struct {
		client Client
		args   []string
		want   string
	}{
		{RTorrent, nil, "shoal run --network FILE -- rtorrent"},
		{Aria2, []string{"/usr/bin/aria2c", "--enable-rpc", "--dir=/my files"}, "shoal run --network FILE -- /usr/bin/aria2c --enable-rpc '--dir=/my files'"},
		{Deluge, []string{"/usr/bin/python3", "/usr/bin/deluged", "-d"}, "shoal run --network FILE -- deluged --do-not-daemonize"},
		{Aria2, []string{"aria2c", "it's"}, `shoal run --network FILE -- aria2c 'it'\''s'`},
	} {
		i := Instance{Client: c.client}
		if c.args != nil {
			i.Process = &proc.Process{Args: c.args}
		}
		if got := i.runCommand("--network FILE"); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestTheNetworkOfASidecarIsNamed(t *testing.T) {
	for _, c := range []struct {
		args string
		want string
	}{
		{"", "--network FILE"},
		{"shoal proxy --network /n/a.json --socks 127.0.0.1:1090", "--network /n/a.json"},
		{"shoal proxy --network=/n/a.json", "--network /n/a.json"},
		{"shoal proxy --tracker LINK1 --tracker LINK2", "--tracker LINK1 --tracker LINK2"},
		{"shoal proxy", "--network FILE"},
	} {
		var all []Sidecar
		if c.args != "" {
			all = []Sidecar{{Process: proc.Process{Args: strings.Fields(c.args)}}}
		}
		if got := network(all); got != c.want {
			t.Errorf("%q: got %s, want %s", c.args, got, c.want)
		}
	}
}
