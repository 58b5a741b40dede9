package link

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

// key returns the same direction at each call.
func key(first byte) onion.Direction {
	return onion.NewDirection(onion.AES256GCM, bytes.Repeat([]byte{first}, 32))
}

// cells returns n cells of circuit 1 with bodies that differ.
func cells(n int) (out []*cell.Frame) {
	for i := range n {
		f := new(cell.Frame)
		cell.Header{Circuit: 1, Command: cell.Data}.Put(f[:])
		for j := range f.Body() {
			f.Body()[j] = byte(i + j)
		}
		out = append(out, f)
	}
	return out
}

// sink is a connection that holds what is to be read, and then ends.
type sink struct {
	net.Conn
	unread []byte
}

func (s *sink) Read(b []byte) (int, error) {
	if len(s.unread) == 0 {
		return 0, net.ErrClosed
	}
	n := copy(b, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

func (s *sink) Close() error { return nil }

// reader returns a link that was dialled and reads b.
func reader(b []byte) *Link {
	l := newLink(newWire(&sink{unread: b}), onion.ID{}, true)
	l.in = key(1)
	return l
}

var update = flag.Bool("update", false, "write testdata anew: docs/protocol.md changes with it")

func TestRecordIsTheGoldenOne(t *testing.T) {
	out := key(1)
	control := cell.AppendDestroy(cell.AppendCredit(nil, 1, 300), 3, cell.Busy)
	got := appendRecord(nil, &out, control, cells(2))
	got = appendRecord(got, &out, control[:cell.HeaderSize+8], nil)
	const name = "testdata/records.txt"
	if *update {
		text := "# Two records under a key of 32 bytes 01, AES-256-GCM, as hex.\n" +
			"# First: CREDIT 300 on circuit 1, DESTROY busy on circuit 3, two cells of circuit 1\n" +
			"# whose body's byte j is i+j for the i-th. Second: the same CREDIT.\n"
		for s := hex.EncodeToString(got); s != ""; s = s[min(len(s), 96):] {
			text += s[:min(len(s), 96)] + "\n"
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for line := range strings.Lines(string(file)) {
		if !strings.HasPrefix(line, "#") {
			text += strings.TrimSpace(line)
		}
	}
	want, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("records differ from %s", name)
	}
}

func TestARecordComesOutAsItWentIn(t *testing.T) {
	out := key(1)
	control := cell.AppendCredit(nil, 7, 9)
	var sent []byte
	for n := range recordCells + 1 {
		sent = appendRecord(sent, &out, control, cells(n))
	}
	l := reader(sent)
	for n := range recordCells + 1 {
		frames, bodies, err := l.readRecord()
		if err != nil {
			t.Fatal(err)
		}
		want, wantBodies := bytes.Clone(control), []byte(nil)
		for _, f := range cells(n) {
			want, wantBodies = append(want, f[:cell.HeaderSize]...), append(wantBodies, f.Body()[:]...)
		}
		if !bytes.Equal(frames, want) || !bytes.Equal(bodies, wantBodies) {
			t.Errorf("a record of %d cells came out otherwise", n)
		}
	}
	if _, in := l.Bytes(); in != 0 {
		t.Error("reading counts as writing")
	}
	if in, _ := l.Bytes(); in != uint64(len(sent)) {
		t.Errorf("%d bytes read, want %d", in, len(sent))
	}
}

func TestEveryPrefixOfARecordIsRefused(t *testing.T) {
	out := key(1)
	record := appendRecord(nil, &out, cell.AppendCredit(nil, 7, 9), cells(1))
	for n := range record {
		if _, _, err := reader(record[:n]).readRecord(); err == nil {
			t.Errorf("accepted %d of %d bytes", n, len(record))
		}
	}
}

// Whoever sits on the wire can end the link; what a body's own layers refuse is theirs.
func TestARecordThatWasTouchedClosesTheLink(t *testing.T) {
	out := key(1)
	first := appendRecord(nil, &out, cell.AppendCredit(nil, 1, 9), cells(2))
	second := appendRecord(nil, &out, cell.AppendCredit(nil, 1, 10), cells(2))
	fewer := append(bytes.Clone(first[:2]), 1, 0)
	fewer = append(fewer, first[recordHeader:recordHeader+cell.Size]...)
	fewer = append(fewer, first[recordHeader+2*cell.Size:]...)
	more := append(bytes.Clone(first[:2]), 3, 0)
	more = append(more, make([]byte, cell.Size)...)
	more = append(more, first[recordHeader:]...)
	for name, sent := range map[string][]byte{
		"dropped":           second,
		"repeated":          append(bytes.Clone(first), first...),
		"a body taken out":  fewer,
		"a body more":       more,
		"another's sealing": append(bytes.Clone(first[:recordHeader+2*cell.Size]), second[recordHeader+2*cell.Size:]...),
	} {
		l := reader(sent)
		var err error
		for range 2 {
			if _, _, err = l.readRecord(); err != nil {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), "changed") && !errors.Is(err, net.ErrClosed) { // or waits for more
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range first {
		changed := bytes.Clone(first)
		changed[i] ^= 1 << (i % 8)
		_, _, err := reader(changed).readRecord()
		if body := i >= recordHeader && i < recordHeader+2*cell.Size; (err == nil) != body {
			t.Errorf("byte %d, of a body: %t, changed: %v", i, body, err)
		}
	}
}

func TestNoBodyOfACellIsEncryptedTwice(t *testing.T) {
	out := key(1)
	record := appendRecord(nil, &out, nil, cells(1))
	if !bytes.Contains(record, cells(1)[0].Body()[:]) {
		t.Error("it is: then TLS could have stayed")
	}
	if bytes.Contains(record, cells(1)[0][:cell.HeaderSize]) {
		t.Error("the header can be read")
	}
}

func TestFramesAndBodiesThatDoNotMatchCloseTheLink(t *testing.T) {
	data := make([]byte, cell.HeaderSize)
	cell.Header{Circuit: 1, Command: cell.Data}.Put(data)
	for name, r := range map[string][2][]byte{
		"a header without its body":    {data, nil},
		"a body without its header":    {cell.AppendDestroy(nil, 1, cell.OK), make([]byte, cell.Size)},
		"half a header":                {data[:4], make([]byte, cell.Size)},
		"half a CREDIT":                {cell.AppendCredit(nil, 1, 1)[:cell.HeaderSize+3], nil},
		"CREATE without its last byte": {cell.AppendFrame(nil, cell.Header{Circuit: 3, Command: cell.Create}, make([]byte, cell.CreateSize))[:cell.CreateSize], nil},
	} {
		n, l := dialRaw(t)
		n.frame(1, cell.Create)
		n.record(r[0], r[1])
		if err := <-l.done; err == nil || !strings.HasPrefix(err.Error(), "link: ") && !strings.HasPrefix(err.Error(), "cell: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A hostile neighbour has the keys: what he seals can be anything.
func FuzzTake(f *testing.F) {
	data := make([]byte, cell.HeaderSize)
	cell.Header{Circuit: 1, Command: cell.Data}.Put(data)
	create := cell.AppendFrame(nil, cell.Header{Circuit: 1, Command: cell.Create}, make([]byte, cell.CreateSize))
	f.Add(create, byte(0))
	f.Add(append(create, data...), byte(1))
	f.Add(cell.AppendDestroy(create, 1, cell.Busy), byte(0))
	f.Add(cell.AppendCredit(create, 1, 1<<40), byte(2))
	f.Fuzz(func(t *testing.T, frames []byte, bodies byte) {
		l := newLink(newWire(&sink{}), onion.ID{}, false)
		l.accept = func(c *Circuit, create []byte) {
			e := newEnd()
			c.Handle(e)
			c.Created(make([]byte, cell.CreatedSize))
		}
		l.take(frames, make([]byte, int(bodies%recordCells)*cell.Size))
	})
}

func FuzzReadRecord(f *testing.F) {
	out := key(1)
	f.Add(appendRecord(nil, &out, cell.AppendCredit(nil, 1, 300), cells(1)))
	f.Add([]byte{0xff, 0xff, 4, 0})
	f.Add([]byte{0, 24, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) { reader(b).readRecord() })
}

// What follows the handshake may come in one segment with its last record.
func TestRecordsRightBehindTheHandshakeAreRead(t *testing.T) {
	for range 20 {
		a, b := connect(t, linktest.Shape{})
		x := run(t, a, true)
		e := open(t, a)
		y := run(t, b, true)
		e.hears(t, "created")
		x.stop()
		y.stop()
	}
}

// BenchmarkRecord seals and opens a record in the three ways that there are to
// carry cells which are sealed hop by hop already; decisions.md has the argument.
func BenchmarkRecord(b *testing.B) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{1, 2, recordCells, 8, 15} {
		size := n*cell.Size + n*cell.HeaderSize + cell.TagSize
		for _, way := range []struct {
			name        string
			bound, from int // what is bound: from the start to bound; what is sealed: from from
		}{
			{"bodies sealed again", 0, 0},
			{"bodies bound", n * cell.Size, n * cell.Size},
			{"bodies left alone", 0, n * cell.Size},
		} {
			b.Run(fmt.Sprintf("%d cells/%s", n, way.name), func(b *testing.B) {
				buf, nonce := make([]byte, size), make([]byte, aead.NonceSize())
				bound, sealed := buf[:way.bound], buf[way.from:]
				plain := sealed[:len(sealed)-cell.TagSize]
				b.SetBytes(int64(n * cell.Size))
				b.ReportAllocs()
				for b.Loop() {
					aead.Seal(plain[:0], nonce, plain, bound)
					if _, err := aead.Open(plain[:0], nonce, sealed, bound); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
