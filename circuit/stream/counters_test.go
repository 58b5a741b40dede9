package stream

import (
	"encoding/binary"
	"testing"
)

func TestCountersRefuseWhatWasSeen(t *testing.T) {
	var c Counters
	a, b := [32]byte{1}, [32]byte{2}
	for _, step := range []struct {
		e       [32]byte
		counter uint64
		want    bool
	}{
		{a, 10, true},
		{a, 10, false},
		{b, 10, true}, // another opener
		{a, 5, true},  // overtaken on the way
		{a, 5, false},
		{a, 7, true},
		{a, 10, false},
		{a, 0, true},
		{a, 1<<64 - 1, true},
		{a, 1<<64 - 1, false},
	} {
		if got := c.Accept(step.e, step.counter); got != step.want {
			t.Errorf("Accept(%d, %d) = %v, want %v", step.e[0], step.counter, got, step.want)
		}
	}
}

func TestCountersRefuseWhatIsBelowTheLeastOf64(t *testing.T) {
	var c Counters
	e := [32]byte{1}
	for i := range uint64(64) {
		if !c.Accept(e, 100+2*i) {
			t.Fatalf("refused %d", 100+2*i)
		}
	}
	if c.Accept(e, 99) {
		t.Error("accepted one below the least of 64")
	}
	if !c.Accept(e, 101) { // between: 100 is forgotten for it
		t.Error("refused one that is new")
	}
	for _, old := range []uint64{99, 100, 101, 102, 226} {
		if c.Accept(e, old) {
			t.Errorf("accepted %d again", old)
		}
	}
	for i := range uint64(1000) {
		if !c.Accept(e, 1000+i) || c.Accept(e, 1000+i) || c.Accept(e, 226) {
			t.Fatalf("wrong about %d", 1000+i)
		}
	}
	if got := len(c.young[e]); got != countersKept {
		t.Errorf("%d counters kept, want %d", got, countersKept)
	}
}

func TestCountersForgetTheOpenersHeardOfLeast(t *testing.T) {
	var c Counters
	key := func(i int) (e [32]byte) {
		binary.BigEndian.PutUint32(e[:], uint32(i))
		return e
	}
	for i := range 20 * countersPeers {
		if !c.Accept(key(i), 1) {
			t.Fatalf("refused a new opener, number %d", i)
		}
		if i%1000 == 0 {
			c.Accept(key(0), uint64(i)) // one that is heard of again and again
		}
		if n := len(c.young) + len(c.old); n > 2*countersPeers {
			t.Fatalf("%d openers kept", n)
		}
	}
	if c.Accept(key(0), 1) {
		t.Error("forgot an opener that it heard of often")
	}
	for i := 19 * countersPeers; i < 20*countersPeers; i++ {
		if c.Accept(key(i), 1) {
			t.Fatalf("forgot opener %d of the last %d", i, countersPeers)
		}
	}
}
