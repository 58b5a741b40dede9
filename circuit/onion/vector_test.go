package onion

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

var update = flag.Bool("update", false, "write testdata anew: another CREATE, other client keys")

const (
	vectorFile  = "testdata/circuit.txt"
	vectorHops  = 3
	vectorSlack = 1
	vectorFill  = 0xf1 // each byte behind the last hop's answer
)

// vectorRelays are the relays of the vector and their fresh X25519 keys, all fixed.
func vectorRelays(tb testing.TB) (relays []*testRelay, own []*ecdh.PrivateKey) {
	tb.Helper()
	for i := range vectorHops {
		key, err := ParsePrivateKey(bytes.Repeat([]byte{byte(0xa0 + i)}, PrivateKeySize), byte(7+i))
		if err != nil {
			tb.Fatal(err)
		}
		relays = append(relays, &testRelay{id: ID(bytes.Repeat([]byte{byte(0xc0 + i)}, 32)), key: key, suite: Suite(i % 2)})
		own = append(own, x25519(tb, bytes.Repeat([]byte{byte(0xb0 + i)}, keySize)))
	}
	return relays, own
}

func x25519(tb testing.TB, b []byte) *ecdh.PrivateKey {
	tb.Helper()
	k, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// TestGoldenCircuit takes the stored CREATE through its relays, the CREATED
// back, a failed CREATED too, and cells both ways, and compares every value on
// the way with the stored one; with -update it stores them. The relays' keys
// are fixed; the client's and the HPKE encapsulations can't be, so each -update
// makes others.
func TestGoldenCircuit(t *testing.T) {
	v := openVector(t, vectorFile)
	relays, own := vectorRelays(t)
	message := cell.Message{Stream: 1, Verb: cell.Open, Body: bytes.Repeat([]byte("shoal "), 40)}
	early := message.Append(nil)
	create, p, err := wrap(hopsOf(relays), testStep, early, vectorSlack)
	if err != nil {
		t.Fatal(err)
	}

	v.comment(`One circuit of three hops with a slack of one: its CREATE as the client sent
it, every secret of it, its CREATED, and its first cells. All in hex or
decimal; package onion's comment says what everything is. "go test -run Golden
-update" makes another.`)
	v.number("hops", vectorHops)
	v.number("slack", vectorSlack)
	v.number("step", testStep)
	v.comment("The early message: OPEN on stream 1, not padded.")
	v.bytes("early", early)
	v.comment("CREATE as hop 0 receives it.")
	create = v.input("create", create)

	// Peel, hop by hop. The client's end is put together from the stored keys.
	received := create
	for i, r := range relays {
		at := fmt.Sprintf("hop%d.", i)
		v.comment(fmt.Sprintf("Hop %d: what stands in its descriptor, and the seed of its onion key.", i))
		v.bytes(at+"id", r.id[:])
		v.number(at+"suite", int(r.suite))
		v.number(at+"onion_key_number", int(r.key.Public().Number()))
		v.bytes(at+"onion_key", r.key.Bytes())
		v.sum(at+"onion_public_sha256", r.key.Public().Bytes())
		v.comment("The fresh X25519 secrets of client and relay, and the client's public key.")
		client := x25519(t, v.input(at+"client_key", p.hops[i].client.Bytes()))
		v.bytes(at+"relay_key", own[i].Bytes())
		v.bytes(at+"client", client.PublicKey().Bytes())

		if r.peeled, err = Peel(received, r.id, r.key); err != nil {
			t.Fatalf("hop %d: %v", i, err)
		}
		e := r.peeled.exports // without "onion", which is erased by now
		p.hops[i] = pendingHop{client, e, r.peeled.transcript, r.suite, r.peeled.length}
		if r.layer, err = r.peeled.accept(r.suite, own[i]); err != nil {
			t.Fatalf("hop %d: %v", i, err)
		}
		v.comment("What the hop makes of CREATE.")
		v.bytes(at+"export_hop", e.hop[:])
		v.bytes(at+"export_back", e.back[:])
		v.bytes(at+"export_answer", e.answer[:])
		v.number(at+"step", int(r.peeled.Step))
		v.bytes(at+"next", r.peeled.Next[:])
		v.number(at+"next_key_number", int(KeyNumber(r.peeled.Create)))
		v.number(at+"length", r.peeled.length)
		v.bytes(at+"replay", r.peeled.Replay[:])
		v.bytes(at+"transcript", r.peeled.transcript[:])
		v.bytes(at+"forward_key", r.layer.forward.key[:])
		v.bytes(at+"backward_key", backwardKey(r.layer))
		v.bytes(at+"confirm", r.layer.confirm[:])
		v.sum(at+"next_create_sha256", r.peeled.Create)
		received = r.peeled.Create
	}
	end := relays[vectorHops-1]
	if !end.peeled.Last || !bytes.Equal(end.peeled.Early, append(early, make([]byte, cell.EarlySize-len(early))...)) {
		t.Errorf("early %x, want %x and zeros", end.peeled.Early, early)
	}

	v.comment(`CREATED as each hop sends it, last hop first. Behind the last hop's answer
all bytes were f1 before "back".`)
	failing := copyPending(p)
	created := bytes.Repeat([]byte{vectorFill}, cell.CreatedSize)
	for i := vectorHops - 1; i >= 0; i-- {
		created = relays[i].peeled.reply(cell.OK, created)
		v.bytes(fmt.Sprintf("hop%d.created", i), created)
	}
	c, err := p.Finish(created)
	if err != nil {
		t.Fatal(err)
	}
	if c.Confirm() != end.layer.Confirm() {
		t.Errorf("confirm %x, at the last hop %x", c.Confirm(), end.layer.Confirm())
	}

	v.comment("The CREATED of hop 0 if hop 1 can't reach hop 2. want: hop 1, unreachable.")
	goldenFailure(t, v, failing, create, relays)
	v.comment("CREATEs that hop 0 refuses: the one above with one byte XORed.")
	goldenRefusals(t, v, create, relays[0])
	v.comment(`Cells. The payload is the early message again, followed by zeros. A cell is
stored whole as the first hop or the client receives it; "hopN.forward…" is
what hop N's layer opens to, without what is overwritten, "hopN.backward…" what it passes on, whole. "first" is cell 0 of each key, "last" cell 2^24-1, "rekeyed" the
one after it.`)
	payload := make([]byte, cell.Payload)
	message.Put(payload)
	v.sum("payload_sha256", payload)
	goldenCells(t, v, c, relays, payload)
	v.close()
}

func goldenFailure(t *testing.T, v *vector, p *Pending, create []byte, relays []*testRelay) {
	first, err := Peel(create, relays[0].id, relays[0].key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Accept(relays[0].suite); err != nil {
		t.Fatal(err)
	}
	second, err := Peel(first.Create, relays[1].id, relays[1].key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Finish(v.input("failed.created", first.Created(second.Fail(cell.Unreachable))))
	var failed *HopError
	if !errors.As(err, &failed) {
		t.Fatalf("%v, want a failed hop", err)
	}
	v.number("failed.hop", failed.Hop)
	v.number("failed.reason", int(failed.Reason))
}

func goldenRefusals(t *testing.T, v *vector, create []byte, r *testRelay) {
	for _, bad := range []struct {
		name    string
		at, xor int
	}{
		{"key_number", 0, 1},
		{"encapsulation_mlkem", 1, 1},
		{"encapsulation_x25519", encSize, 0x80}, // the bit that X25519 by itself ignores
		{"header", 1 + encSize, 1},
		{"header_tag", cell.LayerSize, 1},
		{"rest", 1 + cell.LayerSize, 1},
		{"rest_end", cell.CreateSize - 1, 0x80},
	} {
		v.number("bad."+bad.name+".byte", bad.at)
		v.number("bad."+bad.name+".xor", bad.xor)
		b := bytes.Clone(create)
		b[bad.at] ^= byte(bad.xor)
		_, err := Peel(b, r.id, r.key)
		if err == nil {
			t.Fatalf("accepted a changed %s", bad.name)
		}
		v.text("bad."+bad.name+".want", err.Error())
	}
}

func goldenCells(t *testing.T, v *vector, c *Circuit, relays []*testRelay, payload []byte) {
	// What is overwritten is not for others to reproduce: known bytes here.
	c.fill = mathrand.NewChaCha8([32]byte{})
	for _, r := range relays {
		r.layer.forwardFill = mathrand.NewChaCha8([32]byte{})
		r.layer.backwardFill = mathrand.NewChaCha8([32]byte{})
	}
	for _, name := range []string{"first", "last", "rekeyed"} {
		for i, r := range relays {
			if name == "last" {
				r.layer.forward.count, c.forward[i].count = rekeyAfter-1, rekeyAfter-1
				if r.layer.last {
					r.layer.backward.count, c.backward.count = rekeyAfter-1, rekeyAfter-1
				} else {
					seek(&r.layer.mask, rekeyAfter-1)
					seek(&c.masks[i], rekeyAfter-1)
				}
			}
			if name == "rekeyed" {
				v.bytes(fmt.Sprintf("hop%d.forward_key_2", i), r.layer.forward.key[:])
				v.bytes(fmt.Sprintf("hop%d.backward_key_2", i), backwardKey(r.layer))
			}
		}

		var b [cell.Size]byte
		copy(b[:], payload)
		c.Seal(&b)
		if name == "first" {
			v.bytes("forward_"+name, b[:])
		}
		v.sum("forward_"+name+"_sha256", b[:])
		for i, r := range relays {
			if err := r.layer.Forward(&b, &b); err != nil {
				t.Fatalf("%s: hop %d: %v", name, i, err)
			}
			if i < len(relays)-1 {
				v.sum(fmt.Sprintf("hop%d.forward_%s_sha256", i, name), b[:r.layer.size-cell.TagSize])
			}
		}
		if !bytes.Equal(b[:cell.Payload], payload) {
			t.Errorf("%s: payload %x", name, b[:cell.Payload])
		}

		for i := len(relays) - 1; i >= 0; i-- {
			around(relays[i].layer, &b)
			v.sum(fmt.Sprintf("hop%d.backward_%s_sha256", i, name), b[:])
		}
		if name == "first" {
			v.bytes("backward_"+name, b[:])
		}
		v.sum("backward_"+name+"_sha256", b[:])
		if err := c.Open(&b, &b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(b[:cell.Payload], payload) {
			t.Errorf("%s: payload %x", name, b[:cell.Payload])
		}
	}
}

func backwardKey(l *Layer) []byte {
	if l.last {
		return bytes.Clone(l.backward.key[:])
	}
	return bytes.Clone(l.mask.key[:])
}

// seek puts m where it is after so many cells.
func seek(m *mask, cells uint64) {
	*m = newMask(m.suite, m.key)
	m.count = cells
	at := cells * cell.Size // bytes
	if c, ok := m.stream.(*chacha20.Cipher); ok {
		const block = 64
		c.SetCounter(uint32(at / block))
		rest := make([]byte, at%block)
		c.XORKeyStream(rest, rest)
		return
	}
	iv := make([]byte, aes.BlockSize)
	binary.BigEndian.PutUint64(iv[8:], at/aes.BlockSize)
	m.stream = cipher.NewCTR(newAES(m.key[:]), iv)
}

// vector is a file of "name = value" lines. A long value stands in lines of
// its own that begin with a tab; # begins a comment. With -update it is
// written, otherwise read and compared with.
type vector struct {
	tb     testing.TB
	file   string
	stored map[string]string
	out    bytes.Buffer
	used   int
}

func openVector(tb testing.TB, file string) *vector {
	tb.Helper()
	v := &vector{tb: tb, file: file, stored: map[string]string{}}
	if *update {
		return v
	}
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	name := ""
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '\t':
			v.stored[name] += line[1:]
		default:
			var value string
			var ok bool
			if name, value, ok = strings.Cut(line, " ="); !ok || v.stored[name] != "" {
				tb.Fatalf("%s:%d: %q", file, i+1, line)
			}
			v.stored[name] = strings.TrimPrefix(value, " ")
		}
	}
	return v
}

func (v *vector) comment(s string) {
	fmt.Fprintf(&v.out, "\n# %s\n", strings.ReplaceAll(s, "\n", "\n# "))
}

// text compares value with the stored one.
func (v *vector) text(name, value string) {
	v.tb.Helper()
	if v.used++; !*update {
		if want, ok := v.stored[name]; !ok || value != want {
			v.tb.Errorf("%s = %s, want %s", name, value, want)
		}
		return
	}
	if len(name)+len(value) < 100 {
		fmt.Fprintf(&v.out, "%s = %s\n", name, value)
		return
	}
	fmt.Fprintf(&v.out, "%s =\n", name)
	for ; value != ""; value = value[min(len(value), 96):] {
		fmt.Fprintf(&v.out, "\t%s\n", value[:min(len(value), 96)])
	}
}

func (v *vector) number(name string, n int)   { v.tb.Helper(); v.text(name, strconv.Itoa(n)) }
func (v *vector) bytes(name string, b []byte) { v.tb.Helper(); v.text(name, hex.EncodeToString(b)) }

func (v *vector) sum(name string, b []byte) {
	v.tb.Helper()
	s := sha256.Sum256(b)
	v.bytes(name, s[:])
}

// input returns the stored bytes; with -update, it stores fresh and returns it.
func (v *vector) input(name string, fresh []byte) []byte {
	v.tb.Helper()
	if *update {
		v.bytes(name, fresh)
		return fresh
	}
	v.used++
	b, err := hex.DecodeString(v.stored[name])
	if err != nil || len(b) == 0 {
		v.tb.Fatalf("%s = %q", name, v.stored[name])
	}
	return b
}

// close writes the file, or sees that it holds nothing that was not compared.
func (v *vector) close() {
	v.tb.Helper()
	if *update {
		if err := os.WriteFile(v.file, bytes.TrimLeft(v.out.Bytes(), "\n"), 0o644); err != nil {
			v.tb.Fatal(err)
		}
	} else if len(v.stored) != v.used {
		v.tb.Errorf("%s: %d values, %d of them used", v.file, len(v.stored), v.used)
	}
}
