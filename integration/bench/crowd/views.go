package crowd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// Views is the service of a process that hands out a directory, or fetches it
// (package child).
type Views struct{}

// Directory is an order for a directory that nobody has yet.
type Directory struct{ Relays, Trackers int }

// Served is where it is to be had.
type Served struct {
	Network []byte // the network file
	ID      onion.ID
	Addr    string
	Bytes   int // of all views together
}

// Serve makes up relays and the trackers' views of them, and serves the views
// as any relay does, until the process ends.
func (Views) Serve(o Directory, out *Served) error {
	now := time.Now()
	entries, err := madeUp(o.Relays, now)
	if err != nil {
		return err
	}
	n := directory.Network{Test: true, ViewEvery: directory.ViewEvery}
	var answer []byte
	for i := range o.Trackers {
		t, view, err := viewOf(entries, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, 0, byte(i + 1)}), 9000), now)
		if err != nil {
			return err
		}
		n.Trackers = append(n.Trackers, t)
		answer = directory.AppendView(answer, view)
	}
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	key, err := onion.GenerateKey(1)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	self := &directory.Descriptor{Published: now.Unix(), Addrs: []netip.AddrPort{addr}, Keys: []onion.PublicKey{key.Public()}}
	if err := self.Sign(identity); err != nil {
		return err
	}
	server, err := hop.New(hop.Config{
		Identity: identity,
		Key:      func(byte) *onion.PrivateKey { return key },
		Hello:    func() []byte { return self.Append(nil) },
		Now:      time.Now,
		Requests: map[byte]func(*hop.Circuit, []byte) ([]byte, error){
			cell.RequestViews: func(*hop.Circuit, []byte) ([]byte, error) { return answer, nil },
		},
	})
	if err != nil {
		return err
	}
	go server.Serve(context.Background(), l)
	*out = Served{Network: n.File(), ID: self.ID, Addr: addr.String(), Bytes: len(answer)}
	return nil
}

// madeUp returns relays that don't exist, with keys that do.
func madeUp(n int, now time.Time) ([]directory.Entry, error) {
	entries := make([]directory.Entry, n)
	err := parallel(16, n, func(i int) error {
		_, identity, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		key, err := onion.GenerateKey(1)
		if err != nil {
			return err
		}
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], 20<<24+uint32(i)*997)
		d := &directory.Descriptor{
			Published: now.Add(-time.Hour).Unix(), Addrs: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4(ip), 9001)},
			Keys: []onion.PublicKey{key.Public()}, Rate: 12_500_000, Contact: "nobody@example.org", Program: "0.1.0",
		}
		entries[i] = directory.Entry{Weight: uint64(1e6 + i*1000), FirstSeen: now.Add(-30 * 24 * time.Hour).Unix(), Reachable: true, Descriptor: d}
		return d.Sign(identity)
	})
	slices.SortFunc(entries, func(a, b directory.Entry) int { return bytes.Compare(a.Descriptor.ID[:], b.Descriptor.ID[:]) })
	return entries, err
}

// viewOf makes a new tracker's view of the relays.
func viewOf(entries []directory.Entry, addr netip.AddrPort, now time.Time) (t directory.Tracker, raw []byte, err error) {
	public, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return t, nil, err
	}
	key, err := onion.GenerateKey(1)
	if err != nil {
		return t, nil, err
	}
	self := &directory.Descriptor{Published: now.Unix(), Addrs: []netip.AddrPort{addr}, Keys: []onion.PublicKey{key.Public()}}
	if err := self.Sign(identity); err != nil {
		return t, nil, err
	}
	v := &directory.View{
		Certificate: directory.Certify(identity, [32]byte(public), now), Number: directory.NextNumber(nil, now), Time: now.Unix(),
		ValidUntil: now.Add(directory.ValidFor).Unix(), UsableUntil: now.Add(directory.UsableFor).Unix(), Self: self, Entries: entries,
	}
	err = v.Sign(identity)
	return directory.Tracker{Key: [32]byte(public), Addr: addr}, v.Raw(), err
}

// Fetched is how long it took a sidecar that has nothing to be able to choose.
type Fetched struct {
	Fetch, Verify, Choose, All time.Duration // Verify: signatures, merging and keeping on disk
	Relays                     int
}

// Fetch does what a sidecar does at its first start: dial a relay that serves
// views, fetch them, verify them, and choose where to be met and a path there.
func (Views) Fetch(from Served, out *Fetched) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n, err := directory.ParseNetwork(from.Network)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(from.Addr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "shoal-bench-views-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	start := time.Now()
	k, err := directory.OpenKeeper(dir, n, time.Now)
	if err != nil {
		return err
	}
	c, stop := client(&n, 0, k.Relays)
	defer stop()
	body := directory.AppendHave(nil, k.Have())
	want := circuit.Want{Use: circuit.ForTracker, Last: path.Relay{ID: from.ID, Addr: addr}, Direct: true}
	_, answer, err := c.Request(ctx, want, cell.RequestViews, body, directory.MaxViews(len(n.Trackers)))
	if err != nil {
		return fmt.Errorf("crowd: fetch: %w", err)
	}
	fetched := time.Now()
	if _, err := k.AddAnswer(answer); err != nil {
		return err
	}
	verified := time.Now()
	relays := k.Relays()
	chooser := path.New(n.Rules(), path.NewRand(), nil, nil)
	meetings, err := chooser.ChooseMeeting(relays, 2)
	if err != nil {
		return err
	}
	for i, m := range meetings {
		if _, err := chooser.Choose(time.Now(), relays, path.Key{byte(i)}, 2, m); err != nil {
			return err
		}
	}
	end := time.Now()
	*out = Fetched{Fetch: fetched.Sub(start), Verify: verified.Sub(fetched), Choose: end.Sub(verified), All: end.Sub(start), Relays: len(relays)}
	if out.Relays == 0 {
		return errors.New("crowd: no relay can be chosen")
	}
	return nil
}
