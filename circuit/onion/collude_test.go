package onion

import (
	"bytes"
	"crypto/hpke"
	"crypto/rand"
	"fmt"
	"math"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// look is what two colluders do with what one sent into an honest relay and
// what the other got out: lay one over the other, shifted by every distance in
// shifts, and count equal bytes. Beyond chance is more than twelve standard
// deviations above one in 256, or a run of six.
func look(t *testing.T, what string, in, out []byte, shifts ...int) {
	t.Helper()
	for _, shift := range append(shifts, 0) {
		a, b := in, out
		if shift > 0 {
			b = b[shift:]
		} else {
			a = a[-shift:]
		}
		n := min(len(a), len(b))
		equal, run := 0, 0
		for i := range n {
			if a[i] != b[i] {
				run = 0
				continue
			}
			equal++
			if run++; run == 6 {
				t.Errorf("%s, shifted by %d: equal bytes %x at %d", what, shift, a[i-5:i+1], i-5)
			}
		}
		mean := float64(n) / 256
		if limit := mean + 12*math.Sqrt(mean); float64(equal) > limit {
			t.Errorf("%s, shifted by %d: %d of %d bytes are equal, chance gives %.0f", what, shift, equal, n, mean)
		}
	}
}

func TestColludersFindNoEqualBytesInCreate(t *testing.T) {
	relays := newRelays(t, cell.MaxHops)
	create, _, err := Wrap(hopsOf(relays), testStep, bytes.Repeat([]byte{0}, cell.EarlySize))
	if err != nil {
		t.Fatal(err)
	}
	carry(t, relays, create)
	for i, r := range relays[:len(relays)-1] {
		look(t, fmt.Sprintf("CREATE around hop %d", i), create[1:], r.peeled.Create[1:], cell.LayerSize, -cell.LayerSize)
		create = r.peeled.Create
	}
}

func TestColludersFindNoEqualBytesInCreated(t *testing.T) {
	relays := newRelays(t, cell.MaxHops)
	create, _, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	carry(t, relays, create)
	for i, r := range relays[:len(relays)-1] {
		in := relays[i+1].peeled.Created(nil)
		look(t, fmt.Sprintf("CREATED around hop %d", i), in, r.peeled.Created(nil), cell.AnswerSize, -cell.AnswerSize)
	}
}

// The colluders fill what they send with a pattern of their own wherever the
// honest relay can't tell: behind its layer, and backward anywhere.

func TestColludersFindNoEqualBytesInCellsTowardsTheLastHop(t *testing.T) {
	forEachCircuit(t, func(t *testing.T, relays []*testRelay, slack int) {
		c := build(t, relays, slack)
		for n := range 8 {
			b := new([cell.Size]byte)
			c.Seal(b)
			for i, r := range relays {
				clear(b[r.layer.size:])
				in := *b
				if err := r.layer.Forward(b, b); err != nil {
					t.Fatal(err)
				}
				out := b[:]
				if i == len(relays)-1 {
					out = bytes.Clone(out)
					rand.Read(out[:cell.Payload]) // what it may read
				}
				look(t, fmt.Sprintf("cell %d around hop %d", n, i), in[:], out, cell.TagSize, -cell.TagSize)
				if isZero(b[r.layer.size:]) && r.layer.size < cell.Size {
					t.Errorf("hop %d left the bytes behind its layer", i)
				}
			}
		}
	})
}

func TestColludersFindNoEqualBytesInCellsTowardsTheClient(t *testing.T) {
	forEachCircuit(t, func(t *testing.T, relays []*testRelay, slack int) {
		build(t, relays, slack)
		for n := range 8 {
			for i, r := range relays {
				in := [cell.Size]byte{}
				for j := range in {
					in[j] = byte(n) // the hop behind is a colluder and may send anything
				}
				b := in
				around(r.layer, &b)
				look(t, fmt.Sprintf("cell %d around hop %d", n, i), in[:], b[:], cell.TagSize, -cell.TagSize)
			}
		}
	})
}

// The last hop can decrypt all of the rest of its CREATE, not only the box. It
// must not see by it how much of that came from hops before.
func TestLastHopCannotCountTheHopsByCreate(t *testing.T) {
	for n := 1; n <= cell.MaxHops; n++ {
		relays := newRelays(t, n)
		create, _, err := Wrap(hopsOf(relays), testStep, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range relays[:n-1] {
			p, err := Peel(create, r.id, r.key)
			if err != nil {
				t.Fatal(err)
			}
			create = p.Create
		}
		r := relays[n-1]
		body := create[1:]
		x, err := hpke.NewRecipient(body[:encSize], r.key.key, kdf(), aead(), info(r.id, r.key.public.number))
		if err != nil {
			t.Fatal(err)
		}
		e, err := exportAll(x)
		if err != nil {
			t.Fatal(err)
		}
		rest := body[cell.LayerSize:]
		stream := keystream(&e.onion)
		stream.XORKeyStream(rest, rest)
		if !isZero(rest[:cell.EarlySize]) {
			t.Error("the box of no message is not zero")
		}
		behind := rest[cell.EarlySize:]
		look(t, fmt.Sprintf("behind the box of hop %d", n), behind, make([]byte, len(behind)))
	}
}

// Two circuits meet at a relay. What the visitor put behind its payload, or a
// pooled frame held there, must not reach the other circuit's owner.
func TestNothingButThePayloadCrossesAMeetingRelay(t *testing.T) {
	a, b := newRelays(t, 1), newRelays(t, 1)
	ca, cb := build(t, a, 0), build(t, b, 0)
	mark := bytes.Repeat([]byte{0x5a}, cell.Size-cell.Payload)

	x := payload(1)
	copy(x[cell.Payload:], mark)
	ca.forward[0].Seal(x[:ca.sizes[0]]) // what Seal does, but for the fresh bytes
	if err := a[0].layer.Forward(x, x); err != nil {
		t.Fatal(err)
	}
	checkNoMark := func(where string) {
		t.Helper()
		for at := cell.Payload; at+4 <= cell.Size; at++ {
			if bytes.Equal(x[at:at+4], mark[:4]) {
				t.Errorf("%s: the visitor's mark at %d", where, at)
			}
		}
	}
	checkNoMark("at the relay")
	copy(x[cell.Payload:], mark) // as a pooled frame could
	around(b[0].layer, x)
	if err := cb.Open(x, x); err != nil {
		t.Fatal(err)
	}
	checkPayload(t, x, 1)
	checkNoMark("at the other circuit's owner")
}

// Bytes that overwrite must differ from cell to cell, or they are a mark of the
// relay that wrote them.
func TestOverwritingBytesNeverRepeat(t *testing.T) {
	relays := newRelays(t, 2)
	c := build(t, relays, 2)
	seen := map[[8]byte]string{}
	note := func(what string, tail []byte) {
		if was, ok := seen[[8]byte(tail)]; ok {
			t.Errorf("%s repeats %s", what, was)
		}
		seen[[8]byte(tail)] = what
	}
	for n := range 100 {
		b := payload(0)
		c.Seal(b)
		note(fmt.Sprintf("client, cell %d", n), b[cell.Size-8:])
		for i, r := range relays {
			if err := r.layer.Forward(b, b); err != nil {
				t.Fatal(err)
			}
			note(fmt.Sprintf("hop %d, cell %d forward", i, n), b[cell.Size-8:])
		}
		for i := 1; i >= 0; i-- {
			around(relays[i].layer, b)
			note(fmt.Sprintf("hop %d, cell %d backward", i, n), b[cell.Size-8:])
		}
		if err := c.Open(b, b); err != nil {
			t.Fatal(err)
		}
	}
}
