package relay

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
)

func TestARelaySaysSeldomWhatItCarries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		r := &Relay{cfg: Config{Log: slog.New(slog.NewTextHandler(&b, nil))}, server: new(hop.Server), links: new(link.Pool)}
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { r.summarise(ctx); close(done) }()
		c := r.Counters()
		c.Created.Add(7)
		time.Sleep(firstSummary + time.Second)
		c.Created.Add(5)
		c.Refused.Add(2)
		c.Outdated.Add(3)
		time.Sleep(3 * summaryEvery)
		cancel()
		<-done
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != 5 { // after ten minutes, thrice, and what was outdated
			t.Fatalf("%d lines: %s", len(lines), b.String())
		}
		for i, want := range []string{`msg=carried in="10 min" megabytes=0 circuits=7 refused=0 open=0`, `msg=carried in="6 h" megabytes=0 circuits=5 refused=2`, `links=3`, `circuits=0`, `circuits=0`} {
			if !strings.Contains(lines[i], want) {
				t.Errorf("line %d: %s, want %s", i, lines[i], want)
			}
		}
	})
}
