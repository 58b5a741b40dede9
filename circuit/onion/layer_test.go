package onion

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// payload returns a cell with n in its payload and stale bytes behind it.
func payload(n int) *[cell.Size]byte {
	b := new([cell.Size]byte)
	for i := range b {
		b[i] = byte(i ^ n)
	}
	return b
}

func checkPayload(tb testing.TB, b *[cell.Size]byte, n int) {
	tb.Helper()
	if want := payload(n); !bytes.Equal(b[:cell.Payload], want[:cell.Payload]) {
		tb.Fatalf("payload %d: %x…, want %x…", n, b[:16], want[:16])
	}
}

// forward takes b from the client through relays[from:to] and returns which of
// them refused it, or -1.
func forward(relays []*testRelay, b *[cell.Size]byte, from, to int) int {
	for i := from; i < to; i++ {
		if relays[i].layer.Forward(b, b) != nil {
			return i
		}
	}
	return -1
}

// around has l put its layer around b.
func around(l *Layer, b *[cell.Size]byte) {
	if l.last {
		l.Seal(b)
	} else {
		l.Backward(b, b)
	}
}

// backward takes b from relays[from] down to relays[to], which seal it.
func backward(relays []*testRelay, b *[cell.Size]byte, from, to int) {
	for i := from; i >= to; i-- {
		around(relays[i].layer, b)
	}
}

func TestCellsTravelBothWaysOnEveryCircuit(t *testing.T) {
	forEachCircuit(t, func(t *testing.T, relays []*testRelay, slack int) {
		c := build(t, relays, slack)
		for n := range 5 {
			b := payload(n)
			c.Seal(b)
			if i := forward(relays, b, 0, len(relays)); i >= 0 {
				t.Fatalf("cell %d: hop %d can't open it", n, i)
			}
			checkPayload(t, b, n)
		}
		for n := range 7 {
			b := payload(n)
			backward(relays, b, len(relays)-1, 0)
			if err := c.Open(b, b); err != nil {
				t.Fatalf("cell %d: %v", n, err)
			}
			checkPayload(t, b, n)
		}
	})
}

func TestMeetingRelayMovesPayloadsBetweenCircuitsOfAllLengths(t *testing.T) {
	for n := 1; n <= cell.MaxHops; n++ {
		a, b := newRelays(t, n), newRelays(t, cell.MaxHops+1-n)
		ca, cb := build(t, a, 0), build(t, b, 0)
		x := payload(n)
		ca.Seal(x)
		if i := forward(a, x, 0, len(a)); i >= 0 {
			t.Fatalf("hop %d can't open it", i)
		}
		backward(b, x, len(b)-1, 0)
		if err := cb.Open(x, x); err != nil {
			t.Fatal(err)
		}
		checkPayload(t, x, n)
	}
}

func TestKeysChangeAfterTheirLastCell(t *testing.T) {
	relays := newRelays(t, 2)
	c := build(t, relays, 1)
	var keys []*[keySize]byte
	var counts []*uint64
	for i := range relays {
		l := relays[i].layer
		keys = append(keys, &c.forward[i].key, &l.forward.key)
		counts = append(counts, &c.forward[i].count, &l.forward.count)
	}
	keys = append(keys, &c.masks[0].key, &relays[0].layer.mask.key, &c.backward.key, &relays[1].layer.backward.key)
	counts = append(counts, &c.masks[0].count, &relays[0].layer.mask.count, &c.backward.count, &relays[1].layer.backward.count)
	old := map[[keySize]byte]bool{}
	for i := range keys {
		*counts[i] = rekeyAfter - 2
		old[*keys[i]] = true
	}
	for n := range 5 {
		b := payload(n)
		c.Seal(b)
		if i := forward(relays, b, 0, len(relays)); i >= 0 {
			t.Fatalf("cell %d: hop %d can't open it", n, i)
		}
		checkPayload(t, b, n)
		backward(relays, b, len(relays)-1, 0)
		if err := c.Open(b, b); err != nil {
			t.Fatalf("cell %d: %v", n, err)
		}
		checkPayload(t, b, n)
	}
	for i := range keys {
		if *counts[i] != 3 || old[*keys[i]] {
			t.Errorf("after five cells around the change: count %d, old key kept: %v", *counts[i], old[*keys[i]])
		}
	}
}

// The four things that a neighbour can do to cells: each gets the cells in the
// order they were made, and returns what it passes on. The last is an honest
// one.
var meddling = map[string]func(cells []*[cell.Size]byte) (passed []*[cell.Size]byte, good int){
	"tampered": func(c []*[cell.Size]byte) ([]*[cell.Size]byte, int) {
		c[1][rand.IntN(cell.Payload)] ^= 1 << rand.IntN(8)
		return c, 1
	},
	"dropped": func(c []*[cell.Size]byte) ([]*[cell.Size]byte, int) {
		return append(c[:1], c[2:]...), 1
	},
	"replayed": func(c []*[cell.Size]byte) ([]*[cell.Size]byte, int) {
		again := *c[0]
		return []*[cell.Size]byte{c[0], &again, c[1]}, 1
	},
	"reordered": func(c []*[cell.Size]byte) ([]*[cell.Size]byte, int) {
		return []*[cell.Size]byte{c[0], c[2], c[1]}, 1
	},
}

// testForward has hop bad meddle with cells towards the last hop: they must die
// at the next hop.
func testForward(t *testing.T, what string) {
	forEachCircuit(t, func(t *testing.T, relays []*testRelay, slack int) {
		bad := rand.IntN(len(relays)) - 1 // -1: before the first hop, on the link
		c := build(t, relays, slack)
		var cells []*[cell.Size]byte
		for n := range 3 {
			b := payload(n)
			c.Seal(b)
			if i := forward(relays, b, 0, bad+1); i >= 0 {
				t.Fatalf("hop %d can't open it", i)
			}
			cells = append(cells, b)
		}
		cells, good := meddling[what](cells)
		for i, b := range cells {
			want := -1
			if i >= good {
				want = bad + 1
			}
			if got := forward(relays, b, bad+1, len(relays)); got != want {
				t.Errorf("cell %d of hop %d died at %d, want %d", i, bad, got, want)
			}
		}
	})
}

func TestTamperedCellDiesAtTheNextHonestRelay(t *testing.T)  { testForward(t, "tampered") }
func TestDroppedCellDiesAtTheNextHonestRelay(t *testing.T)   { testForward(t, "dropped") }
func TestReplayedCellDiesAtTheNextHonestRelay(t *testing.T)  { testForward(t, "replayed") }
func TestReorderedCellDiesAtTheNextHonestRelay(t *testing.T) { testForward(t, "reordered") }

// testBackward has hop bad meddle with cells towards the client, after it has
// sealed them or (inner) before: honest relays carry them on, the client ends
// it.
func testBackward(t *testing.T, what string) {
	forEachCircuit(t, func(t *testing.T, relays []*testRelay, slack int) {
		bad := rand.IntN(len(relays))
		c := build(t, relays, slack)
		var cells []*[cell.Size]byte
		for n := range 3 {
			b := payload(n)
			backward(relays, b, len(relays)-1, bad)
			cells = append(cells, b)
		}
		cells, good := meddling[what](cells)
		for i, b := range cells {
			backward(relays, b, bad-1, 0)
			if err := c.Open(b, b); (err == nil) != (i < good) {
				t.Errorf("cell %d of hop %d at the client: %v", i, bad, err)
			}
		}
	})
}

func TestTamperedCellDiesAtTheClient(t *testing.T)  { testBackward(t, "tampered") }
func TestDroppedCellDiesAtTheClient(t *testing.T)   { testBackward(t, "dropped") }
func TestReplayedCellDiesAtTheClient(t *testing.T)  { testBackward(t, "replayed") }
func TestReorderedCellDiesAtTheClient(t *testing.T) { testBackward(t, "reordered") }

func TestEveryByteOfALayerIsChecked(t *testing.T) {
	for i := range cell.Size {
		h := NewDirection(AES256GCM, make([]byte, keySize))
		o := NewDirection(AES256GCM, make([]byte, keySize))
		b := payload(0)
		h.Seal(b[:])
		b[i] ^= 0x10
		if o.Open(b[:], b[:]) == nil {
			t.Errorf("byte %d is not", i)
		}
		if i == 64 && testing.Short() {
			break
		}
	}
}

func TestCellDyingAtAnInnerLayerStopsAllLaterOnes(t *testing.T) {
	relays := newRelays(t, 3)
	c := build(t, relays, 0)
	bad, good := payload(0), payload(1)
	backward(relays, bad, 2, 2)
	bad[5] ^= 1
	backward(relays, bad, 1, 0)
	backward(relays, good, 2, 0)
	if c.Open(bad, bad) == nil {
		t.Error("the changed cell was opened")
	}
	if c.Open(good, good) == nil {
		t.Error("a cell behind it was opened")
	}
}

func TestClearedEndsCarryNothing(t *testing.T) {
	relays := newRelays(t, 1)
	c := build(t, relays, 0)
	b := payload(0)
	c.Clear()
	c.Seal(b)
	if !isZero(b[:cell.Payload]) {
		t.Error("a cleared circuit let a payload out")
	}
	if c.Open(b, b) == nil {
		t.Error("a cleared circuit opened a cell")
	}
	if c.Confirm() != ([32]byte{}) || !isZero(c.forward[0].key[:]) {
		t.Error("a cleared circuit kept its keys")
	}
	l := relays[0].layer
	l.Clear()
	b = payload(0)
	around(l, b)
	if !isZero(b[:cell.Payload]) {
		t.Error("a cleared layer let a payload out")
	}
	if l.Forward(b, b) == nil {
		t.Error("a cleared layer opened a cell")
	}
	if l.Confirm() != ([32]byte{}) {
		t.Error("a cleared layer kept its confirm")
	}
}

func TestCellPathDoesNotAllocate(t *testing.T) {
	for suite := AES256GCM; suite <= ChaCha20; suite++ {
		relays := newRelays(t, 3)
		for _, r := range relays {
			r.suite = suite
		}
		c := build(t, relays, 1)
		b := payload(0)
		if n := testing.AllocsPerRun(100, func() {
			c.Seal(b)
			if forward(relays, b, 0, len(relays)) >= 0 {
				t.Fatal("a cell died")
			}
			backward(relays, b, len(relays)-1, 0)
			if c.Open(b, b) != nil {
				t.Fatal("a cell died")
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations for a cell there and back", suite, n)
		}
	}
}

func TestDirectionsOfALayerMayRunConcurrently(t *testing.T) {
	relays := newRelays(t, 2)
	c := build(t, relays, 0)
	done := make(chan bool)
	go func() {
		defer close(done)
		for n := range 50 {
			b := payload(n)
			c.Seal(b)
			if forward(relays, b, 0, 2) >= 0 {
				t.Error("a cell died")
			}
		}
	}()
	for n := range 50 {
		b := payload(n)
		backward(relays, b, 1, 0)
		if err := c.Open(b, b); err != nil {
			t.Error(err)
		}
	}
	<-done
}
