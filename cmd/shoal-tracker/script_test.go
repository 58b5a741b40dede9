package main

import (
	"testing"

	"github.com/shoal-p2p/shoal/cmd/internal/script"
)

func TestMain(m *testing.M) { script.Main(m, "shoal-tracker", main) }

func TestScripts(t *testing.T) { script.Run(t) }
