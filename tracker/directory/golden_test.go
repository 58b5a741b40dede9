package directory

import (
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden vectors anew")

// TestGoldenVectorsHold pins the wire for fixed keys: the Ed25519 seed of relay
// n is n as a uint32 and 28 zero bytes; tracker 0 is key 10000, its signing key
// 10100; onion key n is the seed of 32 times n.
func TestGoldenVectorsHold(t *testing.T) {
	first := view(t, 0, testNow, nil)
	second := view(t, 0, testNow.Add(time.Hour), first, said{relay(t, 1), 5 << 20, 200}, said{full(t), 0, 1})
	n := fileNetwork()
	certificate := first.Certificate.Append(nil)
	first2 := first.Hash()
	b := "# Vectors of package directory. Layouts: its package comment. Hex, but for the network files and tracker links.\n" +
		"# Onion keys are long: <1> and <2> stand for those made of 32 times 01 and 32 times 02.\n"
	for _, v := range []struct {
		what string
		wire []byte
	}{
		{"onion key <1>", onionKey(t, 1, 1).Bytes()},
		{"onion key <2>", onionKey(t, 2, 2).Bytes()},
		{"descriptor of relay 1", relay(t, 1).Append(nil)},
		{"descriptor of relay 500, with all that there can be", full(t).Append(nil)},
		{"certificate of tracker 0's signing key", certificate},
		{"first view, no relays", first.Raw()},
		{"its hash", first2[:]},
		{"second view, two relays", second.Raw()},
		{"answer to a descriptor: not tested yet, seen at 8.8.8.8", Published{Untested, netip.MustParseAddr("8.8.8.8")}.Append(nil)},
		{"answer to a descriptor: reachable, seen at 2a00:1::2", Published{Reachable, netip.MustParseAddr("2a00:1::2")}.Append(nil)},
		{"REQUEST for views", AppendHave(nil, []Have{{trackerKey(0), first.Number}, {trackerKey(1), 0}})},
	} {
		b += fmt.Sprintf("\n# %s\n%s", v.what, folded(t, v.wire, strings.HasPrefix(v.what, "onion key")))
	}
	private := privateNetwork()
	b += "\n# network file\n" + string(n.File())
	b += "\n# network file of a private network\n" + string(private.File())
	for i, what := range []string{"for relays", "with one entry relay", "with two", "of a private network", "of a test network", "with all that there can be"} {
		b += "\n# tracker link " + what + "\n" + links()[i].String() + "\n"
	}

	const file = "testdata/directory.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b != string(want) {
		t.Errorf("the wire changed; run with -update if that is meant and say so in docs/protocol.md:\n%s", b)
	}
	if err := parsed(t, second).Verify(trackerKey(0), testNow.Add(time.Hour), nil); err != nil {
		t.Error(err)
	}
}

// folded returns b in hex, 32 bytes a line, with the two onion keys on lines of their own.
func folded(t *testing.T, b []byte, whole bool) string {
	s := hex.EncodeToString(b)
	if !whole {
		for n, mark := range map[int]string{1: "<1>", 2: "<2>"} {
			s = strings.ReplaceAll(s, hex.EncodeToString(onionKey(t, n, 0).Bytes()), "\n"+mark+"\n")
		}
	}
	var out strings.Builder
	for _, line := range strings.Split(s, "\n") {
		for part := range slices.Chunk([]byte(line), 64) {
			fmt.Fprintf(&out, "%s\n", part)
		}
	}
	return out.String()
}
