package stream

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

// vector is a file of testdata while it is made: comments and fields.
type vector struct{ strings.Builder }

func (v *vector) say(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Fprintf(v, "# %s\n", strings.TrimSpace(line))
	}
}

// field writes a value in hex, 32 bytes a line.
func (v *vector) field(name string, value []byte) {
	fmt.Fprintf(v, "%s:\n", name)
	for len(value) > 0 {
		n := min(32, len(value))
		fmt.Fprintf(v, "\t%x\n", value[:n])
		value = value[n:]
	}
}

// check compares v with its file.
func (v *vector) check(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(v.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if v.String() != string(want) {
		t.Errorf("differs from %s; what is made now:\n%s", path, v)
	}
}

// fields reads a file of testdata.
func fields(t testing.TB, name string) map[string][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]byte)
	var field string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" || line[0] == '#':
		case line[0] != '\t':
			field = strings.TrimSuffix(line, ":")
			out[field] = []byte{}
		default:
			value, err := hex.DecodeString(line[1:])
			if err != nil {
				t.Fatal(err)
			}
			out[field] = append(out[field], value...)
		}
	}
	return out
}

// fixed are keys and choices that a handshake would otherwise draw.
type fixed struct {
	initiator, responder                   PrivateKey
	initiatorEphemeral, responderEphemeral PrivateKey
	kemSeed                                [64]byte
	kemRandom                              [32]byte
	prologue                               []byte
	counter                                uint64
}

func pattern(from byte, b []byte) {
	for i := range b {
		b[i] = from + byte(i)
	}
}

func newFixed() *fixed {
	f := &fixed{counter: 0x0102030405060708}
	pattern(0x10, f.initiator[:])
	pattern(0x30, f.responder[:])
	pattern(0x50, f.initiatorEphemeral[:])
	pattern(0x70, f.responderEphemeral[:])
	pattern(0x90, f.kemSeed[:])
	pattern(0xd0, f.kemRandom[:])
	var swarm, relay, token [32]byte
	pattern(0x01, swarm[:])
	pattern(0x41, relay[:])
	pattern(0x81, token[:])
	f.prologue = slices.Concat([]byte("shoal/1 stream"), swarm[:], relay[:], token[:]) // as announce.Prologue makes it
	return f
}

func (f *fixed) initiate(t testing.TB) (*Initiator, []byte) {
	t.Helper()
	kem, err := mlkem.NewDecapsulationKey768(f.kemSeed[:])
	if err != nil {
		t.Fatal(err)
	}
	i, msg1, err := initiate(f.initiator, f.responder.Public(), f.prologue, f.counter, f.initiatorEphemeral, kem)
	if err != nil {
		t.Fatal(err)
	}
	return i, msg1
}

func (f *fixed) respond(msg1 []byte) (*Keys, []byte, [32]byte, uint64, error) {
	return respond(f.responder, f.prologue, msg1, f.responderEphemeral, func(k *mlkem.EncapsulationKey768) ([]byte, []byte, error) {
		return mlkemtest.Encapsulate768(k, f.kemRandom[:])
	})
}

func TestGoldenHandshake(t *testing.T) {
	f := newFixed()
	i, msg1 := f.initiate(t)
	b, msg2, remote, counter, err := f.respond(msg1)
	if err != nil {
		t.Fatal(err)
	}
	if remote != f.initiator.Public() || counter != f.counter {
		t.Errorf("opened by %x with counter %x", remote, counter)
	}
	a, err := i.Finish(msg2)
	if err != nil {
		t.Fatal(err)
	}
	if a.seal != b.open || a.open != b.seal {
		t.Error("the sides have different keys")
	}

	var v vector
	v.say("One handshake with fixed keys. Layout: package stream; all values in hex.")
	v.say("Private X25519 keys, static and ephemeral, of the one who opens and the one who answers.")
	v.field("initiator-static", f.initiator[:])
	v.field("initiator-ephemeral", f.initiatorEphemeral[:])
	v.field("responder-static", f.responder[:])
	v.field("responder-ephemeral", f.responderEphemeral[:])
	v.say("The seed of the opener's ML-KEM-768 key, and the randomness that the other encapsulates with (FIPS 203: d and z; m).")
	v.field("kem-seed", f.kemSeed[:])
	v.field("kem-random", f.kemRandom[:])
	v.say("The prologue: label, swarm's secret, relay, token.")
	v.field("prologue", f.prologue)
	v.say("Message 1: e, sealed static key, sealed ML-KEM key and counter 0102030405060708.")
	v.field("message-1", msg1)
	v.say("Message 2: e, sealed ML-KEM ciphertext.")
	v.field("message-2", msg2)
	v.say("want: ok, with these keys for records.")
	v.field("key-from-initiator", a.seal[:])
	v.field("key-from-responder", b.seal[:])
	v.check(t, "handshake.txt")
}

// goldenRecords are the plain insides of the records in testdata.
func goldenRecords() []struct {
	want  string
	plain []byte
} {
	control := func(kind byte, offset uint64) []byte {
		_, plain := grow(nil, ControlSize)
		putControl(plain, kind, offset)
		return plain
	}
	data := func(b []byte) []byte {
		_, plain := grow(nil, DataSize)
		putData(plain, typeData, b)
		return plain
	}
	gossip := func(b []byte) []byte {
		_, plain := grow(nil, DataSize)
		putData(plain, typeGossip, b)
		return plain
	}
	full := make([]byte, MaxData)
	pattern(0, full)
	badPadding, badLength := data([]byte("x")), data([]byte("x"))
	badPadding[10], badLength[1] = 1, 0xff
	return []struct {
		want  string
		plain []byte
	}{
		{"WINDOW 65536", control(typeWindow, windowFloor)},
		{"DATA 5 bytes, hello", data([]byte("hello"))},
		{"DATA 4061 bytes, 0 1 2 … 255 0 …", data(full)},
		{"FIN 4066", control(typeFin, 4066)},
		{"RESET", control(typeReset, 0)},
		{"refused: empty DATA", data(nil)},
		{"refused: DATA longer than its record", badLength},
		{"refused: padding that isn't zero", badPadding},
		{"refused: type 5, kept for RESUME", control(5, 0)},
		{"refused: RESET with an offset", control(typeReset, 1)},
		{"GOSSIP 4 bytes, news", gossip([]byte("news"))},
		{"refused: GOSSIP longer than 1024 bytes", gossip(full[:MaxGossip+1])},
	}
}

func TestGoldenRecords(t *testing.T) {
	var key [32]byte
	pattern(0xa0, key[:])
	seal, open := newDirection(key), newDirection(key)
	var v vector
	v.say("Records of one direction, in order. Layout: package stream; all values in hex.")
	v.field("key", key[:])
	for i, g := range goldenRecords() {
		plain := bytes.Clone(g.plain)
		sealed := append(plain, make([]byte, 16)...)
		seal.seal(sealed[:len(plain)])
		v.say("record %d, want: %s", i, g.want)
		v.field(fmt.Sprint("record-", i), sealed)
		checkRecord(t, &open, bytes.Clone(sealed), g.want, g.plain)
	}
	seal.count, open.count = rekeyAfter, rekeyAfter
	all, plain := grow(nil, ControlSize)
	putControl(plain, typeWindow, 1<<20)
	seal.seal(plain)
	v.say("record 2^24, the first under the next key, want: WINDOW 1048576")
	v.field("record-16777216", all)
	v.check(t, "records.txt")
	checkRecord(t, &open, bytes.Clone(all), "WINDOW", nil)
}

func checkRecord(t *testing.T, open *direction, sealed []byte, want string, wantPlain []byte) {
	t.Helper()
	plain, err := open.open(sealed)
	if err != nil {
		t.Fatalf("%s: %v", want, err)
	}
	if wantPlain != nil && !bytes.Equal(plain, wantPlain) {
		t.Errorf("%s: opened to %x", want, plain)
	}
	_, err = parseRecord(plain)
	if refused := strings.HasPrefix(want, "refused"); refused != (err != nil) {
		t.Errorf("%s: %v", want, err)
	}
}
