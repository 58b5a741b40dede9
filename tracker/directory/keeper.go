package directory

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/state"
)

// TrackerInfo is what it takes to reach a tracker as the last hop of a circuit.
type TrackerInfo struct {
	Key   [32]byte // names the tracker: swarms are blinded with it
	ID    onion.ID // what its links show; mostly the same
	Addr  netip.AddrPort
	Onion onion.PublicKey
	Suite onion.Suite
}

// Hop returns t as a line of the directory, so that paths can end there.
func (t TrackerInfo) Hop() path.Relay {
	return path.Relay{ID: t.ID, Addr: t.Addr, Key: t.Onion, Suite: t.Suite}
}

// Keeper holds the newest verified view of each tracker of a network, on disk
// too, and the list of relays that they make together. It may be used by many
// goroutines.
type Keeper struct {
	dir     string
	network Network
	now     func() time.Time
	cache   *Cache
	lacking chan struct{} // cap 1: Lack was called

	adding sync.Mutex // held while a view is verified, merged and written: one at a time

	mu      sync.RWMutex
	kept    map[[32]byte]*kept // guarded by mu; by tracker, one for each of network's
	merged  *Merged            // guarded by mu; never nil, its parts are not changed
	seen    map[onion.ID]seen  // guarded by mu
	changed chan struct{}      // guarded by mu; closed at the next change
	failed  error              // guarded by mu: how Follow's last round ended
	ahead   time.Duration      // guarded by mu: of this clock before that of who was asked last
}

// kept is what is known of one tracker.
type kept struct {
	view  *View // nil when there is none that is usable
	chain Chain
	fault *EquivocationError // not nil: believed no more

	late    time.Duration // how old view was by the clock when it came; below 0 when the clock is behind
	arrived bool          // late is known: view came in this run
}

// seen is a relay that was listed.
type seen struct {
	addr netip.AddrPort
	last time.Time // of the newest view that did
}

// OpenKeeper returns the keeper of n's views whose state is in dir, which it
// makes when missing. A damaged file there is set aside, see package state.
func OpenKeeper(dir string, n Network, now func() time.Time) (*Keeper, error) {
	if err := n.Check(); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	if err := state.MakeDir(dir); err != nil {
		return nil, err
	}
	k := &Keeper{dir: dir, network: n, now: now, cache: NewCache(), lacking: make(chan struct{}, 1),
		kept: make(map[[32]byte]*kept), seen: make(map[onion.ID]seen), changed: make(chan struct{})}
	for _, t := range n.Trackers {
		kept, err := k.load(t.Key)
		if err != nil {
			return nil, err
		}
		k.kept[t.Key] = kept
	}
	k.merge()
	return k, nil
}

// Network returns whom k believes.
func (k *Keeper) Network() *Network { return &k.network }

// Add takes a view in its wire form, from anyone, and reports whether it told
// anything new. It keeps raw. Errors that a caller may care for are ErrStale,
// ErrOld and *EquivocationError; views it can't save count all the same.
func (k *Keeper) Add(raw []byte) (news bool, err error) { return k.add(raw) }

// AddAnswer takes every view in an answer to a request for views.
func (k *Keeper) AddAnswer(answer []byte) (news bool, err error) {
	views, err := ParseViews(answer)
	if err != nil {
		return false, err
	}
	for i := range views {
		views[i] = slices.Clone(views[i]) // each is kept for a time of its own
	}
	return k.add(views...)
}

// add takes views. What they have told is merged once, and then written: who
// waits for the list need not wait for the disk.
func (k *Keeper) add(raws ...[]byte) (news bool, err error) {
	k.adding.Lock()
	defer k.adding.Unlock()
	errs := make([]error, len(raws), 2*len(raws))
	var told [][32]byte
	for i, raw := range raws {
		var key [32]byte
		var one bool
		key, one, errs[i] = k.take(raw)
		if one && !slices.Contains(told, key) {
			told = append(told, key)
		}
	}
	if len(told) == 0 {
		return false, errors.Join(errs...)
	}
	k.merge()
	saved := make([]error, len(told))
	var wg sync.WaitGroup
	for i, key := range told {
		wg.Go(func() { saved[i] = k.save(key, k.tracker(key)) })
	}
	wg.Wait()
	return true, errors.Join(append(errs, saved...)...)
}

// take verifies a view and makes it what is known of its tracker, which it
// returns. Called with adding held.
func (k *Keeper) take(raw []byte) (key [32]byte, news bool, err error) {
	v, err := ParseView(raw)
	if err != nil {
		return key, false, err
	}
	key = v.Tracker()
	if _, ok := k.network.Tracker(key); !ok {
		return key, false, fmt.Errorf("directory: view of %s, which is no tracker of this network", onion.ID(key).Short())
	}
	t := k.tracker(key)
	if t.fault != nil {
		return key, false, t.fault
	}
	if t.view != nil && t.view.Number == v.Number && t.view.hash == v.hash {
		return key, false, nil
	}
	now := k.now()
	if err := v.Verify(key, now, k.cache); err != nil {
		return key, false, err
	}
	if err := v.Self.CheckAddrs(&k.network); err != nil {
		return key, false, err
	}
	if err := t.chain.Check(v); err != nil {
		if errors.As(err, &t.fault) {
			t.view = nil
			k.put(key, t)
			return key, true, err
		}
		return key, false, err
	}
	t.chain.Add(v)
	t.view, t.late, t.arrived = v, now.Sub(time.Unix(v.Time, 0)), true
	k.put(key, t)
	return key, true, nil
}

// tracker returns a copy of what is known of a tracker of the network.
func (k *Keeper) tracker(key [32]byte) kept {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return *k.kept[key]
}

// put makes t what is known of a tracker. Called with adding held.
func (k *Keeper) put(key [32]byte, t kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept[key] = &t
}

// merge makes the list anew. Called with adding held.
func (k *Keeper) merge() {
	now := k.now()
	views := make(map[[32]byte]*View)
	var all []*View
	k.mu.RLock()
	for key, t := range k.kept {
		if t.view != nil {
			views[key] = t.view
			all = append(all, t.view)
		}
	}
	k.mu.RUnlock()
	k.cache.Keep(all)
	m := Merge(&k.network, views, now)

	k.mu.Lock()
	defer k.mu.Unlock()
	k.merged = m
	for id, d := range m.Listed {
		k.seen[id] = seen{d.Addrs[0], m.Time}
	}
	for _, v := range all {
		k.seen[v.Self.ID] = seen{v.Self.Addrs[0], time.Unix(v.Time, 0)}
	}
	for id, s := range k.seen {
		if now.Sub(s.last) >= UsableFor {
			delete(k.seen, id)
		}
	}
	close(k.changed)
	k.changed = make(chan struct{})
}

// Merged returns what the trackers say together, as of now.
func (k *Keeper) Merged() *Merged {
	k.mu.RLock()
	m := k.merged
	k.mu.RUnlock()
	if m.Until.IsZero() || k.now().Before(m.Until) || !k.adding.TryLock() {
		return m
	}
	defer k.adding.Unlock()
	k.merge()
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.merged
}

// Relays returns the relays from which paths are chosen, by ID, ascending.
// Shared: not to be changed.
func (k *Keeper) Relays() []path.Relay { return k.Merged().Relays }

// Relay returns one of them.
func (k *Keeper) Relay(id onion.ID) (path.Relay, bool) {
	relays := k.Relays()
	i, ok := slices.BinarySearchFunc(relays, id, func(r path.Relay, id onion.ID) int {
		return slices.Compare(r.ID[:], id[:])
	})
	if !ok {
		return path.Relay{}, false
	}
	return relays[i], true
}

// Lookup returns where a relay or tracker listens that was listed within the
// last UsableFor: what a relay may dial as a next hop.
func (k *Keeper) Lookup(id onion.ID) (netip.AddrPort, bool) {
	now := k.now()
	k.mu.RLock()
	defer k.mu.RUnlock()
	s, ok := k.seen[id]
	return s.addr, ok && now.Sub(s.last) < UsableFor
}

// Tracker returns how to reach one of the network's trackers, as its own newest
// usable view says.
func (k *Keeper) Tracker(key [32]byte) (TrackerInfo, bool) {
	now := k.now().Unix()
	k.mu.RLock()
	defer k.mu.RUnlock()
	t := k.kept[key]
	if t == nil || t.view == nil || t.view.UsableUntil <= now {
		return TrackerInfo{}, false
	}
	self := t.view.Self
	return TrackerInfo{Key: key, ID: self.ID, Addr: self.Addrs[0], Onion: self.Keys[0], Suite: self.Suite}, true
}

// Trackers returns how to reach those of the network's trackers of which that is known.
func (k *Keeper) Trackers() (infos []TrackerInfo) {
	for _, t := range k.network.Trackers {
		if info, ok := k.Tracker(t.Key); ok {
			infos = append(infos, info)
		}
	}
	return infos
}

// Have returns which views k has: what to ask others for newer ones with.
func (k *Keeper) Have() (have []Have) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, t := range k.network.Trackers {
		kept := k.kept[t.Key]
		switch {
		case kept.fault != nil:
		case kept.view == nil:
			have = append(have, Have{Tracker: t.Key})
		default:
			have = append(have, Have{Tracker: t.Key, Number: kept.view.Number})
		}
	}
	return have
}

// RawViews returns, in their wire form, the usable views that are newer than
// those that someone has. They are not to be changed.
func (k *Keeper) RawViews(have []Have) (raws [][]byte) {
	now := k.now().Unix()
	k.mu.RLock()
	defer k.mu.RUnlock()
	for i, h := range have {
		t := k.kept[h.Tracker]
		twice := slices.ContainsFunc(have[:i], func(other Have) bool { return other.Tracker == h.Tracker })
		if !twice && t != nil && t.view != nil && t.view.Number > h.Number && t.view.UsableUntil > now {
			raws = append(raws, t.view.Raw())
		}
	}
	return raws
}

// Answer answers the body of a request for views.
func (k *Keeper) Answer(body []byte) ([]byte, error) {
	have, err := ParseHave(body)
	if err != nil {
		return nil, err
	}
	raws := k.RawViews(have)
	size := 0
	for _, raw := range raws {
		size += 4 + len(raw)
	}
	b := make([]byte, 0, size)
	for _, raw := range raws {
		b = AppendView(b, raw)
	}
	return b, nil
}

// Changed returns a channel that closes when the list next changes.
func (k *Keeper) Changed() <-chan struct{} {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.changed
}

// Faults returns what to tell the user of trackers that are believed no more.
func (k *Keeper) Faults() (faults []error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, t := range k.network.Trackers {
		if f := k.kept[t.Key].fault; f != nil {
			faults = append(faults, f)
		}
	}
	return faults
}

// ClockError returns by how much the clock is behind the network's time for
// certain: views are never made ahead of time. It is the median over the views
// that came in this run, so that few trackers can't move it. That a clock is
// ahead can't be told from views that are late; then they count as stale.
func (k *Keeper) ClockError() time.Duration {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var late []time.Duration
	for _, t := range k.kept {
		if t.view != nil && t.arrived {
			late = append(late, t.late)
		}
	}
	if 2*len(late) <= len(k.kept) {
		return 0
	}
	slices.Sort(late)
	return max(-late[len(late)/2], 0)
}
