package uplink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

const (
	// askEvery is how long a tracker may go unheard of before it is asked
	// whether it is there. Announces tell, too: a sidecar with torrents seldom
	// has to ask.
	askEvery = 3 * time.Minute

	// askSoonest is between two questions to one tracker.
	askSoonest = 15 * time.Second

	askTimeout = time.Minute
	askLook    = time.Second // between looks whether one is to be asked
)

// trackers is whether each tracker answers, as far as circuits to it have shown.
// The zero value knows nothing.
type trackers struct {
	mu    sync.Mutex
	heard map[onion.ID]*heard // guarded by mu: by the identity of its links
	told  chan struct{}       // guarded by mu: has one after a change
}

// heard is what is known of one tracker.
type heard struct {
	at    time.Time // when something was heard of it; zero: never
	err   error     // nil: it answered
	asked time.Time
	doubt bool // a circuit to it has ended: ask soon
}

// of returns what is known of id. Caller holds mu.
func (t *trackers) of(id onion.ID) *heard {
	if t.heard == nil {
		t.heard = make(map[onion.ID]*heard)
	}
	h := t.heard[id]
	if h == nil {
		h = new(heard)
		t.heard[id] = h
	}
	return h
}

// news returns a channel that has something after a change.
func (t *trackers) news() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.channel()
}

// channel returns told. Caller holds mu.
func (t *trackers) channel() chan struct{} {
	if t.told == nil {
		t.told = make(chan struct{}, 1)
	}
	return t.told
}

// note takes how a request to the tracker id ended. Where the fault lies on this
// side of all relays it says nothing of the tracker.
func (t *trackers) note(id onion.ID, err error) {
	_, refused := errors.AsType[*circuit.RefusedError](err)
	if _, built := errors.AsType[*fault.Fault](err); refused && !built {
		err = nil // by the tracker itself, which is there
	}
	for _, here := range []error{context.Canceled, circuit.ErrFirstHop, circuit.ErrGone, path.ErrNoRelays} {
		if errors.Is(err, here) {
			return
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.of(id)
	changed := h.at.IsZero() || (h.err == nil) != (err == nil)
	h.at, h.err, h.doubt = time.Now(), err, false
	if changed {
		select {
		case t.channel() <- struct{}{}:
		default:
		}
	}
}

// lost takes that a circuit to the tracker id has ended by itself.
func (t *trackers) lost(id onion.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(id).doubt = true
}

// due reports, and notes, that id is to be asked now. In a test network
// everything is ten times as fast.
func (t *trackers) due(id onion.ID, test bool) bool {
	wait, soonest := time.Duration(float64(askEvery)*(0.9+0.2*rand.Float64())), askSoonest
	if test {
		wait, soonest = wait/10, soonest/10
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.of(id)
	if h.at.IsZero() || h.err != nil || h.doubt {
		wait = 0
	}
	now := time.Now()
	if now.Sub(h.at) < wait || now.Sub(h.asked) < soonest {
		return false
	}
	h.asked, h.doubt = now, false
	return true
}

// Tally is how many trackers there are, about how many of them something is
// known, and how many answer.
type Tally struct{ All, Asked, Answer int }

// count tallies ids, the zero id for a tracker whose list of relays nobody has.
func (t *trackers) count(ids []onion.ID) (n Tally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.All = len(ids)
	for _, id := range ids {
		h := t.of(id)
		if !h.at.IsZero() || id == (onion.ID{}) {
			n.Asked++
		}
		if !h.at.IsZero() && h.err == nil {
			n.Answer++
		}
	}
	return n
}

// fault returns a fault when no tracker answers, so that nothing can be announced.
func (n Tally) fault() *fault.Fault {
	if n.Answer > 0 || n.Asked < n.All {
		return nil
	}
	text := fmt.Sprintf("none of the %d trackers answers", n.All)
	if n.All == 1 {
		text = "the tracker does not answer"
	}
	return fault.New(fault.NoTracker, text, "Transfers go on, but nothing can be announced. Trackers are down or can't be reached: tell whoever runs the network. Shoal keeps asking.", nil)
}

// Tally tallies the network's trackers. Before there are lists of relays nothing
// is known of them.
func (u *Uplink) Tally() Tally {
	all := u.cfg.Network.Trackers
	if u.Keeper.Ready() != nil {
		return Tally{All: len(all)}
	}
	var ids []onion.ID
	for _, t := range all {
		info, _ := u.Keeper.Tracker(t.Key)
		ids = append(ids, info.ID)
	}
	return u.trackers.count(ids)
}

// Heard takes how a request to the tracker id ended.
func (u *Uplink) Heard(id onion.ID, err error) { u.trackers.note(id, err) }

// Trackers returns the trackers as last hops.
func (u *Uplink) Trackers() (out []path.Relay) {
	for _, t := range u.Keeper.Trackers() {
		out = append(out, t.Hop())
	}
	return out
}

// circuitLost is called for each circuit that another hop has ended.
func (u *Uplink) circuitLost(w circuit.Want) {
	if w.Use == circuit.ForTracker {
		u.trackers.lost(w.Last.ID)
	}
}

// askTrackers finds out whether trackers answer that nothing has been heard of.
func (u *Uplink) askTrackers(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	tick := time.NewTicker(askLook)
	defer tick.Stop()
	for {
		if why := u.Why(); why == nil || why.Cause == fault.NoTracker {
			for _, t := range u.Keeper.Trackers() {
				if u.trackers.due(t.ID, u.cfg.Network.Test) {
					asking.Go(func() { u.trackers.note(t.ID, u.ask(ctx, t)) })
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ask asks a tracker for lists of relays newer than any, which it does not have.
func (u *Uplink) ask(ctx context.Context, t directory.TrackerInfo) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	body := directory.AppendHave(nil, []directory.Have{{Tracker: t.Key, Number: math.MaxUint64}})
	c, _, err := u.Circuits.Request(ctx, circuit.Want{Use: circuit.ForTracker, Last: t.Hop()}, cell.RequestViews, body, 0)
	if c != nil {
		c.Close()
	}
	u.cfg.Log.Debug("asked a tracker whether it is there", "err", err)
	return err
}
