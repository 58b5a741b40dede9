package cell

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

// vector is one line of testdata.
type vector struct {
	kind string
	wire []byte
	want string
}

func readVectors(tb testing.TB) []vector {
	tb.Helper()
	const file = "testdata/wire.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	var all []vector
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		left, want, ok := strings.Cut(line, " -> ")
		kind, digits, _ := strings.Cut(left, " ")
		wire, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if !ok || err != nil {
			tb.Fatalf("%s:%d: %q", file, i+1, line)
		}
		all = append(all, vector{kind, wire, want})
	}
	return all
}

// padded returns a message's bytes as a payload.
func padded(b []byte) []byte { return append(bytes.Clone(b), make([]byte, Payload-len(b))...) }

// remake parses v and returns what that says, and what the writer makes of it.
func (v vector) remake() (says string, wire []byte) {
	fail := func(err error) (string, []byte) { return err.Error(), v.wire }
	if v.kind == "message" {
		m, err := ParseMessage(padded(v.wire))
		if err != nil {
			return fail(err)
		}
		payload := bytes.Repeat([]byte{0xff}, Payload) // stale bytes go
		m.Put(payload)
		if !bytes.Equal(payload, padded(m.Append(nil))) {
			return "Put and Append differ", nil
		}
		return strings.TrimSpace(fmt.Sprintf("stream %d verb %d body %x", m.Stream, m.Verb, m.Body)), m.Append(nil)
	}
	h, body, err := ParseHeader(v.wire)
	if err != nil {
		return fail(err)
	}
	switch v.kind {
	case "credit":
		total, err := ParseCredit(v.wire[HeaderSize:])
		if err != nil {
			return fail(err)
		}
		return fmt.Sprintf("circuit %d total %d", h.Circuit, total), AppendCredit(nil, h.Circuit, total)
	case "destroy":
		r := Reason(v.wire[HeaderSize])
		return fmt.Sprintf("circuit %d %v", h.Circuit, r), AppendDestroy(nil, h.Circuit, r)
	}
	wire = make([]byte, HeaderSize)
	h.Put(wire)
	return fmt.Sprintf("circuit %d command %d body %d", h.Circuit, h.Command, body), wire
}

func TestGoldenWire(t *testing.T) {
	for _, v := range readVectors(t) {
		says, wire := v.remake()
		if says != v.want {
			t.Errorf("%s %x -> %s, want %s", v.kind, v.wire, says, v.want)
		}
		if !bytes.Equal(wire, v.wire) {
			t.Errorf("%s %x is written as %x", v.kind, v.wire, wire)
		}
	}
}

func TestFramesOfEveryCommandRoundTrip(t *testing.T) {
	for c := Create; c <= Keepalive; c++ {
		size, ok := bodySize(c)
		id := ID(9)
		if c == Keepalive {
			id = 0
		}
		if !ok || size > maxFrameBody {
			t.Errorf("command %d has a body of %d bytes, the longest is %d", c, size, maxFrameBody)
		}
		body := bytes.Repeat([]byte{byte(c)}, size)
		b := AppendFrame([]byte("before"), Header{id, c}, body)
		b = b[len("before"):]
		h, n, err := ParseHeader(b)
		if err != nil || h != (Header{id, c}) || n != size || !bytes.Equal(b[HeaderSize:], body) {
			t.Errorf("command %d: %v, %d bytes, %v", c, h, n, err)
		}
	}
}

func TestEveryTruncatedPrefixIsRefused(t *testing.T) {
	header := AppendDestroy(nil, 1, Done)[:HeaderSize]
	for i := range header {
		if _, _, err := ParseHeader(header[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes of a header", i, len(header))
		}
	}
	credit := AppendCredit(nil, 1, 5)[HeaderSize:]
	for i := range credit {
		if _, err := ParseCredit(credit[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes of CREDIT", i, len(credit))
		}
	}
	if _, err := ParseCredit(append(credit, 0)); err == nil {
		t.Error("accepted a byte too many of CREDIT")
	}
	message := Message{1, Open, []byte("the body")}.Append(nil)
	for i := range message {
		if _, err := ParseMessage(message[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes of a message", i, len(message))
		}
	}
}

func TestMessagesOfEveryLengthRoundTrip(t *testing.T) {
	payload := make([]byte, Payload)
	for _, n := range []int{0, 1, TokenSize, EarlySize - HeaderSize, MaxMessage - 1, MaxMessage} {
		m := Message{77, Record, bytes.Repeat([]byte{0xab}, n)}
		m.Put(payload)
		got, err := ParseMessage(payload)
		if err != nil || got.Stream != m.Stream || got.Verb != m.Verb || !bytes.Equal(got.Body, m.Body) {
			t.Errorf("%d bytes: %d, verb %d, %d bytes, %v", n, got.Stream, got.Verb, len(got.Body), err)
		}
		if i := bytes.IndexByte(payload[HeaderSize+n:], 0xab); i >= 0 {
			t.Errorf("%d bytes: the message before shows at %d", n, i)
		}
	}
}

func TestPutMovesABodyWithinItsPayload(t *testing.T) {
	payload := make([]byte, Payload)
	Message{1, Record, []byte("what a body was")}.Put(payload)
	m, err := ParseMessage(payload)
	if err != nil {
		t.Fatal(err)
	}
	m.Stream, m.Body = 2, m.Body[5:]
	m.Put(payload)
	if got, err := ParseMessage(payload); err != nil || string(got.Body) != "a body was" || got.Stream != 2 {
		t.Errorf("%q on %d, %v", got.Body, got.Stream, err)
	}
}

func TestPutStreamChangesTheStreamAlone(t *testing.T) {
	payload, want := make([]byte, Payload), make([]byte, Payload)
	Message{1, Record, []byte("body")}.Put(payload)
	Message{0xfedcba98, Record, []byte("body")}.Put(want)
	PutStream(payload, 0xfedcba98)
	if !bytes.Equal(payload, want) {
		t.Errorf("%x, want %x", payload[:16], want[:16])
	}
}

// A box of zeros, which is what a CREATE without an early message brings, must
// not read as a message.
func TestZerosAreNoMessageAndNoFrame(t *testing.T) {
	if m, err := ParseMessage(make([]byte, EarlySize)); err == nil {
		t.Errorf("message %v", m)
	}
	if h, _, err := ParseHeader(make([]byte, HeaderSize)); err == nil {
		t.Errorf("frame %v", h)
	}
}

func TestWritersPanicOnWhatNoParserTakes(t *testing.T) {
	for name, f := range map[string]func(){
		"unknown command": func() { Header{1, 9}.Put(make([]byte, HeaderSize)) },
		"short CREATE":    func() { AppendFrame(nil, Header{1, Create}, make([]byte, 5)) },
		"unknown frame":   func() { AppendFrame(nil, Header{1, 9}, nil) },
		"long message":    func() { Message{1, Record, make([]byte, MaxMessage+1)}.Put(make([]byte, Payload)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was written", name)
				}
			}()
			f()
		}()
	}
}

func TestReasonsHaveWords(t *testing.T) {
	for r, want := range map[Reason]string{OK: "ok", UnknownHop: "unknown hop", Done: "done", Done + 1: "reason 11", 255: "reason 255"} {
		if got := r.String(); got != want {
			t.Errorf("reason %d is %q, want %q", uint8(r), got, want)
		}
	}
	if len(reasons) != int(Done)+1 {
		t.Errorf("%d words for %d reasons", len(reasons), Done+1)
	}
}

func TestFrameHoldsItsCellBehindItsHeader(t *testing.T) {
	f := NewFrame()
	defer f.Free()
	clear(f[:])
	f.Body()[0], f.Body()[Size-1] = 1, 2
	if f[HeaderSize] != 1 || f[FrameSize-1] != 2 || len(f) != HeaderSize+len(f.Body()) {
		t.Error("the cell lies elsewhere")
	}
}

func TestHeadersAndMessagesDoNotAllocate(t *testing.T) {
	f := NewFrame()
	defer f.Free()
	body := make([]byte, MaxMessage)
	if n := testing.AllocsPerRun(100, func() {
		Header{3, Data}.Put(f[:])
		if _, _, err := ParseHeader(f[:]); err != nil {
			t.Fatal(err)
		}
		Message{1, Record, body}.Put(f.Body()[:Payload])
		if _, err := ParseMessage(f.Body()[:Payload]); err != nil {
			t.Fatal(err)
		}
		PutStream(f.Body()[:], 5)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseHeader(f *testing.F) {
	for _, v := range readVectors(f) {
		if v.kind == "header" {
			f.Add(v.wire)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseHeader(b)
		if err != nil {
			return
		}
		if n < 0 || n > maxFrameBody {
			t.Errorf("a body of %d bytes", n)
		}
		again := make([]byte, HeaderSize)
		h.Put(again)
		if !bytes.Equal(again, b[:HeaderSize]) {
			t.Errorf("%x is written as %x", b[:HeaderSize], again)
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	for _, v := range readVectors(f) {
		if v.kind == "message" {
			f.Add(v.wire)
			f.Add(padded(v.wire))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		if again := m.Append(nil); !bytes.Equal(again, b[:len(again)]) {
			t.Errorf("%x is written as %x", b[:len(again)], again)
		}
	})
}

func FuzzParseCredit(f *testing.F) {
	f.Add(AppendCredit(nil, 1, 1<<40)[HeaderSize:])
	f.Add([]byte{1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		total, err := ParseCredit(b)
		if (err == nil) != (len(b) == creditSize) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
		if err == nil && !bytes.Equal(AppendCredit(nil, 1, total)[HeaderSize:], b) {
			t.Errorf("%x gave %d", b, total)
		}
	})
}

func BenchmarkHeader(b *testing.B) {
	f := NewFrame()
	defer f.Free()
	b.ReportAllocs()
	for b.Loop() {
		Header{3, Data}.Put(f[:])
		if _, _, err := ParseHeader(f[:]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	payload, body := make([]byte, Payload), make([]byte, MaxMessage)
	b.SetBytes(Payload)
	b.ReportAllocs()
	for b.Loop() {
		Message{1, Record, body}.Put(payload)
		if _, err := ParseMessage(payload); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		NewFrame().Free()
	}
}
