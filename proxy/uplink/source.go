package uplink

import (
	"slices"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
)

// lastAsked returns what the relay is that was last asked for lists of relays.
func (u *Uplink) lastAsked() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked
}

// nextSource returns whom to ask for views, but for those asked: a guard, or
// before there is any, one entry relay of the network and only if that fails
// another.
func (u *Uplink) nextSource(asked []onion.ID) (path.Relay, bool) {
	r, what, ok := u.source(asked)
	if ok {
		u.mu.Lock()
		u.asked = what
		u.mu.Unlock()
	}
	return r, ok
}

func (u *Uplink) source(asked []onion.ID) (r path.Relay, what string, ok bool) {
	guards := u.Chooser.GuardStatus()
	for _, g := range guards {
		if r, ok := u.Keeper.Relay(g.ID); ok && !slices.Contains(asked, g.ID) && len(asked) < path.Primary {
			return r, "the guard", true
		}
	}
	if u.Keeper.Merged().Ready() == nil && len(asked) > 0 {
		return r, "", false
	}
	// Each entry relay that is dialled learns this computer's address: one that
	// does not answer may only be slow to start.
	if len(asked) > 0 && u.patience > 0 {
		u.patience--
		return r, "", false
	}
	var entries []path.Relay
	for _, e := range u.cfg.Network.Entries {
		entries = append(entries, path.Relay{ID: e.ID, Addr: e.Addr, Weight: 1})
	}
	if r, err := u.Chooser.First(entries, asked...); err == nil {
		if slices.ContainsFunc(guards, func(g path.GuardStatus) bool { return g.ID == r.ID }) {
			return r, "the guard", true
		}
		return r, "the entry relay", true
	}
	if len(entries) > 0 || !u.cfg.Direct {
		return r, "", false
	}
	for _, t := range u.cfg.Network.Trackers {
		if !slices.Contains(asked, onion.ID(t.Key)) {
			return path.Relay{ID: onion.ID(t.Key), Addr: t.Addr}, "the tracker", true
		}
	}
	return r, "", false
}
