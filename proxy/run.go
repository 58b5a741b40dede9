package proxy

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/shoal-p2p/shoal/proxy/confined"
	"github.com/shoal-p2p/shoal/proxy/netns"
)

// Command runs a sidecar and, in a namespace whose only way out is this
// sidecar, a command. It returns the command's exit code, once both are over.
// cfg.Handler, cfg.Trust and cfg.Ready are set here.
func (p *Sidecar) Command(ctx context.Context, cfg netns.Config) (code int, err error) {
	if err := confined.CheckAddr(cfg); err != nil {
		return netns.ExitNotStarted, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	failed := make(chan error, 1)
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			failed <- err
			cancel()
		}
	})
	defer running.Wait()
	defer cancel()
	if cfg.Say == nil {
		cfg.Say = func(line string) { fmt.Fprintln(os.Stderr, "shoal: "+line) }
	}
	d := p.confined
	cfg.Handler, cfg.Trust = d, p.tls.PEM()
	settings := cfg
	cfg.Ready = func(starting context.Context, n *netns.Network) {
		d.Enter(n)
		if ready := d.AwaitReady(starting, cfg.Say); starting.Err() == nil {
			running.Go(func() { d.Attend(ctx, ready, cfg.Say, settings) })
		}
	}
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	// A session bus leads nowhere: what listens there fetches, and outside.
	cfg.Env = append(cfg.Env, "DBUS_SESSION_BUS_ADDRESS=disabled:")
	code, err = netns.Run(ctx, cfg)
	d.Close()
	select {
	case sidecar := <-failed:
		return code, sidecar // which ended the command, too
	default:
		return code, err
	}
}
