package onion

import (
	"bytes"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// vectorCreate is the CREATE of the golden vector.
func vectorCreate(tb testing.TB) []byte {
	return openVector(tb, vectorFile).input("create", nil)
}

func FuzzPeel(f *testing.F) {
	relays, own := vectorRelays(f)
	create := vectorCreate(f)
	f.Add(create)
	f.Add(create[:cell.CreateSize-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Peel(b, relays[0].id, relays[0].key)
		if (err == nil) != bytes.Equal(b, create) {
			t.Fatalf("Peel of %d bytes: %v", len(b), err)
		}
		if err != nil {
			return
		}
		if _, err := p.accept(relays[0].suite, own[0]); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzHeader goes where FuzzPeel gets only with an AEAD's leave.
func FuzzHeader(f *testing.F) {
	good := make([]byte, headerSize)
	good[0], good[headerLength], good[headerLength+1] = cell.Version, byte(cell.Size>>8), byte(cell.Size&0xff)
	f.Add(good)
	f.Add(good[:headerSize-1])
	good = bytes.Clone(good)
	good[headerNext], good[headerNumber] = 1, 1
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, number, err := parseHeader(b)
		if err != nil {
			return
		}
		// What it takes, a cell's layer can be: no length leaves a payload cut.
		if p.length > cell.Size || p.length-cell.TagSize < cell.Payload || p.Last && number != 0 {
			t.Errorf("took length %d, last %v, number %d", p.length, p.Last, number)
		}
		if l, err := p.Accept(ChaCha20); err == nil {
			var b [cell.Size]byte
			around(l, &b)
			if l.Forward(&b, &b) == nil {
				t.Error("a cell of the other direction opened")
			}
		}
	})
}

func FuzzFinish(f *testing.F) {
	relays := newRelays(f, 3)
	create, p, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		f.Fatal(err)
	}
	created := carry(f, relays, create)
	f.Add(created)
	f.Add(created[:cell.CreatedSize-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := copyPending(p).Finish(b)
		answers := len(relays) * cell.AnswerSize
		if ok := len(b) == len(created) && bytes.Equal(b[:answers], created[:answers]); (err == nil) != ok {
			t.Errorf("Finish of %d bytes: %v", len(b), err)
		}
	})
}

// fuzzCell makes a cell of any bytes.
func fuzzCell(b []byte) *[cell.Size]byte {
	x := new([cell.Size]byte)
	copy(x[:], b)
	return x
}

func FuzzOpen(f *testing.F) {
	relays := newRelays(f, 2)
	c := build(f, relays, 1)
	good := payload(0)
	backward(relays, good, 1, 0)
	f.Add(good[:])
	f.Add(good[:cell.Payload])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		fresh := &Circuit{sizes: c.sizes, masks: []mask{newMask(c.masks[0].suite, c.masks[0].key)}, backward: c.backward}
		x := fuzzCell(b)
		same := bytes.Equal(x[:c.sizes[1]], good[:c.sizes[1]]) // what is behind is nobody's
		if err := fresh.Open(x, x); (err == nil) != same {
			t.Errorf("Open: %v", err)
		}
		if err := fresh.Open(x, fuzzCell(b)); err == nil {
			t.Error("the same cell twice")
		}
	})
}

func FuzzForward(f *testing.F) {
	relays := newRelays(f, 2)
	c := build(f, relays, 1)
	good := payload(0)
	c.Seal(good)
	f.Add(good[:])
	f.Add(good[:cell.Payload])
	f.Add([]byte{})
	l := relays[0].layer
	f.Fuzz(func(t *testing.T, b []byte) {
		fresh := &Layer{size: l.size, last: l.last, forward: l.forward, forwardFill: newFill()}
		x := fuzzCell(b)
		same := bytes.Equal(x[:l.size], good[:l.size])
		if err := fresh.Forward(x, x); (err == nil) != same {
			t.Errorf("Forward: %v", err)
		}
		if err := fresh.Forward(x, fuzzCell(b)); err == nil {
			t.Error("the same cell twice")
		}
	})
}

func FuzzReplayCacheLoad(f *testing.F) {
	c := NewReplayCache(4)
	c.Add(100, 100, tag(1))
	c.Add(100, 101, tag(2))
	f.Add(c.Append(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := NewReplayCache(4)
		if c.Load(b) != nil {
			return
		}
		if got := c.Append(nil); len(got) > len(b) || len(got)/entrySize != c.count {
			t.Errorf("%d bytes became %d, %d entries", len(b), len(got), c.count)
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add(ID{1, 2, 3}.String())
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != s {
			t.Errorf("ParseID(%q) = %v", s, id)
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	relays, _ := vectorRelays(f)
	good := relays[0].key.Public().Bytes()
	f.Add(good)
	f.Add(good[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParsePublicKey(b, 1)
		if _, want := kem().NewPublicKey(b); (err == nil) != (want == nil) {
			t.Errorf("%v, but crypto/hpke says %v", err, want)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(k.Bytes(), b) {
			t.Error("other bytes")
		}
		// Whatever it takes can be sealed to, or is refused there.
		Wrap([]Hop{{ID{1}, k, AES256GCM}}, testStep, nil)
	})
}
