package setup

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
	b.Write(message(t, []any{int64(delugeResponse), int64(0), "another's"}))
	b.Write(message(t, []any{int64(delugeResponse), int64(1), "ours"}))
	if got, err := readAnswer(&b, 1); err != nil || got != "ours" {
		t.Errorf("got %v, %v", got, err)
	}
	b.Write(message(t, []any{int64(delugeError), int64(1), "BadLoginError", []any{}}))
	if got, err := readAnswer(&b, 1); err == nil || !strings.Contains(err.Error(), "BadLoginError") {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestEveryTruncatedMessageIsRefused(t *testing.T) {
	whole := message(t, []any{int64(delugeResponse), int64(1), "ours"})
	for i := range whole {
		if got, err := readAnswer(bytes.NewReader(whole[:i]), 1); err == nil {
			t.Errorf("%d of %d bytes: %v", i, len(whole), got)
		}
	}
}

func TestAMessageIsBounded(t *testing.T) {
	long := binary.BigEndian.AppendUint32([]byte{delugeVersion}, maxAnswer+1)
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
	bomb := append(binary.BigEndian.AppendUint32([]byte{delugeVersion}, uint32(packed.Len())), packed.Bytes()...)
	if _, err := readMessage(bytes.NewReader(bomb)); err == nil {
		t.Error("a bomb was read")
	}
	if _, err := readAnswer(strings.NewReader(strings.Repeat(string(message(t, []any{int64(3), "E", nil})), maxEvents+1)), 1); err == nil {
		t.Error("events without an end were read")
	}
}
