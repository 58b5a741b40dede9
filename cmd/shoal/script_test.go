package main

import (
	"testing"

	"github.com/shoal-p2p/shoal/cmd/internal/script"
	"github.com/shoal-p2p/shoal/proxy/netns"
)

func TestMain(m *testing.M) {
	netns.Init() // does not return in the processes that shoal run starts
	script.Main(m, "shoal", main)
}

func TestScripts(t *testing.T) { script.Run(t) }
