package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"testing"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/stream"
)

func TestLastHopAnswersRequestsAtEveryLength(t *testing.T) {
	n := startNetwork(t, 8, nil)
	for own := range path.MaxOwn + 1 {
		c := n.client(t, own)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		ask := []byte("0123456789abcdef0123456789abcdef")
		built, got, err := c.Request(ctx, circuit.Want{Use: circuit.ForTracker, Last: n.relays[7]}, cell.RequestEcho, ask, 1<<20)
		if err != nil {
			t.Fatalf("%d own relays: %v", own, err)
		}
		if want := bytes.Repeat(ask, 1000); !bytes.Equal(got, want) {
			t.Errorf("%d own relays: answer of %d bytes, want %d", own, len(got), len(want))
		}
		if built.Hops() != own+1 {
			t.Errorf("%d own relays: %d hops, want %d", own, built.Hops(), own+1)
		}
		cancel()
	}
}

func TestStreamCarriesBytesBothWaysAndCloses(t *testing.T) {
	n := startNetwork(t, 6, nil)
	a, b := pair(t, n, 2, 2)
	data := make([]byte, 8<<20)
	rand.Read(data)
	for _, way := range []struct{ from, to *stream.Conn }{{a, b}, {b, a}} {
		go func() {
			way.from.Write(data)
			way.from.CloseWrite()
		}()
		got, err := io.ReadAll(way.to)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read %d bytes of %d: %v", len(got), len(data), err)
		}
	}
	a.Close()
	b.Close()
}

func TestUnknownTokenIsRefused(t *testing.T) {
	n := startNetwork(t, 5, nil)
	key, _ := stream.GenerateKey()
	_, _, err := n.client(t, 2).Dial(t.Context(), circuit.Want{Last: n.relays[4]}, circuit.Call{Static: key, Remote: key.Public()})
	refused, ok := err.(*circuit.RefusedError)
	if !ok || refused.Reason != cell.UnknownToken {
		t.Errorf("Dial = %v, want %v", err, cell.UnknownToken)
	}
}

func BenchmarkStreamOverFiveRelays(b *testing.B) {
	n := startNetwork(b, 7, nil)
	x, y := pair(b, n, 2, 2)
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	go func() {
		for range b.N {
			if _, err := x.Write(buf); err != nil {
				return
			}
		}
		x.CloseWrite()
	}()
	b.ResetTimer()
	if n, err := io.Copy(io.Discard, y); err != nil || n != int64(b.N)*int64(len(buf)) {
		b.Fatalf("copied %d: %v", n, err)
	}
}
