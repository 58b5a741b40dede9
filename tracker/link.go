package tracker

import (
	"bytes"
	"cmp"
	"path/filepath"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// LinkEntries is how many entry relays a link names that the tracker has chosen
// by itself: some may be away when a sidecar first starts.
const LinkEntries = 3

// Link returns the tracker link as it is now. Its entry relays are those of the
// network, if it names any, else relays that this tracker has reached. With
// fewer than LinkEntries of these it names none: it is for relays only.
func (t *Tracker) Link() directory.Link {
	n := &t.cfg.Network
	l := directory.Link{Tracker: directory.Tracker{Key: [32]byte(t.server.ID()), Addr: t.found.Addr}, Within: n.Within, Test: n.Test}
	if len(n.Entries) > 0 {
		l.Entries = n.Entries[:min(len(n.Entries), directory.MaxLinkEntries)]
	} else if reached := t.book.entries(); len(reached) == LinkEntries {
		l.Entries = reached
	}
	return l
}

// entries returns up to LinkEntries relays that are reachable, the longest known
// first, so that newcomers don't push themselves in front of all who join.
// They lie in networks and belong to owners of their own as far as possible.
func (b *book) entries() (out []directory.EntryRelay) {
	now := b.now()
	b.mu.Lock()
	var up []*known
	for _, k := range b.relays {
		if k.listed != nil && k.reachable && now.Sub(time.Unix(k.d.Published, 0)) <= directory.DescriptorFor {
			copied := *k
			up = append(up, &copied)
		}
	}
	b.mu.Unlock()
	slices.SortFunc(up, func(x, y *known) int {
		return cmp.Or(x.first.Compare(y.first), bytes.Compare(x.listed.ID[:], y.listed.ID[:]))
	})
	rules := b.t.cfg.Network.Rules()
	var chosen []path.Relay
	for _, mayConflict := range []bool{false, true} {
		for _, k := range up {
			r := path.Relay{ID: k.listed.ID, Addr: k.listed.Addrs[0], Family: k.listed.Family}
			taken := slices.ContainsFunc(chosen, func(c path.Relay) bool { return c.ID == r.ID || !mayConflict && rules.Conflict(&c, &r) })
			if !taken && len(chosen) < LinkEntries {
				chosen = append(chosen, r)
			}
		}
	}
	for _, r := range chosen {
		out = append(out, directory.EntryRelay{ID: r.ID, Addr: r.Addr})
	}
	return out
}

// linkFile holds the link of a tracker that runs, for those who ask beside it.
var linkFile = &state.Kind{Name: "tracker-link", Version: 1, Limit: int64(directory.MaxLink), Policy: state.Cache,
	What: "the tracker link", Lost: "--print-link waits until this tracker runs again"}

// SavedLink returns the link that the tracker which runs on a state folder has
// now; false when it has saved none yet.
func SavedLink(dir string) (l directory.Link, ok bool, err error) {
	ok, err = linkFile.Load(filepath.Join(dir, "link"), func(b []byte) error {
		l, err = directory.ParseLink(string(b))
		return err
	})
	return l, ok, err
}

// relink saves the link, and tells Config.Linked of the first one with entry
// relays. Called by book.run alone.
func (t *Tracker) relink() {
	l := t.Link()
	if s := l.String(); s != t.saved {
		if err := linkFile.Save(t.path("link"), []byte(s)); err != nil {
			t.cfg.Log.Error("--print-link will not find the link", "err", err)
		}
		t.saved = s
	}
	if t.linked {
		return
	}
	if len(l.Entries) > 0 {
		t.linked = true
		if t.cfg.Linked != nil {
			t.cfg.Linked(l)
		}
		return
	}
	if n := len(t.book.entries()); n != t.reached {
		t.reached = n
		t.cfg.Log.Info("relays reached; the link for sidecars needs more", "relays", n, "needed", LinkEntries)
	}
}
