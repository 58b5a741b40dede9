package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/testnet"
)

// TestASwarmGoesOnWithEveryTrackerStopped: of three, the last one was told of
// the second alone, by a tracker that had forgotten the first. With no tracker
// left it finds the first: the second knows it.
func TestASwarmGoesOnWithEveryTrackerStopped(t *testing.T) {
	ctx := deadline(t)
	network := start(t, ctx, testnet.Config{Trackers: 1, Relays: 5, Sidecars: 3, Block: 3})
	var hash [20]byte
	rand.Read(hash[:])
	first, second, third := newPeer(t, network.Sidecars[0], hash), newPeer(t, network.Sidecars[1], hash), newPeer(t, network.Sidecars[2], hash)
	second.announces(ctx, 0)
	first.dial(ctx, first.announces(ctx, 1)[0])
	second.met(ctx, 1)

	signal := func(s syscall.Signal) {
		if err := syscall.Kill(network.Sidecars[0].PID, s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP) // so it does not tell the new tracker of itself
	defer signal(syscall.SIGCONT)
	tracker := network.Trackers[0]
	tracker.Process.Kill()
	if err := os.Remove(filepath.Join(tracker.State, "swarms")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	again := restart(t, network, tracker)
	var known []netip.AddrPort
	for len(known) == 0 {
		second.announces(ctx, 0)
		known = third.announces(ctx, 0)
	}
	if len(known) != 1 {
		t.Fatalf("the third was told of %d peers before there was gossip", len(known))
	}
	again.Kill()
	signal(syscall.SIGCONT)
	began := time.Now()
	third.dial(ctx, known[0])
	second.met(ctx, 2)
	for _, at := range third.announces(ctx, 2) {
		if at != known[0] {
			t.Logf("found after %v", time.Since(began).Round(time.Millisecond))
			third.dial(ctx, at)
		}
	}
	first.met(ctx, 1)
}

// restart starts a tracker that was killed, in its place.
func restart(t *testing.T, network *testnet.Net, tr *testnet.Tracker) *process.Process {
	t.Helper()
	at := netip.MustParseAddrPort(tr.Addr)
	cmd := exec.Command(shoalTracker(), "--source", at.Addr().String(), "--state", tr.State,
		"--listen", tr.Addr, "--advertise", tr.Addr, "--network", network.Network)
	p, err := process.Start("tracker again", cmd, filepath.Join(tr.State, "log-again"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill(); <-p.Gone() })
	return p
}

// peer is a torrent client that announces when it is told to, and says hello.
type peer struct {
	t      *testing.T
	socks  string
	hash   [20]byte
	id     [20]byte
	listen net.Listener
	http   http.Client

	mu   sync.Mutex
	came int // guarded by mu: peers that said hello
}

func newPeer(t *testing.T, s *testnet.Sidecar, hash [20]byte) *peer {
	t.Helper()
	p := &peer{t: t, socks: s.SOCKS, hash: hash}
	rand.Read(p.id[:])
	copy(p.id[:], "-qB5000-")
	proxy := &url.URL{Scheme: "socks5h", Host: s.SOCKS}
	p.http.Transport = &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true}
	var err error
	if p.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := p.listen.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				if p.hello(conn) != nil {
					return
				}
				p.mu.Lock()
				p.came++
				p.mu.Unlock()
				io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() {
		p.listen.Close()
		p.http.CloseIdleConnections()
	})
	return p
}

// hello sends the handshake of BEP 3 and reads the other one.
func (p *peer) hello(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(time.Minute))
	defer conn.SetDeadline(time.Time{})
	b := append([]byte("\x13BitTorrent protocol"), make([]byte, 8)...)
	b = append(append(b, p.hash[:]...), p.id[:]...)
	if _, err := conn.Write(b); err != nil {
		return err
	}
	got := make([]byte, len(b))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(got[28:48], p.hash[:]) {
		return fmt.Errorf("hello for %x", got[28:48])
	}
	return nil
}

// met waits until so many peers have said hello.
func (p *peer) met(ctx context.Context, n int) {
	p.t.Helper()
	err := process.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.came >= n, nil
	})
	if err != nil {
		p.t.Fatalf("waiting for %d peers: %v", n, err)
	}
}

// announces announces until it is told of n peers or more.
func (p *peer) announces(ctx context.Context, n int) (out []netip.AddrPort) {
	p.t.Helper()
	err := process.Until(ctx, time.Second, func() (bool, error) {
		var err error
		out, err = p.announce(ctx)
		return err == nil && len(out) >= n, nil
	})
	if err != nil {
		p.t.Fatalf("told of %d peers, want %d: %v", len(out), n, err)
	}
	return out
}

func (p *peer) announce(ctx context.Context) (out []netip.AddrPort, err error) {
	query := fmt.Sprintf("?info_hash=%s&peer_id=%s&port=%d&uploaded=0&downloaded=0&left=1000&compact=1&numwant=50",
		url.QueryEscape(string(p.hash[:])), url.QueryEscape(string(p.id[:])), p.listen.Addr().(*net.TCPAddr).Port)
	r, err := http.NewRequestWithContext(ctx, "GET", httpTracker+query, nil)
	if err != nil {
		return nil, err
	}
	reply, err := p.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	var body struct {
		Peers   string `bencode:"peers"`
		Failure string `bencode:"failure reason"`
	}
	if err := bencode.NewDecoder(bufio.NewReader(reply.Body)).Decode(&body); err != nil {
		return nil, err
	}
	if body.Failure != "" {
		return nil, fmt.Errorf("the tracker says: %s", body.Failure)
	}
	for b := []byte(body.Peers); len(b) >= 6; b = b[6:] {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[4:])))
	}
	return out, nil
}

// dial says hello to a peer through the sidecar, and stays.
func (p *peer) dial(ctx context.Context, at netip.AddrPort) {
	p.t.Helper()
	err := process.Until(ctx, time.Second, func() (bool, error) {
		conn, err := net.Dial("tcp", p.socks)
		if err != nil {
			return false, err
		}
		p.t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(time.Minute))
		ip := at.Addr().As4()
		ask := append([]byte{5, 1, 0, 5, 1, 0, 1}, ip[:]...)
		if _, err := conn.Write(binary.BigEndian.AppendUint16(ask, at.Port())); err != nil {
			return false, nil
		}
		answer := make([]byte, 2+10)
		if _, err := io.ReadFull(conn, answer); err != nil || answer[3] != 0 {
			return false, nil
		}
		return p.hello(conn) == nil, nil
	})
	if err != nil {
		p.t.Fatalf("dialling: %v", err)
	}
}
