package clients

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/shoal-p2p/shoal/integration/netns"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

func TestMain(m *testing.M) { netns.Tests(m, nil) }

// address is where all clients are for each other: some never dial 127.0.0.1.
var address = [4]byte{198, 18, 0, 1}

// tracker tells everybody of everybody.
type tracker struct {
	mu    sync.Mutex
	peers map[string][]byte // port -> compact peer
}

func startTracker(t *testing.T) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", netip.AddrPortFrom(netip.AddrFrom4(address), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: &tracker{peers: make(map[string][]byte)}}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return fmt.Sprintf("http://%v/announce", ln.Addr())
}

func (t *tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := r.FormValue("port")
	if t.peers[own] == nil {
		var port uint16
		fmt.Sscan(own, &port)
		t.peers[own] = binary.BigEndian.AppendUint16(address[:], port)
	}
	var others []byte
	for port, peer := range t.peers {
		if port != own {
			others = append(others, peer...)
		}
	}
	answer, _ := bencode.Marshal(map[string]any{"interval": 1800, "min interval": 5, "peers": others})
	w.Write(answer)
}

// TestEachClientSeedsAndDownloads shows that the drivers do what they say,
// without Shoal: each client gets a file from qBittorrent and gives it one.
func TestEachClientSeedsAndDownloads(t *testing.T) {
	if err := netns.AddAddress(netip.AddrFrom4(address)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	for _, kind := range All {
		t.Run(kind.Name, func(t *testing.T) {
			t.Parallel() // Transmission waits a quarter of a minute before each file
			reference := start(t, ctx, QBittorrent)
			began := time.Now()
			client := start(t, ctx, kind)
			t.Logf("started after %v", time.Since(began))
			move(t, ctx, "to-"+kind.Name, reference, client)
			move(t, ctx, "from-"+kind.Name, client, reference)
		})
	}
}

// start starts a client that is gone at the end of the test.
func start(t *testing.T, ctx context.Context, kind Kind) Client {
	t.Helper()
	client, err := kind.Start(ctx, Config{Dir: t.TempDir(), NoDHT: true, NoUTP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		began := time.Now()
		if err := client.Stop(); err != nil {
			t.Error(err)
		}
		t.Logf("stopped after %v", time.Since(began))
	})
	return client
}

// move lets one client give the other a file, and both forget it.
func move(t *testing.T, ctx context.Context, name string, from, to Client) {
	t.Helper()
	began := time.Now()
	tor, err := torrent.Noise(name, 3<<20, startTracker(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := tor.Put(from.Config().Downloads()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Client{from, to} {
		if err := c.Add(ctx, tor.File); err != nil {
			t.Fatal(err)
		}
		if c == from {
			if err := Wait(ctx, c, tor.Hash); err != nil {
				t.Fatalf("seeding %s: %v", name, err)
			}
		}
	}
	seeding := time.Since(began)
	if err := Wait(ctx, to, tor.Hash); err != nil {
		t.Fatalf("downloading %s: %v", name, err)
	}
	if err := tor.Check(to.Config().Downloads()); err != nil {
		t.Error(err)
	}
	t.Logf("%s: seeding after %v, moved after %v", name, seeding, time.Since(began))
	for _, c := range []Client{from, to} {
		if err := c.Remove(ctx, tor.Hash); err != nil {
			t.Error(err)
		}
	}
}
