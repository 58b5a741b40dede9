package uplink

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
)

var three = []onion.ID{{1}, {2}, {3}}

func TestTrackersAreCountedByWhatCircuitsToThemShow(t *testing.T) {
	var tr trackers
	if n := tr.count(three); n != (Tally{3, 0, 0}) || n.fault() != nil {
		t.Errorf("before anything is known: %+v, %v", n, n.fault())
	}
	dead := fault.New(fault.LastHop, "dead", "", nil)
	tr.note(three[0], nil)
	tr.note(three[1], fmt.Errorf("circuit: %w", dead))
	for _, here := range []error{ // which say nothing of a tracker
		context.Canceled, fmt.Errorf("%w: refused", circuit.ErrFirstHop), circuit.ErrGone, &path.NoRelaysError{For: "guard"},
	} {
		tr.note(three[2], here)
		tr.note(three[0], here)
	}
	if n := tr.count(three); n != (Tally{3, 2, 1}) || n.fault() != nil {
		t.Errorf("one of two: %+v, %v", n, n.fault())
	}
	tr.note(three[2], &circuit.RefusedError{Reason: cell.BadRequest}) // so it is there
	if n := tr.count(three); n != (Tally{3, 3, 2}) {
		t.Errorf("one that refuses a request answers: %+v", n)
	}
	tr.note(three[0], dead)
	tr.note(three[2], fault.New(fault.Hop, "refused", "", &circuit.RefusedError{Reason: cell.Busy}))
	if n := tr.count(three); n != (Tally{3, 3, 0}) || n.fault().Text() != "None of the 3 trackers answers." {
		t.Errorf("none: %+v, %v", n, n.fault())
	}
	if n := tr.count([]onion.ID{three[1]}); n.fault().Text() != "The tracker does not answer." {
		t.Errorf("one: %v", n.fault())
	}
	if n := tr.count([]onion.ID{{9}, {}}); n != (Tally{2, 1, 0}) || n.fault() != nil {
		t.Errorf("one is not asked, of one nobody has a list: %+v", n)
	}
}

func TestATrackerIsAskedWhenNothingIsHeardOfIt(t *testing.T) {
	for _, test := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var tr trackers
			id := onion.ID{1}
			fast := time.Duration(1)
			if test {
				fast = 10
			}
			// next returns how long it takes until id is asked.
			next := func() time.Duration {
				began := time.Now()
				for !tr.due(id, test) {
					time.Sleep(100 * time.Millisecond)
				}
				return time.Since(began)
			}
			if d := next(); d != 0 {
				t.Errorf("asked for the first time after %v", d)
			}
			if d := next(); d != askSoonest/fast {
				t.Errorf("again, without an answer, after %v", d)
			}
			tr.note(id, nil)
			if d := next(); d < askEvery*9/10/fast || d > askEvery*11/10/fast+time.Second {
				t.Errorf("after an answer: %v", d)
			}
			tr.note(id, nil) // announces are answers, too
			time.Sleep(askEvery / 2 / fast)
			tr.note(id, nil)
			if d := next(); d < askEvery*9/10/fast {
				t.Errorf("after another answer: %v", d)
			}
			tr.note(id, nil)
			time.Sleep(askSoonest / fast)
			tr.lost(id)
			if d := next(); d != 0 {
				t.Errorf("a circuit that ended makes it be asked after %v", d)
			}
			tr.note(id, errors.New("no answer"))
			if d := next(); d != askSoonest/fast {
				t.Errorf("one that did not answer is asked after %v", d)
			}
		})
	}
}
