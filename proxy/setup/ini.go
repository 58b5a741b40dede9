package setup

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// iniFormat is a file as Qt writes it, and qBittorrent with it:
//
//	[Section]
//	Name\Sub=value
//
// Its keys are called Section/Name/Sub here.
type iniFormat struct{}

func (iniFormat) parse(file []byte) (settings, error) {
	s := make(settings)
	group := ""
	for l := range bytes.Lines(file) {
		l = bytes.TrimSpace(l)
		switch {
		case len(l) == 0 || l[0] == ';' || l[0] == '#':
		case l[0] == '[':
			group = string(bytes.Trim(l, "[]"))
		default:
			if k, v, ok := bytes.Cut(l, []byte("=")); ok {
				name := group + "/" + strings.ReplaceAll(string(bytes.TrimSpace(k)), `\`, "/")
				s[name] = iniValue(string(bytes.TrimSpace(v)))
			}
		}
	}
	return s, nil
}

func (iniFormat) get(file []byte, name string) (string, bool) { return ini(file).get(name) }
func (iniFormat) set(file []byte, name, text string) ([]byte, error) {
	return ini(file).set(name, text), nil
}
func (iniFormat) unset(file []byte, name string) ([]byte, error) { return ini(file).unset(name), nil }
func (iniFormat) text(v json.RawMessage) (string, error)         { return iniText(v) }
func (iniFormat) value(text string) json.RawMessage              { return iniValue(text) }

type ini []byte

// line is where a key is: b[start:end] with its end of line, value in between.
type line struct{ start, value, end int }

// find returns the last line that gives key a value, and where its section
// ends, before blank lines; 0 when there is no such section.
func (b ini) find(key string) (at line, found bool, section int) {
	group, name, _ := strings.Cut(key, "/")
	name = strings.ReplaceAll(name, "/", `\`)
	inside, pos := false, 0
	for l := range bytes.Lines(b) {
		start := pos
		pos += len(l)
		text := bytes.TrimSpace(l)
		switch {
		case len(text) == 0:
			continue
		case text[0] == ';' || text[0] == '#':
		case text[0] == '[':
			inside = string(text) == "["+group+"]"
		case inside:
			if k, _, ok := bytes.Cut(l, []byte("=")); ok && string(bytes.TrimSpace(k)) == name {
				at, found = line{start, start + len(k) + 1, pos}, true
			}
		}
		if inside {
			section = pos
		}
	}
	return at, found, section
}

// get returns a key's value as it is written.
func (b ini) get(key string) (raw string, ok bool) {
	at, ok, _ := b.find(key)
	if !ok {
		return "", false
	}
	return string(bytes.TrimSpace(b[at.value:at.end])), true
}

// set returns b with a value for key.
func (b ini) set(key, raw string) ini {
	at, found, section := b.find(key)
	if found {
		old := b[at.value:at.end]
		tail := old[len(bytes.TrimRight(old, "\r\n")):]
		return splice(b, at.value, at.end, raw+string(tail))
	}
	newline := "\n"
	if bytes.Contains(b, []byte("\r\n")) {
		newline = "\r\n"
	}
	group, name, _ := strings.Cut(key, "/")
	add := strings.ReplaceAll(name, "/", `\`) + "=" + raw + newline
	where := section
	if section == 0 {
		where = len(b)
		add = "[" + group + "]" + newline + add
		if len(b) > 0 {
			add = newline + add
		}
	}
	if where > 0 && b[where-1] != '\n' {
		add = newline + add
	}
	return splice(b, where, where, add)
}

// unset returns b without a value for key.
func (b ini) unset(key string) ini {
	for {
		at, found, _ := b.find(key)
		if !found {
			return b
		}
		b = splice(b, at.start, at.end, "")
	}
}

func splice(b []byte, start, end int, with string) []byte {
	out := make([]byte, 0, len(b)-(end-start)+len(with))
	out = append(out, b[:start]...)
	out = append(out, with...)
	return append(out, b[end:]...)
}

// iniValue returns JSON for a value as it is written. Qt has no types in the
// file: what looks like a number or a truth is one.
func iniValue(raw string) json.RawMessage {
	if raw == "true" || raw == "false" {
		return json.RawMessage(raw)
	}
	if n, err := strconv.Atoi(raw); err == nil && strconv.Itoa(n) == raw {
		return json.RawMessage(raw)
	}
	if n, ok := qtShort(raw); ok {
		return value(n)
	}
	if t, ok := strings.CutPrefix(raw, `"`); ok {
		if t, ok = strings.CutSuffix(t, `"`); ok {
			raw = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(t)
		}
	}
	return value(raw)
}

// qtShort reads the one kind of number that Qt has no text for, and that
// qBittorrent keeps ports in: @Variant(…) around four bytes for the kind and two
// for the number, with escapes as in C.
func qtShort(raw string) (n uint16, ok bool) {
	inner, ok := strings.CutPrefix(raw, "@Variant(")
	if inner, ok = strings.CutSuffix(inner, ")"); !ok {
		return 0, false
	}
	b := qtUnescape(inner)
	if len(b) != 4+2 || binary.BigEndian.Uint32(b) != qtKindShort {
		return 0, false
	}
	return binary.BigEndian.Uint16(b[4:]), true
}

const qtKindShort = 0x85

// qtUnescape returns the bytes of a text with C's escapes.
func qtUnescape(s string) (b []byte) {
	const hex = "0123456789abcdefABCDEF"
	for len(s) > 0 {
		if s[0] != '\\' || len(s) == 1 {
			b, s = append(b, s[0]), s[1:]
			continue
		}
		kind, rest := s[1], s[2:]
		digits := len(rest) - len(strings.TrimLeft(rest, hex))
		if kind == 'x' && digits > 0 {
			n, _ := strconv.ParseUint(rest[:min(digits, 2)], 16, 8)
			b, s = append(b, byte(n)), rest[digits:]
			continue
		}
		if at := strings.IndexByte(`0abfnrtv`, kind); at >= 0 {
			kind = "\x00\a\b\f\n\r\t\v"[at]
		}
		b, s = append(b, kind), rest
	}
	return b
}

// iniText returns how a JSON value is written; nil is nothing.
func iniText(v json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(v, &text) != nil {
		return string(v), nil
	}
	for _, r := range text {
		if r < ' ' || r > '~' {
			return "", fmt.Errorf("setup: a character in a setting that is not ASCII")
		}
	}
	if text == strings.TrimSpace(text) && !strings.ContainsAny(text, `"\;,=@%`) {
		return text, nil
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`, nil
}
