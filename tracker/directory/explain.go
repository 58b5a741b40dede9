package directory

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"regexp"
	"strings"
	"unicode/utf8"
)

// This file words the refusal of a network file or tracker link for the person
// who gave it: what it is instead, or where it is wrong.

// unreadable returns why the file at path can't be read, without Go's name of the call.
func unreadable(path string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return fmt.Errorf("network file %s: %w", path, err)
}

// lookalikes are files that are taken for a network file, by how they begin.
var lookalikes = []struct {
	begins *regexp.Regexp
	is     string
}{
	{regexp.MustCompile(`^\s*$`), "it is empty"},
	{regexp.MustCompile(`^d\d+:`), "it is a .torrent: open it in the torrent client"},
	{regexp.MustCompile(`^\s*magnet:`), "it holds a magnet link: open that in the torrent client"},
	{regexp.MustCompile(`^\s*` + LinkPrefix), "it holds a tracker link: specify that with --tracker"},
	{regexp.MustCompile(`^\s*<`), "it is HTML or XML: download the file itself, not a page about it"},
}

// utf8Mark is what some editors put in front of UTF-8.
var utf8Mark = []byte("\xef\xbb\xbf")

// notNetwork words the error with which b failed to decode as a network file.
func notNetwork(b []byte, err error) error {
	for _, l := range lookalikes {
		if l.begins.Match(b) {
			return fmt.Errorf("not a network file: %s", l.is)
		}
	}
	if bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) {
		return errors.New("not a network file: it is UTF-16 text: save it as UTF-8")
	}
	if isBinary(b) {
		return errors.New("not a network file: it is binary, not JSON text")
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		at := max(syntax.Offset-1, 0) // Offset counts the wrong character
		r, _ := utf8.DecodeRune(b[at:])
		return fmt.Errorf("not valid JSON: unexpected %q %s", r, position(b, at))
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		want := cmp.Or(kinds[wrong.Type.Kind()], "another kind of value")
		if wrong.Field == "" {
			return fmt.Errorf("not a network file: want %s, found %s", want, wrong.Value)
		}
		return fmt.Errorf("setting %q %s: want %s, found %s", wrong.Field, position(b, wrong.Offset), want, wrong.Value)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("not valid JSON: it ends too early, %s: copy the whole file again", position(b, int64(len(b))))
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("unknown setting %s: see docs/running.md for the format", name)
	}
	return err
}

// kinds are the kinds of a setting's value, in the words of JSON.
var kinds = map[reflect.Kind]string{
	reflect.Struct: "an object", reflect.Slice: "an array", reflect.String: "a string", reflect.Bool: "true or false",
}

// isBinary reports whether b is no text. Its last character may be cut in two.
func isBinary(b []byte) bool {
	text := bytes.TrimRightFunc(b, func(r rune) bool { return r == utf8.RuneError })
	return !utf8.Valid(text) || len(b)-len(text) >= utf8.UTFMax || bytes.IndexByte(b, 0) >= 0
}

// position returns where in b, counted as editors do, the byte at offset is.
func position(b []byte, offset int64) string {
	before := b[:min(offset, int64(len(b)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf("at line %d, column %d", line, column)
}

// notLink returns why s, which begins otherwise, is no tracker link.
func notLink(s string) error {
	switch scheme, _, _ := strings.Cut(s, ":"); scheme {
	case "magnet":
		return errors.New("want " + LinkPrefix + "…, not a magnet link: open that in the torrent client")
	case "http", "https", "udp", "ws", "wss":
		return errors.New("want " + LinkPrefix + "…, not an ordinary BitTorrent tracker or a web page")
	}
	return fmt.Errorf("want %s…, not %.40q", LinkPrefix, s)
}
