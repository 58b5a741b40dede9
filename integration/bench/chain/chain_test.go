package chain

import (
	"os"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/child"
	"github.com/shoal-p2p/shoal/integration/bench/peer"
)

func TestMain(m *testing.M) {
	child.Main(new(Chain), new(peer.Peer))
	os.Exit(m.Run())
}

func TestChainsHandEverythingOn(t *testing.T) {
	p := new(peer.Peer)
	var source string
	if err := p.Listen("127.0.0.1:0", &source); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Shape{"plain": {Hops: 1}, "TLS": {Hops: 2, TLS: true}} {
		t.Run(name, func(t *testing.T) {
			r, err := Start(s, source, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Stop()
			if got, want := len(r.PIDs()), s.Hops+2; got != want {
				t.Errorf("%d processes, want %d", got, want)
			}
			var got peer.Pulled
			ways := []peer.Way{{To: r.Addr}, {To: r.Addr}}
			if err := p.Pull(peer.Pull{Ways: ways, Bytes: 4 << 20, Limit: 20 * time.Second}, &got); err != nil {
				t.Fatal(err)
			}
			if got.Bytes() < 4<<20 {
				t.Errorf("%d bytes came, want %d", got.Bytes(), 4<<20)
			}
		})
	}
}

func TestAChainWithNobodyBehindItEndsItsConnections(t *testing.T) {
	r, err := Start(Shape{Hops: 1, TLS: true}, "127.0.0.1:1", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	err = new(peer.Peer).Pull(peer.Pull{Ways: []peer.Way{{To: r.Addr}}, Bytes: 1 << 20, Limit: time.Second}, new(peer.Pulled))
	if err == nil {
		t.Error("Pull succeeded, with no source")
	}
}
