package stream

import (
	"bytes"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

func TestRecordsComeOutAsTheyWentIn(t *testing.T) {
	seal, open := newDirection([32]byte{1}), newDirection([32]byte{1})
	dirty := bytes.Repeat([]byte{0xaa}, MaxRecord+7) // what a pooled cell holds
	for _, n := range []int{1, 2, 15, 16, 4000, MaxData - 1, MaxData} {
		data := bytes.Repeat([]byte{byte(n)}, n)
		all, plain := grow(dirty[:7], DataSize)
		putData(plain, typeData, data)
		seal.seal(plain)
		if &all[0] != &dirty[0] || len(all) != 7+DataSize {
			t.Fatal("a slice with room for it was not used")
		}
		opened, err := open.open(all[7:])
		if err != nil {
			t.Fatal(err)
		}
		r, err := parseRecord(opened)
		if err != nil || r.kind != typeData || !bytes.Equal(r.data, data) || cap(r.data) != MaxData {
			t.Errorf("DATA of %d bytes came out as %d, room %d, %v", n, len(r.data), cap(r.data), err)
		}
	}
	for _, want := range []record{{kind: typeWindow, offset: 1 << 40}, {kind: typeFin, offset: 1<<64 - 1}, {kind: typeReset}} {
		all, plain := grow(dirty[:0], ControlSize)
		putControl(plain, want.kind, want.offset)
		seal.seal(plain)
		opened, err := open.open(all)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := parseRecord(opened); err != nil || r.kind != want.kind || r.offset != want.offset {
			t.Errorf("%+v came out as %+v, %v", want, r, err)
		}
	}
}

func TestEveryRecordPrefixIsRefused(t *testing.T) {
	for _, size := range []int{DataSize, ControlSize} {
		seal := newDirection([32]byte{1})
		all, plain := grow(nil, size)
		if size == DataSize {
			putData(plain, typeData, []byte("hello"))
		} else {
			putControl(plain, typeFin, 5)
		}
		inside := bytes.Clone(plain)
		seal.seal(plain)
		for n := range all {
			open := newDirection([32]byte{1})
			if _, err := open.open(bytes.Clone(all[:n])); err == nil {
				t.Errorf("opened %d of %d bytes", n, size)
			}
		}
		for n := range inside {
			if _, err := parseRecord(inside[:n]); err == nil {
				t.Errorf("parsed %d of %d bytes", n, len(inside))
			}
		}
	}
}

func TestRecordSizesFitACell(t *testing.T) {
	if MaxRecord > cell.MaxMessage {
		t.Errorf("a record of %d bytes doesn't fit a message of %d", MaxRecord, cell.MaxMessage)
	}
	for _, size := range []int{DataSize, ControlSize} {
		if (size-cell.TagSize)%16 != 0 {
			t.Errorf("records of %d bytes are slow to seal", size)
		}
	}
}

// FuzzReceive gives a Conn records that are rightly sealed but hold anything:
// each byte of script picks a size and kind, the rest fills it.
func FuzzReceive(f *testing.F) {
	for _, g := range goldenRecords() {
		f.Add(byte(len(g.plain)&1), g.plain, g.plain)
	}
	f.Add(byte(3), []byte{typeFin, 0, 0, 0, 0, 0, 0, 0, 1}, []byte{typeData, 0, 1, 9})
	f.Add(byte(2), []byte{typeWindow, 1, 2, 3}, []byte{typeData, 0, 9, 9})
	ka, kb := keyPair(f)
	f.Fuzz(func(t *testing.T, sizes byte, first, second []byte) {
		keys, out := *kb, newDirection(ka.seal)
		c, err := New(&keys, newWire(shape{}), nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		held := 0
		for i, inside := range [][]byte{first, second, first, second} {
			size := ControlSize
			if sizes>>i&1 == 0 {
				size = DataSize
			}
			all, plain := grow(nil, size)
			copy(plain, inside)
			want, parseErr := parseRecord(bytes.Clone(plain))
			out.seal(plain)
			held++
			err := c.Receive(all, freed(func() { held-- }))
			if parseErr != nil && err == nil {
				t.Errorf("received what can't be parsed: %v", parseErr)
			}
			if err == nil && want.kind == typeReset {
				t.Error("went on after RESET")
			}
		}
		c.Receive(first, freed(func() {}))
		c.Close()
		if held != 0 {
			t.Errorf("%d records never given back", held)
		}
		c.Fail(nil)
	})
}

// FuzzReceiveSealed gives a Conn any bytes at all.
func FuzzReceiveSealed(f *testing.F) {
	for name, sealed := range fields(f, "records.txt") {
		if name != "key" {
			f.Add(sealed)
		}
	}
	f.Add([]byte{})
	_, kb := keyPair(f)
	f.Fuzz(func(t *testing.T, sealed []byte) {
		keys := *kb
		c, err := New(&keys, newWire(shape{}), nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		held := true
		if err := c.Receive(sealed, freed(func() { held = false })); err == nil || held {
			t.Errorf("Receive: %v, held: %v", err, held)
		}
		if isClosed(c.Confirmed()) {
			t.Error("confirmed by bytes that nobody sealed")
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	seal, open := newDirection([32]byte{1}), newDirection([32]byte{1})
	buf, data := make([]byte, MaxRecord), make([]byte, MaxData)
	b.SetBytes(MaxData)
	b.ReportAllocs()
	for b.Loop() {
		all, plain := grow(buf[:0], DataSize)
		putData(plain, typeData, data)
		seal.seal(plain)
		opened, err := open.open(all)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := parseRecord(opened); err != nil {
			b.Fatal(err)
		}
	}
}
