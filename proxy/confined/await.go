package confined

import (
	"context"
	"fmt"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/proxy/netns"
	"github.com/shoal-p2p/shoal/proxy/peers"
)

const (
	// readyWait is how long a command waits for the sidecar. After that it starts
	// all the same: nothing gets out by any other way.
	readyWait = 30 * time.Second

	// patient is how long the user hears nothing about a sidecar that is not
	// ready: most are within a second.
	patient = 1500 * time.Millisecond

	// readyPoll is how often the sidecar is asked.
	readyPoll = 50 * time.Millisecond

	// quiet is how long a command may send nothing that a torrent client sends
	// before the user is told what may keep it from that. Transmission sends its
	// first packet after half a minute.
	quiet = time.Minute
)

// AwaitReady waits until the sidecar is ready, for readyWait at most, and tells
// the user what it waits for.
func (d *Door) AwaitReady(ctx context.Context, say func(string)) (ready bool) {
	began := time.Now()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for told := fault.Cause(""); ; {
		why := d.notReady()
		waited := time.Since(began)
		switch {
		case why == nil && told != "":
			say("the network is ready")
			return true
		case why == nil:
			return true
		case waited >= readyWait:
			say("the command starts without the network. Nothing that it sends goes anywhere else, and a line follows when the network is ready.")
			return false
		case waited >= patient && why.Cause != told:
			say(fmt.Sprintf("waiting for the network. %s The command starts without it in %.0f s.", inWords(why), (readyWait - waited).Seconds()))
			told = why.Cause
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// inWords returns why the sidecar is not ready, and what to do about it.
func inWords(why *fault.Fault) string {
	switch {
	case why.Cause == fault.Starting:
		return "No relay has answered yet."
	case why.Advice == "":
		return why.Text()
	}
	return why.Text() + " " + why.Advice
}

// Attend tells the user when the sidecar is ready, if the command had to start
// before, and when the command sends nothing.
func (d *Door) Attend(ctx context.Context, ready bool, say func(string), cfg netns.Config) {
	began := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for heard := false; !ready || !heard; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !ready {
			if ready = d.notReady() == nil; ready {
				say("the network is ready")
			}
		}
		if heard = heard || d.acted(); !heard && time.Since(began) >= quiet {
			say("the command has announced no torrent and dialled no peer for a minute. " + nothingSent(cfg))
			d.silent.Store(true)
			heard = true // once
		}
	}
}

// nothingSent explains why a command may have sent nothing.
func nothingSent(cfg netns.Config) string {
	name, addr := netns.DefaultInterface, netns.ClientAddr
	if cfg.Interface != "" {
		name = cfg.Interface
	}
	if cfg.Addr.IsValid() {
		addr = cfg.Addr
	}
	return fmt.Sprintf(`If it has torrents that run, it may be set to use an interface or address that does not exist here, where there is only %s with %v. Clear that setting (qBittorrent: Advanced > Network interface; Deluge: Network > Interface; Transmission: bind-address-ipv4; rTorrent: network.bind_address; aria2: interface), or give it what it wants: shoal run --interface NAME=ADDRESS.`, name, addr)
}

// CheckAddr returns an error for an address that the command can't have, since
// it stands for something else.
func CheckAddr(cfg netns.Config) error {
	if a := cfg.Addr; a.IsValid() && (peers.NameRange.Contains(a) || peers.Is(a)) {
		return fmt.Errorf("--interface: %v lies in a range that stands for names (%v) or peers (%v)", a, peers.NameRange, peers.Prefix)
	}
	return nil
}
