package onion

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// testStep is a time in every CREATE of these tests.
const testStep = 2_900_000

// testRelay is a relay: who it is, what it opens, and what it has made of one
// CREATE.
type testRelay struct {
	id    ID
	key   *PrivateKey
	suite Suite

	peeled *Peeled
	layer  *Layer
}

// newRelays makes n relays of both suites in turn.
func newRelays(tb testing.TB, n int) []*testRelay {
	tb.Helper()
	relays := make([]*testRelay, n)
	for i := range relays {
		key, err := GenerateKey(byte(10 + i))
		if err != nil {
			tb.Fatal(err)
		}
		r := &testRelay{key: key, suite: Suite(i % 2)}
		for j := range r.id {
			r.id[j] = byte(i + 1)
		}
		relays[i] = r
	}
	return relays
}

func hopsOf(relays []*testRelay) []Hop {
	hops := make([]Hop, len(relays))
	for i, r := range relays {
		hops[i] = Hop{r.id, r.key.Public(), r.suite}
	}
	return hops
}

// carry takes create through all relays, and CREATED back to the client.
func carry(tb testing.TB, relays []*testRelay, create []byte) (created []byte) {
	tb.Helper()
	for i, r := range relays {
		var err error
		if r.peeled, err = Peel(create, r.id, r.key); err != nil {
			tb.Fatalf("hop %d: %v", i, err)
		}
		if r.layer, err = r.peeled.Accept(r.suite); err != nil {
			tb.Fatalf("hop %d: %v", i, err)
		}
		create = r.peeled.Create
	}
	for i := len(relays) - 1; i >= 0; i-- {
		created = relays[i].peeled.Created(created)
	}
	return created
}

// build opens a circuit over relays.
func build(tb testing.TB, relays []*testRelay, slack int) *Circuit {
	tb.Helper()
	create, p, err := wrap(hopsOf(relays), testStep, nil, slack)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := p.Finish(carry(tb, relays, create))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// forEachCircuit runs f for every length and slack that a circuit can have.
func forEachCircuit(t *testing.T, f func(t *testing.T, relays []*testRelay, slack int)) {
	for n := 1; n <= cell.MaxHops; n++ {
		for slack := range cell.MaxHops - n + 1 {
			t.Run(fmt.Sprintf("%d hops, slack %d", n, slack), func(t *testing.T) {
				f(t, newRelays(t, n), slack)
			})
		}
	}
}

func TestCreateOpensCircuitsOfEveryLengthAndSlack(t *testing.T) {
	forEachCircuit(t, func(t *testing.T, relays []*testRelay, slack int) {
		early := []byte("an early message")
		create, p, err := wrap(hopsOf(relays), testStep, early, slack)
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.Finish(carry(t, relays, create))
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range relays {
			last := i == len(relays)-1
			if r.peeled.Step != testStep || r.peeled.Last != last || (r.peeled.Create == nil) != last || (r.peeled.Early != nil) != last {
				t.Errorf("hop %d: step %d, last %v, %d bytes for the next, %d early", i, r.peeled.Step, r.peeled.Last, len(r.peeled.Create), len(r.peeled.Early))
			}
			if last {
				continue
			}
			if r.peeled.Next != relays[i+1].id || len(r.peeled.Create) != cell.CreateSize || KeyNumber(r.peeled.Create) != relays[i+1].key.Public().Number() {
				t.Errorf("hop %d: %d bytes for key %d of %v", i, len(r.peeled.Create), KeyNumber(r.peeled.Create), r.peeled.Next)
			}
		}
		end := relays[len(relays)-1]
		if got, want := end.peeled.Early, append(early, make([]byte, cell.EarlySize-len(early))...); !bytes.Equal(got, want) {
			t.Errorf("early message %x, want %x", got, want)
		}
		if c.Confirm() != end.layer.Confirm() || c.Confirm() == ([32]byte{}) {
			t.Errorf("confirm %x, at the last hop %x", c.Confirm(), end.layer.Confirm())
		}
		for i, r := range relays[:len(relays)-1] {
			if r.layer.Confirm() == c.Confirm() {
				t.Errorf("hop %d knows the confirm of the last", i)
			}
		}
	})
}

func TestWrapDrawsEverySlackAndNoOther(t *testing.T) {
	relays := newRelays(t, 3)
	seen := map[int]bool{}
	for range 60 {
		_, p, err := Wrap(hopsOf(relays), testStep, nil)
		if err != nil {
			t.Fatal(err)
		}
		seen[(cell.Size-p.hops[0].length)/cell.TagSize] = true
	}
	if len(seen) != 3 || !seen[0] || !seen[1] || !seen[2] {
		t.Errorf("slacks %v, want 0 to 2", seen)
	}
}

func TestCreateWithoutEarlyMessageBringsNone(t *testing.T) {
	relays := newRelays(t, 2)
	build(t, relays, 0)
	if e := relays[1].peeled.Early; e != nil {
		t.Errorf("early message of %d bytes", len(e))
	}
}

func TestEarlyMessageMayFillItsBox(t *testing.T) {
	relays := newRelays(t, cell.MaxHops)
	early := bytes.Repeat([]byte{0xee}, cell.EarlySize)
	create, _, err := Wrap(hopsOf(relays), testStep, early)
	if err != nil {
		t.Fatal(err)
	}
	carry(t, relays, create)
	if got := relays[len(relays)-1].peeled.Early; !bytes.Equal(got, early) {
		t.Errorf("early message %x", got)
	}
}

func TestWrapRefusesWhatNoRelayWouldTake(t *testing.T) {
	relays := newRelays(t, cell.MaxHops+1)
	good := hopsOf(relays)
	noKey, noID, suite := good[0], good[0], good[0]
	noKey.Key, noID.ID, suite.Suite = PublicKey{}, ID{}, 2
	for name, v := range map[string]struct {
		hops  []Hop
		early int
	}{
		"no hops":        {nil, 0},
		"six hops":       {good, 0},
		"twice the same": {[]Hop{good[0], good[0]}, 0},
		"no key":         {[]Hop{noKey}, 0},
		"no identity":    {[]Hop{noID}, 0},
		"unknown suite":  {[]Hop{suite}, 0},
		"long early":     {good[:1], cell.EarlySize + 1},
	} {
		if _, _, err := Wrap(v.hops, testStep, make([]byte, v.early)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPeelRefusesEveryFlippedBit(t *testing.T) {
	relays := newRelays(t, 2)
	create, _, err := wrap(hopsOf(relays), testStep, []byte("early"), 1)
	if err != nil {
		t.Fatal(err)
	}
	carry(t, relays, create)
	creates := [][]byte{create, relays[0].peeled.Create}
	for hop, create := range creates {
		flip := func(bit int) {
			bad := bytes.Clone(create)
			bad[bit/8] ^= 1 << (bit % 8)
			if _, err := Peel(bad, relays[hop].id, relays[hop].key); err == nil {
				t.Errorf("hop %d: accepted with bit %d of byte %d flipped", hop, bit%8, bit/8)
			}
		}
		// Every bit of the first byte and of both ends of each part, and
		// samples of all else.
		for _, at := range []int{0, 1, 1 + 1088, 1 + encSize - 1, 1 + encSize, cell.LayerSize, 1 + cell.LayerSize, 1 + cell.LayerSize + cell.EarlySize, cell.CreateSize - 1} {
			for bit := range 8 {
				flip(at*8 + bit)
			}
		}
		for range 300 {
			flip(rand.IntN(cell.CreateSize * 8))
		}
	}
}

func TestPeelRefusesEveryTruncatedPrefix(t *testing.T) {
	r := newRelays(t, 1)
	create, _, err := Wrap(hopsOf(r), testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(create) {
		if _, err := Peel(create[:i], r[0].id, r[0].key); err == nil {
			t.Errorf("accepted %d of %d bytes", i, len(create))
		}
	}
	if _, err := Peel(append(create, 0), r[0].id, r[0].key); err == nil {
		t.Error("accepted a byte too many")
	}
	if KeyNumber(nil) != 0 {
		t.Error("an empty CREATE has a key number")
	}
}

func TestPeelRefusesACreateForAnotherRelayOrKey(t *testing.T) {
	r := newRelays(t, 1)[0]
	create, _, err := Wrap([]Hop{{r.id, r.key.Public(), r.suite}}, testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Peel(create, ID{9}, r.key); err == nil {
		t.Error("another relay with the same key opened it")
	}
	other, err := GenerateKey(r.key.Public().Number())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Peel(create, r.id, other); err == nil {
		t.Error("another key of the same number opened it")
	}
	renamed, err := ParsePrivateKey(r.key.Bytes(), 99)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Peel(create, r.id, renamed); err == nil {
		t.Error("the same key under another number opened it")
	}
	create[0] = 99
	if _, err := Peel(create, r.id, renamed); err == nil {
		t.Error("it opened with the number changed on both sides")
	}
}

func TestHeaderRefusesWhatNoClientWrites(t *testing.T) {
	header := func(change func(h []byte)) []byte {
		h := make([]byte, headerSize)
		h[0] = cell.Version
		h[headerNext] = 7
		h[headerLength], h[headerLength+1] = byte(cell.Size>>8), byte(cell.Size&0xff)
		change(h)
		return h
	}
	length := func(n int) func(h []byte) {
		return func(h []byte) { h[headerLength], h[headerLength+1] = byte(n>>8), byte(n) }
	}
	for name, v := range map[string]struct {
		header []byte
		ok     bool
	}{
		"good":                            {header(func([]byte) {}), true},
		"shortest layer with a next":      {header(length(cell.Payload + 2*cell.TagSize)), true},
		"a next hop beyond the most":      {header(length(cell.Payload + cell.TagSize)), false},
		"another version":                 {header(func(h []byte) { h[0]++ }), false},
		"last with a key number":          {header(func(h []byte) { h[headerNext] = 0; h[headerNumber] = 1 }), false},
		"last":                            {header(func(h []byte) { h[headerNext] = 0 }), true},
		"last with the shortest layer":    {header(func(h []byte) { h[headerNext] = 0; length(cell.Payload + cell.TagSize)(h) }), true},
		"last with a layer below payload": {header(func(h []byte) { h[headerNext] = 0; length(cell.Payload)(h) }), false},
		"layer of zero":                   {header(length(0)), false},
		"layer beyond the cell":           {header(length(cell.Size + cell.TagSize)), false},
		"layer of 65535":                  {header(length(65535)), false},
		"layer that is no multiple":       {header(length(cell.Size - 1)), false},
		"too short":                       {header(func([]byte) {})[1:], false},
	} {
		if _, _, err := parseHeader(v.header); (err == nil) != v.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReplayedCreateIsRefused(t *testing.T) {
	relays := newRelays(t, 2)
	create, _, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	cache := NewReplayCache(10)
	for i, want := range []cell.Reason{cell.OK, cell.Replayed, cell.Replayed} {
		p, err := Peel(create, relays[0].id, relays[0].key)
		if err != nil {
			t.Fatal(err)
		}
		if got := cache.Add(testStep, p.Step, p.Replay); got != want {
			t.Errorf("time %d: %v, want %v", i, got, want)
		}
	}
}

func TestFailureNamesTheHopAndTheReason(t *testing.T) {
	for n := 1; n <= cell.MaxHops; n++ {
		relays := newRelays(t, n)
		for hop := range n {
			create, p, err := Wrap(hopsOf(relays), testStep, nil)
			if err != nil {
				t.Fatal(err)
			}
			var peeled []*Peeled
			for i := range hop + 1 {
				x, err := Peel(create, relays[i].id, relays[i].key)
				if err != nil {
					t.Fatal(err)
				}
				peeled = append(peeled, x)
				create = x.Create
			}
			created := peeled[hop].Fail(cell.Unreachable)
			for i := hop - 1; i >= 0; i-- {
				if _, err := peeled[i].Accept(relays[i].suite); err != nil {
					t.Fatal(err)
				}
				created = peeled[i].Created(created)
			}
			_, err = p.Finish(created)
			var failed *HopError
			if !errors.As(err, &failed) || *failed != (HopError{hop, cell.Unreachable}) {
				t.Errorf("%d hops: hop %d unreachable: %v", n, hop, err)
			}
		}
	}
}

func TestFailNeverSaysThatAllIsWell(t *testing.T) {
	relays := newRelays(t, 1)
	create, p, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	peeled, err := Peel(create, relays[0].id, relays[0].key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Finish(peeled.Fail(cell.OK))
	var failed *HopError
	if !errors.As(err, &failed) || failed.Reason != cell.Gone {
		t.Errorf("%v, want %v", err, cell.Gone)
	}
}

func TestAnswerIsSealedOnce(t *testing.T) {
	relays := newRelays(t, 1)
	create, _, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := carry(t, relays, create)
	p := relays[0].peeled
	if !bytes.Equal(p.Fail(cell.Busy), first) || !bytes.Equal(p.Created(nil), first) {
		t.Error("a second answer differs from the first")
	}
	first[0] ^= 1
	if bytes.Equal(p.Created(nil), first) {
		t.Error("the answer is shared with its receiver")
	}
}

func TestFinishRefusesEveryFlippedBitOfAnAnswer(t *testing.T) {
	relays := newRelays(t, 3)
	create, p, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	created := carry(t, relays, create)
	for bit := range 8 * len(created) {
		bad := bytes.Clone(created)
		bad[bit/8] ^= 1 << (bit % 8)
		_, err := copyPending(p).Finish(bad)
		if used := bit/8 < len(relays)*cell.AnswerSize; (err == nil) == used {
			t.Errorf("bit %d of byte %d flipped: %v", bit%8, bit/8, err)
		}
	}
}

func TestFinishRefusesEveryTruncatedPrefix(t *testing.T) {
	relays := newRelays(t, 1)
	create, p, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	created := carry(t, relays, create)
	for i := range len(created) {
		if _, err := copyPending(p).Finish(created[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes", i, len(created))
		}
	}
	if _, err := copyPending(p).Finish(append(created, 0)); err == nil {
		t.Error("accepted a byte too many")
	}
}

// copyPending returns a Pending that Finish may use up while p stays.
func copyPending(p *Pending) *Pending {
	return &Pending{append([]pendingHop(nil), p.hops...)}
}

func TestFinishCanBeCalledOnce(t *testing.T) {
	relays := newRelays(t, 1)
	create, p, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	created := carry(t, relays, create)
	if _, err := p.Finish(created); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Finish(created); err == nil {
		t.Error("the same CREATED made a second circuit with the same keys")
	}
}

// lowOrder are X25519 keys with which every exchange comes out as zero.
func lowOrder() [][]byte {
	zero, one, nonCanonical := make([]byte, 32), make([]byte, 32), bytes.Repeat([]byte{0xff}, 32)
	one[0] = 1
	nonCanonical[0], nonCanonical[31] = 0xed, 0x7f // p, which is 0
	return [][]byte{zero, one, nonCanonical}
}

func TestAllZeroExchangeIsRefusedOnBothSides(t *testing.T) {
	relays := newRelays(t, 1)
	for _, low := range lowOrder() {
		create, p, err := Wrap(hopsOf(relays), testStep, nil)
		if err != nil {
			t.Fatal(err)
		}
		peeled, err := Peel(create, relays[0].id, relays[0].key)
		if err != nil {
			t.Fatal(err)
		}
		client := peeled.client
		peeled.client = [32]byte(low)
		if _, err := peeled.Accept(AES256GCM); err == nil {
			t.Errorf("the relay took the client's key %x", low)
		}
		peeled.client = client
		if _, err := peeled.Accept(AES256GCM); err != nil {
			t.Fatal(err)
		}
		peeled.relay = low
		if _, err := p.Finish(peeled.Created(nil)); err == nil {
			t.Errorf("the client took the relay's key %x", low)
		}

		bad := append(relays[0].key.Public().Bytes()[:PublicKeySize-32:PublicKeySize-32], low...)
		key, err := ParsePublicKey(bad, 1)
		if err == nil {
			_, _, err = Wrap([]Hop{{relays[0].id, key, AES256GCM}}, testStep, nil)
		}
		if err == nil {
			t.Errorf("the client sealed to an onion key with %x", low)
		}
	}
}

func TestAcceptMakesOneLayerOnly(t *testing.T) {
	relays := newRelays(t, 1)
	build(t, relays, 0)
	if _, err := relays[0].peeled.Accept(AES256GCM); err == nil {
		t.Error("a second Accept made a layer from erased secrets")
	}
}

func TestCreatedAndFailMayRace(t *testing.T) {
	relays := newRelays(t, 1)
	create, p, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	peeled, err := Peel(create, relays[0].id, relays[0].key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peeled.Accept(relays[0].suite); err != nil {
		t.Fatal(err)
	}
	answers := make([][]byte, 8)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			if i%2 == 0 {
				answers[i] = peeled.Created(nil)
			} else {
				answers[i] = peeled.Fail(cell.Busy)
			}
		})
	}
	wg.Wait()
	for _, a := range answers[1:] {
		if !bytes.Equal(a, answers[0]) {
			t.Error("two answers under one key")
		}
	}
	var failed *HopError
	if _, err := p.Finish(answers[0]); err != nil && !errors.As(err, &failed) {
		t.Error(err)
	}
}

func TestAcceptRefusesAnUnknownSuite(t *testing.T) {
	relays := newRelays(t, 1)
	create, _, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Peel(create, relays[0].id, relays[0].key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Accept(2); err == nil {
		t.Error("accepted")
	}
}

func TestTwoCircuitsOverTheSameHopsShareNoKey(t *testing.T) {
	relays := newRelays(t, 2)
	a := build(t, relays, 0)
	b := build(t, relays, 0)
	seen := map[[keySize]byte]bool{}
	for _, c := range []*Circuit{a, b} {
		for i := range c.forward {
			seen[c.forward[i].key] = true
		}
		seen[c.masks[0].key], seen[c.backward.key] = true, true
		seen[c.confirm] = true
	}
	if len(seen) != 10 {
		t.Errorf("%d different keys, want 10", len(seen))
	}
}
