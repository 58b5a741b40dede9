package proxy

import (
	"os"
	"slices"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/memory"
	"github.com/shoal-p2p/shoal/proxy/proc"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// TestWhoMayBeBackAfterARestart: a client is one that can't be another.
func TestWhoMayBeBackAfterARestart(t *testing.T) {
	runs := proc.Process{PID: os.Getpid()}.ID()
	ended := proc.ID{PID: os.Getpid(), Started: runs.Started + 1}
	client := func(name swarm.Client, o proc.ID) memory.Client { return memory.Client{Name: name, Owner: o} }
	for _, c := range []struct {
		name string
		of   []memory.Client
		want []swarm.Client
	}{
		{"one whose process runs", []memory.Client{client("client 1", runs)}, []swarm.Client{"client 1"}},
		{"one whose process has ended", []memory.Client{client("client 1", ended)}, nil},
		{"a user whose process has ended", []memory.Client{client("user a", ended)}, nil},
		{"one without a known process", []memory.Client{client("client 1", proc.ID{})}, []swarm.Client{"client 1"}},
		{"two of which one is not known", []memory.Client{client("client 1", proc.ID{}), client("client 2", runs)}, []swarm.Client{"client 2"}},
		{"users without known processes", []memory.Client{client("user a", proc.ID{}), client("user b", proc.ID{})}, []swarm.Client{"user a", "user b"}},
	} {
		back, gone := present(c.of)
		var names []swarm.Client
		for _, b := range back {
			names = append(names, b.Name)
		}
		if !slices.Equal(names, c.want) || len(back)+len(gone) != len(c.of) {
			t.Errorf("%s: back are %v, want %v", c.name, names, c.want)
		}
	}
}
