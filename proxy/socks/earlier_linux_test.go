package socks

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/proxy/proc"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// TestClientsKeepTheirNumbersOverARestart in whatever order they come back: a
// number is who a client is in its swarms.
func TestClientsKeepTheirNumbersOverARestart(t *testing.T) {
	first, second := proc.Self().ID(), proc.Process{PID: os.Getppid()}.ID()
	gone := proc.ID{PID: first.PID, Started: first.Started + 1}
	s := New(Config{Earlier: []Known{
		{Client: "client 1", Owner: first}, {Client: "client 2", Owner: second},
		{Client: "client 3", Owner: gone}, {Client: "user alice", Owner: first},
	}}, nil)
	for _, c := range []struct {
		owner proc.ID
		want  swarm.Client
	}{
		{second, "client 2"},
		{proc.ID{}, "client 3"}, // the first that nobody will come back to
		{first, "client 1"},
		{gone, "client 4"},
	} {
		a := &Association{owner: c.owner}
		a.client = s.number(a, s.absent())
		if a.client != c.want {
			t.Errorf("process %+v is %q, want %q", c.owner, a.client, c.want)
		}
		s.assocs = append(s.assocs, a)
	}
}

func TestAConnectionBeforeTheAssociationIsTheEarlierClients(t *testing.T) {
	udp := netip.MustParseAddrPort("127.0.0.1:6881")
	s := start(t, Config{Earlier: []Known{{Client: "client 2", UDP: udp}, {Client: "user alice", UDP: udp}}})
	c := dial(t, s)
	c.login("", "")
	c.request(1, "tracker.invalid", 80)
	c.say('G')
	if at := <-s.where; at.from.Client != "client 2" {
		t.Errorf("it is taken for %q's, want client 2's", at.from.Client)
	}
}

func TestAwaitReturnsWithTheAssociation(t *testing.T) {
	s := start(t, Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	there := make(chan bool)
	go func() {
		s.Await(ctx, "user alice")
		close(there)
	}()
	associate(t, s, "bob")
	select {
	case <-there:
		t.Error("another client's association was taken")
	case <-time.After(20 * time.Millisecond):
	}
	associate(t, s, "alice")
	<-there
	if ctx.Err() != nil {
		t.Error("it waited for its whole time")
	}
	s.Await(ctx, "user alice") // at once
	cancel()
	s.Await(ctx, "user carol") // without waiting
}
