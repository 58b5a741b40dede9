package front

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// someDoor is a door that leads nowhere.
type someDoor struct{ Door }

func TestClientsThatRestAreForgotten(t *testing.T) {
	f := New(Config{Counters: new(status.Counters), Log: slog.New(slog.DiscardHandler), Door: func(c swarm.Client) Door {
		if c == "door" {
			return someDoor{}
		}
		return nil
	}})
	held := f.Hold("held")
	for _, name := range []swarm.Client{"door", "swarm", "returns", "job"} {
		f.Hold(name).Release()
	}
	f.client("swarm").runs[swarm.Hash{1}] = nil
	f.client("returns").returns = time.Now().Add(time.Hour)
	f.client("job").jobs <- struct{}{}
	rests := f.Hold("rests")
	rests.Release()
	for i := range 10 * maxIdle {
		f.Hold(swarm.Client(fmt.Sprint("user ", i))).Release()
	}
	if n := len(f.clients); n > maxIdle {
		t.Errorf("%d clients are remembered", n)
	}
	for _, name := range []swarm.Client{"held", "door", "swarm", "returns", "job"} {
		if f.client(name) == nil {
			t.Errorf("%s is forgotten", name)
		}
	}
	if f.client("rests") != nil || rests.hold() {
		t.Error("a client that rests is not forgotten")
	}
	if peers := rests.Peers(context.Background(), swarm.Hash{1}); peers != nil {
		t.Errorf("one that is forgotten joins: %v", peers)
	}
	if _, err := rests.earlier(netip.MustParseAddrPort("192.0.2.1:1")); err == nil {
		t.Error("one that is forgotten dials")
	}
	held.Release()
	f.Close()
}
