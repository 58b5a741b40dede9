package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/shoal-p2p/shoal/integration/bench/peer"
	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/netns"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// The rows of the table of real clients.
const (
	qbDirect   = "qBittorrent, directly over loopback"
	qbSOCKS    = "qBittorrent, SOCKS, default settings"
	qbUTP      = "qBittorrent, SOCKS, no PEX: µTP into the seeder"
	qbRun      = "qBittorrent, shoal run"
	trDirect   = "Transmission, directly over loopback"
	trRun      = "Transmission, shoal run"
	utpLibrary = "the µTP library alone, sink to sink"
)

// outside is an address on loopback that no client takes for it: Transmission
// has no peers in 127.0.0.0/8.
var outside = netip.AddrFrom4([4]byte{192, 0, 2, 1})

// transferTime bounds one transfer between real clients.
const transferTime = 2 * time.Minute

// realClients moves a file from one client to another of its kind, directly
// and on each road through Shoal.
func realClients(ctx context.Context, b *bench) error {
	s := b.report.section("clients", "a file from one client to another, directly and with six relays between two sidecars")
	if !netns.Inside() {
		s.note("left out: there is no network without others to run them in")
		return nil
	}
	for _, program := range []string{"qbittorrent-nox", "transmission-daemon"} {
		if _, err := exec.LookPath(program); err != nil {
			s.note("left out: %s is not installed; integration/prereq.sh bench installs it", program)
			return nil
		}
	}
	if err := netns.AddAddress(outside); err != nil {
		return err
	}
	n, err := b.network(ctx, "clients", testnet.Config{Relays: pathHops, Sidecars: 2, Hops: sidecarHops, ViewEvery: viewEvery})
	if err != nil {
		return err
	}
	defer n.Close()
	dir, err := b.folder("clients")
	if err != nil {
		return err
	}
	t, err := startTracker()
	if err != nil {
		return err
	}
	defer t.Close()
	e, err := startEnds(dir)
	if err != nil {
		return err
	}
	defer e.stop()
	direct := func(int) clients.Config { return clients.Config{} }
	socks := func(noPEX bool) func(i int) clients.Config {
		return func(i int) clients.Config { return clients.Config{SOCKS: n.Sidecars[i].SOCKS, NoPEX: noPEX} }
	}
	run := func(i int) clients.Config {
		return clients.Config{Under: func(port uint16) []string {
			return []string{b.shoal, "run", "--network", n.Network, "--hops", strconv.Itoa(sidecarHops[i]),
				"--state", filepath.Join(dir, "run-"+strconv.Itoa(i)), "--publish", strconv.Itoa(int(port)), "--"}
		}}
	}
	const blind = "http://tracker.invalid/announce"
	rows := []struct {
		name    string
		kind    clients.Kind
		tracker string
		config  func(i int) clients.Config
	}{
		{qbDirect, clients.QBittorrent, t.url, direct},
		{qbSOCKS, clients.QBittorrent, blind, socks(false)},
		{qbUTP, clients.QBittorrent, blind, socks(true)},
		{qbRun, clients.QBittorrent, blind, run},
		{trDirect, clients.Transmission, t.url, direct},
		{trRun, clients.Transmission, blind, run},
	}
	size := 256 << 20
	if b.quick {
		size = 32 << 20
	}
	for round := range min(b.rounds, 3) {
		for i, row := range rows {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			name := fmt.Sprintf("noise-%d-%d", round, i)
			file, err := torrent.Noise(name, size, row.tracker)
			if err != nil {
				return err
			}
			took, err := move(ctx, row.kind, filepath.Join(dir, name), file, row.config)
			if err != nil {
				s.note("%s, round %d: %v", row.name, round+1, err)
				continue
			}
			s.add(row.name, "file", "MB/s", float64(size)/1e6/took.whole.Seconds())
			s.add(row.name, "between 10 % and 90 % of it", "MB/s", 0.8*float64(size)/1e6/took.middle.Seconds())
			s.add(row.name, "first piece after", "s", took.first.Seconds())
		}
		if err := utpAlone(s, e, int64(size)); err != nil {
			s.note("%s: %v", utpLibrary, err)
		}
	}
	judgeClients(s)
	return nil
}

func judgeClients(s *Section) {
	const column = "between 10 % and 90 % of it"
	for _, row := range []struct{ through, direct string }{{qbSOCKS, qbDirect}, {qbRun, qbDirect}, {trRun, trDirect}} {
		direct, ok := s.median(row.direct, column)
		if rate, measured := s.median(row.through, column); ok && measured {
			s.atLeast(row.through+", of what they reach directly", rate/direct, 0.5, "")
		}
	}
}

// took is how long a transfer between two clients took.
type took struct {
	first  time.Duration // until there is some of it
	middle time.Duration // from a tenth to nine tenths of it
	whole  time.Duration // until it is complete
}

// move starts two clients, has one seed the file, and times the other.
func move(ctx context.Context, kind clients.Kind, dir string, file torrent.Torrent, config func(i int) clients.Config) (t took, err error) {
	ctx, cancel := context.WithTimeout(ctx, transferTime)
	defer cancel()
	var both [2]clients.Client
	for i := range both {
		c := config(i)
		c.Dir = filepath.Join(dir, strconv.Itoa(i))
		if both[i], err = kind.Start(ctx, c); err != nil {
			return t, err
		}
		defer both[i].Stop()
	}
	if err := file.Put(both[0].Config().Downloads()); err != nil {
		return t, err
	}
	if err := both[0].Add(ctx, file.File); err != nil {
		return t, err
	}
	if err := clients.WaitFor(ctx, both[0], file.Hash, func(p clients.Progress) bool { return p.Settled && p.Done == 1 && p.Announced }); err != nil {
		return t, fmt.Errorf("the seeder: %w", err)
	}
	start := time.Now()
	if err := both[1].Add(ctx, file.File); err != nil {
		return t, err
	}
	var tenth, most time.Duration
	err = clients.WaitFor(ctx, both[1], file.Hash, func(p clients.Progress) bool {
		now := time.Since(start)
		if p.Done > 0 && t.first == 0 {
			t.first = now
		}
		if p.Done >= 0.1 && tenth == 0 {
			tenth = now
		}
		if p.Done >= 0.9 && most == 0 {
			most = now
		}
		return p.Settled && p.Done == 1
	})
	if err != nil {
		return t, fmt.Errorf("the leecher: %w", err)
	}
	t.whole, t.middle = time.Since(start), max(most-tenth, time.Millisecond)
	return t, file.Check(both[1].Config().Downloads())
}

// utpAlone measures what the library that carries the last yard to a client
// does when there is nothing else.
func utpAlone(s *Section, e *ends, bytes int64) error {
	var addr string
	if err := e.source.Call("Peer.ListenUTP", "127.0.0.1:0", &addr); err != nil {
		return err
	}
	c, err := e.measure(peer.Pull{Ways: []peer.Way{{To: addr, UTP: true}}, Bytes: min(bytes, 64<<20), Limit: 10 * time.Second}, nil)
	if err != nil {
		return err
	}
	s.add(utpLibrary, "file", "MB/s", c.rate())
	s.add(utpLibrary, "CPU", "s/GB", c.perGB())
	return nil
}

// tracker is an ordinary tracker (BEP 3, 23), for clients that meet directly.
type tracker struct {
	*http.Server
	url string

	mu    sync.Mutex
	ports map[string]map[uint16]bool // guarded by mu: of a swarm's members, all on loopback
}

func startTracker() (*tracker, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &tracker{url: "http://" + l.Addr().String() + "/announce", ports: make(map[string]map[uint16]bool)}
	t.Server = &http.Server{Handler: t, ReadHeaderTimeout: 5 * time.Second}
	go t.Serve(l) // until Close
	return t, nil
}

// ServeHTTP answers an announce with everybody else who is in the swarm.
func (t *tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	port, err := strconv.ParseUint(q.Get("port"), 10, 16)
	if err != nil {
		http.Error(w, "no port", http.StatusBadRequest)
		return
	}
	t.mu.Lock()
	swarm := t.ports[q.Get("info_hash")]
	if swarm == nil {
		swarm = make(map[uint16]bool)
		t.ports[q.Get("info_hash")] = swarm
	}
	swarm[uint16(port)] = true
	var peers []byte
	for p := range swarm {
		if p != uint16(port) {
			peers = binary.BigEndian.AppendUint16(append(peers, outside.AsSlice()...), p)
		}
	}
	t.mu.Unlock()
	w.Write(bencode.MustMarshal(map[string]any{"interval": 1800, "peers": string(peers)}))
}
