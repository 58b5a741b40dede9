package setup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// objectFormat is a file of one or more JSON objects, the last of which holds
// settings; Deluge's first one holds versions. Keys with a dot are inside an
// object.
type objectFormat struct{}

func (objectFormat) parse(file []byte) (settings, error)         { return object(file).all() }
func (objectFormat) get(file []byte, name string) (string, bool) { return object(file).get(name) }
func (objectFormat) set(file []byte, name, text string) ([]byte, error) {
	return object(file).set(name, text)
}
func (objectFormat) unset(file []byte, name string) ([]byte, error) { return object(file).unset(name) }
func (objectFormat) text(v json.RawMessage) (string, error)         { return string(v), nil }
func (objectFormat) value(text string) json.RawMessage              { return json.RawMessage(text) }

type object []byte

// span is where something is in a file.
type span struct{ start, end int }

// member is one key of an object: from its quote to its value's end.
type member struct {
	name string
	key  int  // where the key's quote is
	at   span // of the value
}

var errObject = errors.New("setup: no file of JSON objects")

// body returns where the settings are.
func (b object) body() (at span, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	for n := 0; ; n++ {
		var raw json.RawMessage
		err := d.Decode(&raw)
		if err == io.EOF && n > 0 {
			return at, nil
		}
		if err != nil || raw[0] != '{' {
			return at, errObject
		}
		end := int(d.InputOffset())
		at = span{end - len(raw), end}
	}
}

// members returns those of the object at s, in their order.
func (b object) members(s span) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(b[s.start:s.end]))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errObject
	}
	var all []member
	for d.More() {
		from := int(d.InputOffset())
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("setup: %w", err)
		}
		name, _ := t.(string)
		quote := bytes.IndexByte(b[s.start+from:s.end], '"')
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, fmt.Errorf("setup: %w", err)
		}
		end := s.start + int(d.InputOffset())
		all = append(all, member{name, s.start + from + quote, span{end - len(raw), end}})
	}
	return all, nil
}

// inside returns the object that holds key, and the key's name in it.
func (b object) inside(key string) (in span, name string, err error) {
	if in, err = b.body(); err != nil {
		return in, "", err
	}
	outer, inner, nested := strings.Cut(key, ".")
	if !nested {
		return in, key, nil
	}
	all, err := b.members(in)
	if err != nil {
		return in, "", err
	}
	at, ok := last(all, outer)
	if !ok || b[all[at].at.start] != '{' {
		return in, "", fmt.Errorf("setup: no object %s in the settings", outer)
	}
	return all[at].at, inner, nil
}

// last returns the index of the last member of that name: the one that counts.
func last(all []member, name string) (int, bool) {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].name == name {
			return i, true
		}
	}
	return 0, false
}

// get returns a key's value as it is written.
func (b object) get(key string) (raw string, ok bool) {
	in, name, err := b.inside(key)
	if err != nil {
		return "", false
	}
	all, err := b.members(in)
	if err != nil {
		return "", false
	}
	i, ok := last(all, name)
	if !ok {
		return "", false
	}
	return string(b[all[i].at.start:all[i].at.end]), true
}

// set returns b with a value for key.
func (b object) set(key, raw string) (object, error) {
	in, name, err := b.inside(key)
	if err != nil {
		return nil, err
	}
	all, err := b.members(in)
	if err != nil {
		return nil, err
	}
	if i, ok := last(all, name); ok {
		return splice(b, all[i].at.start, all[i].at.end, raw), nil
	}
	add := string(value(name)) + ": " + raw
	if len(all) == 0 {
		return splice(b, in.start+1, in.start+1, add), nil
	}
	// As the one before: its indentation is what stands before its quote.
	end, key0 := all[len(all)-1].at.end, all[len(all)-1].key
	indent := b[:key0]
	indent = indent[len(bytes.TrimRight(indent, " \t\r\n")):]
	return splice(b, end, end, ","+string(indent)+add), nil
}

// unset returns b without a value for key.
func (b object) unset(key string) (object, error) {
	for {
		in, name, err := b.inside(key)
		if err != nil {
			return nil, err
		}
		all, err := b.members(in)
		if err != nil {
			return nil, err
		}
		i, ok := last(all, name)
		switch {
		case !ok:
			return b, nil
		case i > 0: // with the comma before it
			b = splice(b, all[i-1].at.end, all[i].at.end, "")
		case len(all) > 1: // with the comma behind it
			b = splice(b, all[0].key, all[1].key, "")
		default:
			b = splice(b, all[0].key, all[0].at.end, "")
		}
	}
}

// all returns the settings, those inside objects with a dot.
func (b object) all() (settings, error) {
	in, err := b.body()
	if err != nil {
		return nil, err
	}
	out := make(settings)
	return out, out.add("", b[in.start:in.end])
}

// add adds the members of a JSON object, and those of objects right inside.
func (s settings) add(prefix string, raw []byte) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	for name, v := range m {
		if prefix == "" && v[0] == '{' {
			if err := s.add(name+".", v); err != nil {
				return err
			}
			continue
		}
		s[prefix+name] = v
	}
	return nil
}
