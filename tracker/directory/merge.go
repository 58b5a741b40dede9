package directory

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
)

// Merged is what all of a network's trackers say together.
type Merged struct {
	// Relays can be chosen for paths, by ID, ascending. Shared: not to be changed.
	Relays []path.Relay

	// Listed are all relays that more than half of the trackers know, those of
	// weight 0 too: the ones that may be dialled as a next hop.
	Listed map[onion.ID]*Descriptor

	// Views is how many trackers' views are in it, Trackers how many there are.
	Views, Trackers int

	// Stale says that fewer than half of the trackers have a view from which
	// paths may be chosen: what runs may go on, nothing new should start.
	Stale bool

	// Time is the latest at which a view in it was made, and Until when the
	// first of them lapses.
	Time, Until time.Time
}

// Ready returns nil when paths can be chosen from m, else a *fault.Fault.
func (m *Merged) Ready() error {
	switch {
	case m.Views == 0:
		return fault.New(fault.Starting, "no list of relays has been received yet", "", nil)
	case 2*m.Views <= m.Trackers:
		return fault.New(fault.NoViews, fmt.Sprintf("the lists of relays of %d of %d trackers have been received, and more than half are needed", m.Views, m.Trackers), adviceTrackers, nil)
	case m.Stale:
		return fault.New(fault.NoViews, "the trackers' newest lists of relays are too old", adviceTrackers, nil)
	case len(m.Relays) == 0:
		return fault.New(fault.NoRelays, "no relay is on the lists of more than half of the trackers",
			"Relays say in their log whether the trackers reach them. A network that has just been started needs a minute.", nil)
	}
	return nil
}

const adviceTrackers = "Trackers are down or can't be reached: tell whoever runs the network. Shoal keeps asking."

// forgotten is the age at which a descriptor counts no more, whoever lists it:
// its onion keys are erased, or should be, and were they stolen, an old
// descriptor would be the way to make use of them.
const forgotten = DescriptorFor + UsableFor

// lines are what all views say of one relay.
type lines struct {
	descriptor *Descriptor
	weights    []uint64
	ages       []uint64 // seconds since first seen
}

// Merge makes one list out of the views, by tracker, of n's trackers. A relay's
// weight is the lower median over all trackers, and one that doesn't list it, or
// has no view here, says 0: so a relay counts when more than half list it, and
// half of the trackers together can neither add nor inflate one.
// Views that may be chosen from count, as long as more than half of the trackers
// have one; else all that are usable.
func Merge(n *Network, views map[[32]byte]*View, now time.Time) *Merged {
	m := &Merged{Listed: make(map[onion.ID]*Descriptor), Trackers: len(n.Trackers)}
	use := m.pick(n, views, now)
	byID := make(map[onion.ID]*lines)
	for _, v := range use {
		for i := range v.Entries {
			byID[v.Entries[i].Descriptor.ID] = nil
		}
	}
	store := make([]lines, 0, len(byID))
	for _, v := range use {
		for i := range v.Entries {
			e := &v.Entries[i]
			l := byID[e.Descriptor.ID]
			if l == nil {
				store = append(store, lines{descriptor: e.Descriptor})
				l = &store[len(store)-1]
				byID[e.Descriptor.ID] = l
			}
			if e.Descriptor.Published > l.descriptor.Published {
				l.descriptor = e.Descriptor
			}
			l.weights = append(l.weights, e.Weight)
			l.ages = append(l.ages, uint64(max(now.Unix()-e.FirstSeen, 0)))
		}
	}
	entry := make(map[onion.ID]bool)
	for _, e := range n.Entries {
		entry[e.ID] = true
	}
	for i := range store {
		l := &store[i]
		d := l.descriptor
		if 2*len(l.weights) <= m.Trackers || d.CheckAddrs(n) != nil || now.Sub(time.Unix(d.Published, 0)) > forgotten {
			continue
		}
		if _, tracker := n.Tracker(d.ID); tracker {
			continue
		}
		m.Listed[d.ID] = d
		weight := lowerMedian(l.weights, m.Trackers)
		if weight == 0 {
			continue
		}
		age := time.Duration(min(lowerMedian(l.ages, m.Trackers), uint64(10*365*24*60*60))) * time.Second
		m.Relays = append(m.Relays, path.Relay{
			ID: d.ID, Addr: d.Addrs[0], Key: d.Keys[0], Suite: d.Suite, Weight: weight,
			FirstSeen: now.Add(-age), Entry: entry[d.ID],
		})
	}
	slices.SortFunc(m.Relays, func(a, b path.Relay) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	for i := range m.Relays {
		m.Relays[i].Family = m.family(m.Relays[i].ID)
	}
	capWeights(m.Relays, n.Rules())
	return m
}

// pick returns the views to merge and says of them what m tells.
func (m *Merged) pick(n *Network, views map[[32]byte]*View, now time.Time) []*View {
	var valid, usable []*View
	for _, t := range n.Trackers {
		v := views[t.Key]
		if v == nil || v.UsableUntil <= now.Unix() {
			continue
		}
		usable = append(usable, v)
		m.lapses(v.UsableUntil)
		if v.ValidUntil > now.Unix() {
			valid = append(valid, v)
			m.lapses(v.ValidUntil)
		}
	}
	use := usable
	if 2*len(valid) > len(n.Trackers) {
		use = valid
	} else {
		m.Stale = true
	}
	for _, v := range use {
		if t := time.Unix(v.Time, 0); t.After(m.Time) {
			m.Time = t
		}
	}
	m.Views = len(use)
	return use
}

func (m *Merged) lapses(s int64) {
	if t := time.Unix(s, 0); m.Until.IsZero() || t.Before(m.Until) {
		m.Until = t
	}
}

// family returns the relays that id names as its owner's and that name it too.
// Without that, anyone could declare a stranger its family and so keep it off
// every path.
func (m *Merged) family(id onion.ID) (family []onion.ID) {
	for _, other := range m.Listed[id].Family {
		if d := m.Listed[other]; d != nil && slices.Contains(d.Family, id) {
			family = append(family, other)
		}
	}
	return family
}

// lowerMedian returns the one of n numbers that stands at (n-1)/2, ascending,
// where those that are not given are 0. It sorts given.
func lowerMedian(given []uint64, n int) uint64 {
	slices.Sort(given)
	if at := (n-1)/2 - (n - len(given)); at >= 0 {
		return given[at]
	}
	return 0
}

const (
	// maxShare is the greatest part of all weight that one relay may have, and
	// maxGroupShare a network (path.Rules) or a family. They apply once there
	// are twice as many as would fill it.
	maxShare      = 0.05
	maxGroupShare = 0.10
)

// capWeights lowers weights in place so that nobody holds too much of the
// network, however fast. To lower one raises the share of the others, hence the
// rounds; each brings them closer, and what is left after the last is a trifle.
func capWeights(relays []path.Relay, rules path.Rules) {
	alone := make([]int, len(relays))
	for i := range alone {
		alone[i] = i
	}
	family, network := families(relays), networks(relays, rules)
	const rounds = 20
	for range rounds {
		lowered := capGroups(relays, alone, maxShare)
		lowered = capGroups(relays, family, maxGroupShare) || lowered
		lowered = !rules.SameNet && capGroups(relays, network, maxGroupShare) || lowered
		if !lowered {
			return
		}
	}
}

// capGroups lowers the weights of groups so that none has more than share of
// what remains, and reports whether it had to. group says for each relay which
// one it is in, as an index below len(relays).
func capGroups(relays []path.Relay, group []int, share float64) (lowered bool) {
	sums := make([]float64, len(relays))
	for i, g := range group {
		sums[g] += float64(relays[i].Weight)
	}
	rest := 0.0
	var ordered []float64
	for _, s := range sums {
		if s > 0 {
			ordered = append(ordered, s)
			rest += s
		}
	}
	if float64(len(ordered)) < 2/share {
		return false
	}
	slices.SortFunc(ordered, func(a, b float64) int { return cmp.Compare(b, a) })
	// With the k greatest lowered to limit, limit is share of k*limit + rest.
	limit := 0.0
	for k, s := range ordered {
		limit = share * rest / (1 - share*float64(k))
		if s <= limit {
			break
		}
		rest -= s
	}
	const trifle = 1.001
	for i, g := range group {
		if s := sums[g]; s > limit*trifle {
			relays[i].Weight = max(uint64(float64(relays[i].Weight)*limit/s), 1)
			lowered = true
		}
	}
	return lowered
}

// families numbers the relays by family: those tied to each other through
// others are in one.
func families(relays []path.Relay) []int {
	at := make(map[onion.ID]int, len(relays))
	group := make([]int, len(relays))
	for i := range relays {
		at[relays[i].ID], group[i] = i, i
	}
	find := func(i int) int {
		for group[i] != i {
			group[i] = group[group[i]]
			i = group[i]
		}
		return i
	}
	for i := range relays {
		for _, id := range relays[i].Family {
			if j, ok := at[id]; ok {
				group[find(i)] = find(j)
			}
		}
	}
	for i := range group {
		group[i] = find(i)
	}
	return group
}

// networks numbers the relays by network.
func networks(relays []path.Relay, rules path.Rules) []int {
	numbers := make(map[netip.Prefix]int)
	group := make([]int, len(relays))
	for i := range relays {
		name := rules.Network(relays[i].Addr.Addr())
		if _, ok := numbers[name]; !ok {
			numbers[name] = len(numbers)
		}
		group[i] = numbers[name]
	}
	return group
}

// FirstWeight is what a relay may start with, bytes per second, until it was
// seen to carry more.
const FirstWeight = 1 << 20

// Grow returns the weight that a tracker may give a relay which it measured,
// when it last said last and since passed: at most twice as much a day, so that
// nobody draws much of the network onto new relays overnight.
func Grow(last, measured uint64, since time.Duration) uint64 {
	const most = 1 << 50 // far above any link, far below where doubling overflows
	measured = min(measured, most)
	limit := min(max(last, FirstWeight), most)
	for since >= 24*time.Hour && limit < measured {
		limit *= 2
		since -= 24 * time.Hour
	}
	limit += uint64(float64(limit) * min(max(since.Hours()/24, 0), 1))
	return min(measured, limit)
}
