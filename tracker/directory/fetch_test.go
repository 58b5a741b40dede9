package directory

import (
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/path"
)

// list is what the trackers say together when they know these relays.
func list(ids ...int) *Merged {
	m := &Merged{Views: 3, Trackers: 3}
	for _, id := range ids {
		m.Relays = append(m.Relays, path.Relay{ID: idOfKey(id)})
	}
	return m
}

func TestAYoungNetworkIsLookedAtOftenAndAnOldOneOnceBetweenViews(t *testing.T) {
	p := pace{every: ViewEvery, wait: firstWait}
	expect := func(what string, m *Merged, want time.Duration) {
		t.Helper()
		if got := p.next(m, 0.5); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	none := &Merged{Trackers: 3}
	for range 30 {
		p.next(none, 0.5)
	}
	expect("no views yet", none, maxFirstWait)
	expect("the first relay", list(1), changedWait)
	expect("nothing new", list(1), 2*changedWait)
	expect("a second", list(1, 2), changedWait)
	expect("one for another", list(1, 3), changedWait)
	last := time.Duration(0)
	for range 12 {
		last = p.next(list(1, 3), 0.5)
	}
	if last != ViewEvery/2 {
		t.Errorf("in a network that stays as it is: %v, want %v", last, ViewEvery/2)
	}

	var hundred []int
	for i := range 100 {
		hundred = append(hundred, i)
	}
	p.next(list(hundred...), 0.5)
	for range 12 {
		p.next(list(hundred...), 0.5)
	}
	expect("two of a hundred go", list(hundred[2:]...), ViewEvery/2)
	expect("ten of a hundred go", list(hundred[12:]...), changedWait)

	quick := pace{every: time.Second, wait: firstWait}
	if got := quick.next(list(1), 0); got != 300*time.Millisecond {
		t.Errorf("with a view each second: %v", got)
	}
}
