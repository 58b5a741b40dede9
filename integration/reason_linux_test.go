package integration

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/integration/hosts"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// status returns what /status.json says.
func (h *household) status(ctx context.Context) (now status.Status, err error) {
	_, body, err := h.get(ctx, "/status.json")
	if err == nil {
		err = json.Unmarshal([]byte(body), &now)
	}
	return now, err
}

// reads waits until the sidecar is not ready for cause, and checks that the
// reason is the same everywhere: it holds text, and something to do.
func (h *household) reads(t *testing.T, ctx context.Context, cause fault.Cause, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	began := time.Now()
	var now status.Status
	err := process.Until(ctx, 50*time.Millisecond, func() (bool, error) {
		var err error
		if now, err = h.status(ctx); err == nil {
			err = fmt.Errorf("ready %v, %s: %s", now.Ready, now.Cause, now.Why)
		}
		return now.Cause == string(cause) && strings.Contains(now.Why, text), err
	}, h.Process)
	if err != nil {
		t.Errorf("want %s: %s: %v", cause, text, err)
		return
	}
	t.Logf("after %v: %s\n    %s", time.Since(began).Round(100*time.Millisecond), now.Why, now.Advice)
	if now.Ready || now.Advice == "" {
		t.Errorf("ready %v, advice %q", now.Ready, now.Advice)
	}
	_, probe, err := h.get(ctx, "/readyz")
	if err != nil || !strings.Contains(probe, now.Why) || !strings.Contains(probe, now.Advice) {
		t.Errorf("/readyz: %q, %v", probe, err)
	}
	_, page, err := h.get(ctx, "/")
	for _, s := range []string{now.Why, now.Advice} {
		if s = strings.NewReplacer("'", "&#39;", `"`, "&#34;").Replace(s); err != nil || !strings.Contains(page, s) {
			t.Errorf("the page does not say %q (%v)", s, err)
		}
	}
	if words := h.words(t); !strings.Contains(words, `msg="not ready" why="`+now.Why+`" advice="`+now.Advice+`"`) {
		t.Errorf("the log does not say so: %s", words)
	}
	h.private(t)
}

// private checks that the log holds no address beyond loopback.
func (h *household) private(t *testing.T) {
	t.Helper()
	for _, word := range strings.FieldsFunc(h.words(t), func(r rune) bool { return strings.ContainsRune(" \n\"=>@", r) }) {
		a, err := netip.ParseAddrPort(word)
		if err != nil {
			a = netip.AddrPortFrom(netip.Addr{}, 0)
			if alone, err := netip.ParseAddr(word); err == nil {
				a = netip.AddrPortFrom(alone, 0)
			}
		}
		if a.Addr().IsValid() && !a.Addr().IsLoopback() {
			t.Errorf("the log names the address %v: %s", a, h.words(t))
		}
	}
}

// impostor answers at an address of a machine of its own, and is no relay.
func impostor(t *testing.T, s *site, n int, answer func(net.Conn)) (h *hosts.Host, addr netip.AddrPort) {
	t.Helper()
	a := netip.AddrFrom4([4]byte{62, 210, byte(n), 9})
	h, err := s.net.Add(fmt.Sprint("impostor ", n), a)
	if err != nil {
		t.Fatal(err)
	}
	addr = netip.AddrPortFrom(a, 9001)
	ln, err := h.Listen(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				answer(conn)
			}()
		}
	}()
	return h, addr
}

// speaks returns a key, and a relay with that key that speaks another version.
func speaks(t *testing.T, version byte) (onion.ID, func(net.Conn)) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := link.Certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	return onion.ID(pub), func(conn net.Conn) {
		c := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
		c.Write([]byte{version, 0, 0})
		io.Copy(io.Discard, c)
	}
}

// TestARelaySaysWhyATrackerCannotBeTold of it, once, and what to do.
func TestARelaySaysWhyATrackerCannotBeTold(t *testing.T) {
	ctx := deadline(t)
	s := newSite(t, ctx, 0, 0)
	old, oldAnswers := speaks(t, 3)
	_, oldAddr := impostor(t, s, 1, oldAnswers)
	for name, c := range map[string]struct {
		tracker directory.Tracker
		text    string
	}{
		"a port where nobody listens": {directory.Tracker{Key: [32]byte{1}, Addr: netip.AddrPortFrom(siteAddr, 1)}, "The tracker refuses connections: nothing listens at its address."},
		"an older version":            {directory.Tracker{Key: [32]byte(old), Addr: oldAddr}, "The tracker speaks version 3 of the protocol, this program version 4."},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.server(t, shoal(), "relay")
			r.args = append(r.args, "--network", s.file(t, directory.Network{Test: true, ViewEvery: time.Second, Trackers: []directory.Tracker{c.tracker}}))
			s.start(t, r)
			defer r.Kill()
			told := `could not be told of this relay; trying again`
			var words string
			err := process.Until(ctx, 50*time.Millisecond, func() (bool, error) {
				b, err := os.ReadFile(r.log)
				words = string(b)
				return strings.Contains(words, told), err
			}, r.Process)
			if err != nil || strings.Count(words, told) != 1 || !strings.Contains(words, c.text) {
				t.Errorf("%v: %s", err, words)
			}
		})
	}
}

// TestTheTrueReasonIsShown when a new sidecar can't get ready: in the page, in
// /status.json, at /readyz and in the log, with what to do about it.
func TestTheTrueReasonIsShown(t *testing.T) {
	ctx := deadline(t)
	s := newSite(t, ctx, 1, 4)
	entry := func(id onion.ID, addr netip.AddrPort) directory.Network {
		n := s.network
		n.Entries = []directory.EntryRelay{{ID: id, Addr: addr}}
		return n
	}
	real := s.relays[0].id
	old, oldAnswers := speaks(t, 3)
	newer, newerAnswers := speaks(t, 99)
	_, oldAddr := impostor(t, s, 1, oldAnswers)
	_, newAddr := impostor(t, s, 2, newerAnswers)
	_, webAddr := impostor(t, s, 3, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 100))
		io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n")
	})
	mute, muteAddr := impostor(t, s, 4, func(net.Conn) {})
	if err := mute.Mute(); err != nil {
		t.Fatal(err)
	}
	_, hungAddr := impostor(t, s, 5, func(c net.Conn) { io.Copy(io.Discard, c) })
	for name, c := range map[string]struct {
		network directory.Network
		cause   fault.Cause
		text    string
	}{
		"a port where nobody listens": {entry(real.ID, netip.AddrPortFrom(siteAddr, 1)), fault.Refused, "The entry relay refuses connections"},
		"a firewall that drops":       {entry(real.ID, muteAddr), fault.Timeout, "The entry relay does not answer"},
		"a machine that hangs":        {entry(real.ID, hungAddr), fault.Timeout, "takes the connection and then does not answer"},
		"nobody at the address":       {entry(real.ID, netip.MustParseAddrPort("109.74.200.3:9001")), fault.Unreachable, "no way to the entry relay"},
		"an older version":            {entry(old, oldAddr), fault.Version, "The entry relay speaks version 3"},
		"a newer version":             {entry(newer, newAddr), fault.Version, "The entry relay speaks version 99"},
		"another relay":               {entry(real.ID, s.relays[1].id.Addr), fault.WrongKey, "shows another key"},
		"a login page":                {entry(real.ID, webAddr), fault.Foreign, "Something other than Shoal"},
	} {
		t.Run(name, func(t *testing.T) {
			s.home(t, c.network).reads(t, ctx, c.cause, c.text)
		})
	}
	t.Run("another address than --source", func(t *testing.T) {
		h := s.home(t, s.network, "--source", s.nextHome().String())
		h.ready(t, ctx, true)
		if err := h.host.Move(netip.MustParseAddr("45.76.131.9")); err != nil {
			t.Fatal(err)
		}
		h.reads(t, ctx, fault.Source, "The address to dial from, --source,")
	})
	t.Run("too few relays", func(t *testing.T) {
		s.home(t, s.network, "--hops", "4").reads(t, ctx, fault.NoRelays, "Too few relays for a ")
	})
	t.Run("no network", func(t *testing.T) {
		host, err := s.net.Add("island", netip.MustParseAddr("45.76.130.9"))
		if err != nil {
			t.Fatal(err)
		}
		if err := host.Down(); err != nil {
			t.Fatal(err)
		}
		h := s.sidecar(t, host, s.network)
		h.reads(t, ctx, fault.NoNetwork, "This computer has no network")
		if err := host.Up(); err != nil {
			t.Fatal(err)
		}
		t.Logf("ready %v after the network is back", h.ready(t, ctx, true))
	})
	t.Run("no tracker", func(t *testing.T) {
		h := s.home(t, s.network)
		h.ready(t, ctx, true)
		s.trackers[0].Kill()
		h.reads(t, ctx, fault.NoTracker, "The tracker does not answer")
		s.start(t, s.trackers[0])
		t.Logf("ready %v after the tracker is back", h.ready(t, ctx, true))
		if words := h.words(t); !strings.Contains(words, "0 of 1 trackers answer") || !strings.Contains(words, "1 of 1 trackers answer") {
			t.Error(words)
		}
	})
}
