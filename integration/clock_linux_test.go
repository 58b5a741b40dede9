package integration

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/integration/hosts"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// elsewhen is a network on one host whose clocks all differ from this machine's
// by the same: to it, this machine's clock is wrong. The programs of a tracker or
// relay can't be given another clock, so they are made of their packages here.
type elsewhen struct {
	host    *hosts.Host
	now     func() time.Time
	network directory.Network
	addrs   map[onion.ID]netip.AddrPort
	views   []byte
	ended   []chan error
}

// newElsewhen starts one tracker and four relays, whose time is ahead of ours.
func newElsewhen(t *testing.T, s *site, n int, ahead time.Duration) *elsewhen {
	t.Helper()
	host, err := s.net.Add(fmt.Sprint("elsewhen ", n), netip.AddrFrom4([4]byte{81, 2, byte(n), 5}))
	if err != nil {
		t.Fatal(err)
	}
	e := &elsewhen{host: host, now: func() time.Time { return time.Now().Add(ahead) }, addrs: make(map[onion.ID]netip.AddrPort),
		network: directory.Network{Test: true, ViewEvery: directory.ViewEvery}}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		for _, over := range e.ended {
			<-over
		}
	})
	listen := func(i int) (net.Listener, netip.AddrPort) {
		addr := netip.AddrPortFrom(host.Addr, uint16(9000+i))
		ln, err := host.Listen(addr.String())
		if err != nil {
			t.Fatal(err)
		}
		return ln, addr
	}
	var entries []directory.Entry
	for i := range 4 {
		ln, addr := listen(1 + i)
		d, _ := e.serve(t, ctx, ln, addr)
		entries = append(entries, directory.Entry{Weight: 1e6, FirstSeen: e.now().Unix(), Reachable: true, Descriptor: d})
		e.network.Entries = append(e.network.Entries, directory.EntryRelay{ID: d.ID, Addr: addr})
	}
	slices.SortFunc(entries, func(a, b directory.Entry) int { return bytes.Compare(a.Descriptor.ID[:], b.Descriptor.ID[:]) })
	ln, addr := listen(0)
	self, identity := e.serve(t, ctx, ln, addr)
	e.network.Trackers = []directory.Tracker{{Key: [32]byte(self.ID), Addr: addr}}
	v := &directory.View{
		Certificate: directory.Certify(identity, [32]byte(self.ID), e.now()), Number: directory.NextNumber(nil, e.now()), Time: e.now().Unix(),
		ValidUntil: e.now().Add(directory.ValidFor).Unix(), UsableUntil: e.now().Add(directory.UsableFor).Unix(), Self: self, Entries: entries,
	}
	if err := v.Sign(identity); err != nil {
		t.Fatal(err)
	}
	e.views = directory.AppendView(nil, v.Raw())
	return e
}

// serve has a relay or tracker run.
func (e *elsewhen) serve(t *testing.T, ctx context.Context, ln net.Listener, addr netip.AddrPort) (*directory.Descriptor, ed25519.PrivateKey) {
	t.Helper()
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := onion.GenerateKey(1)
	if err != nil {
		t.Fatal(err)
	}
	d := &directory.Descriptor{Published: e.now().Unix(), Addrs: []netip.AddrPort{addr}, Keys: []onion.PublicKey{key.Public()}}
	if err := d.Sign(identity); err != nil {
		t.Fatal(err)
	}
	e.addrs[d.ID] = addr
	cert, err := link.Certificate(identity)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		return e.host.Dial(ctx, "tcp", addr.String())
	}
	links := &link.Pool{Certificate: &cert, DialTCP: dial}
	server, err := hop.New(hop.Config{
		Identity: identity, Key: func(byte) *onion.PrivateKey { return key }, Now: e.now, Links: links,
		Hello: func() []byte { return d.Append(nil) },
		Next:  func(id onion.ID) (netip.AddrPort, bool) { a, ok := e.addrs[id]; return a, ok },
		Requests: map[byte]func(*hop.Circuit, []byte) ([]byte, error){
			cell.RequestViews: func(_ *hop.Circuit, body []byte) ([]byte, error) {
				have, err := directory.ParseHave(body)
				if err != nil || len(have) == 1 && have[0].Number > 0 {
					return nil, err
				}
				return e.views, nil
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	e.ended = append(e.ended, over)
	go func() {
		go links.Run(ctx)
		over <- server.Serve(ctx, ln)
	}()
	return d, identity
}

// TestAWrongClockIsNamed, and by how much: a day behind is allowed for.
func TestAWrongClockIsNamed(t *testing.T) {
	ctx := deadline(t)
	s := newSite(t, ctx, 0, 0)
	for i, c := range []struct {
		name  string
		ahead time.Duration // of the network, before this machine
		text  string
	}{
		{"40 minutes ahead", -40 * time.Minute, "This computer's clock is 40 min ahead of that of the guard."},
		{"five hours ahead", -5 * time.Hour, "This computer's clock is 5 h ahead of that of"},
		{"three days ahead", -72 * time.Hour, "This computer's clock is 3 days ahead of that of the entry relay."},
		{"three days behind", 72 * time.Hour, "This computer's clock is 3 days behind that of the entry relay."},
	} {
		t.Run(c.name, func(t *testing.T) {
			const rest = 5 * time.Second // is cut off, so that the seconds of a slow handshake don't show
			e := newElsewhen(t, s, i, c.ahead+time.Duration(cmp.Compare(c.ahead, 0))*rest)
			h := s.home(t, e.network, "--hops", "2")
			h.reads(t, ctx, fault.Clock, c.text)
		})
	}
	t.Run("two hours behind", func(t *testing.T) {
		e := newElsewhen(t, s, 9, 2*time.Hour+5*time.Second)
		h := s.home(t, e.network)
		h.ready(t, ctx, true)
		err := process.Until(ctx, 50*time.Millisecond, func() (bool, error) {
			now, err := h.status(ctx)
			if err == nil {
				err = fmt.Errorf("%+v", now)
			}
			return now.Ready && now.Trackers.Answer == 1, err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, page, err := h.get(ctx, "/"); err != nil || !strings.Contains(page, "clock is 2 h behind that of the trackers") {
			t.Errorf("the page does not say so (%v): %s", err, page)
		}
	})
}
