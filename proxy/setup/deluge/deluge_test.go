package deluge

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func message(t *testing.T, list []any) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeMessage(&b, list); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTheAnswerToARequestIsFoundAmongEvents(t *testing.T) {
	var b bytes.Buffer
	b.Write(message(t, []any{int64(3), "SomeEvent", []any{}}))
	b.Write(message(t, []any{int64(kindResponse), int64(0), "another's"}))
	b.Write(message(t, []any{int64(kindResponse), int64(1), "ours"}))
	if got, err := readAnswer(&b, 1); err != nil || got != "ours" {
		t.Errorf("got %v, %v", got, err)
	}
	b.Write(message(t, []any{int64(kindError), int64(1), "BadLoginError", []any{}}))
	if got, err := readAnswer(&b, 1); !errors.Is(err, ErrLogin) {
		t.Errorf("got %v, %v, want %v", got, err, ErrLogin)
	}
	b.Write(message(t, []any{int64(kindError), int64(1), "KeyError", []any{}}))
	if got, err := readAnswer(&b, 1); err == nil || errors.Is(err, ErrLogin) || !strings.Contains(err.Error(), "KeyError") {
		t.Errorf("got %v, %v, want KeyError", got, err)
	}
}

func TestEveryTruncatedMessageIsRefused(t *testing.T) {
	whole := message(t, []any{int64(kindResponse), int64(1), "ours"})
	for i := range whole {
		if got, err := readAnswer(bytes.NewReader(whole[:i]), 1); err == nil {
			t.Errorf("%d of %d bytes: %v", i, len(whole), got)
		}
	}
}

func TestAMessageIsBounded(t *testing.T) {
	long := binary.BigEndian.AppendUint32([]byte{version}, maxAnswer+1)
	if _, err := readMessage(bytes.NewReader(long)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a long one: %v", err)
	}
	// A list with a text that is well formed, and shrinks a thousandfold.
	var packed bytes.Buffer
	z, err := zlib.NewWriterLevel(&packed, zlib.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(z, "\xc1%d:", maxAnswer)
	z.Write(make([]byte, maxAnswer))
	z.Close()
	bomb := append(binary.BigEndian.AppendUint32([]byte{version}, uint32(packed.Len())), packed.Bytes()...)
	if _, err := readMessage(bytes.NewReader(bomb)); err == nil {
		t.Error("a bomb was read")
	}
	if _, err := readAnswer(strings.NewReader(strings.Repeat(string(message(t, []any{int64(3), "E", nil})), maxEvents+1)), 1); err == nil {
		t.Error("events without an end were read")
	}
}

func FuzzReadAnswer(f *testing.F) {
	for _, list := range [][]any{
		{int64(kindResponse), int64(1), map[string]any{"proxy": map[string]any{"type": int64(2)}}},
		{int64(kindError), int64(1), "BadLoginError", []any{}},
		{int64(3), "SomeEvent", []any{}},
	} {
		var b bytes.Buffer
		if err := writeMessage(&b, list); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := readAnswer(bytes.NewReader(b), 1); err != nil && got != nil {
			t.Errorf("got %v with %v", got, err)
		}
	})
}
