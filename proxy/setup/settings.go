package setup

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// settings are a client's, under the client's own names; values are JSON. A
// name with a dot is inside an object: proxy.type.
type settings map[string]json.RawMessage

// text returns a value without the quotes of JSON, "" for none.
func (s settings) text(name string) string {
	var t string
	if json.Unmarshal(s[name], &t) == nil {
		return t
	}
	return string(s[name])
}

// is reports whether a value is true; what is not set has its default.
func (s settings) is(name string, byDefault bool) bool {
	v, ok := s[name]
	if !ok {
		return byDefault
	}
	return string(v) == "true"
}

// has reports whether any of the names is set.
func (s settings) has(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { _, ok := s[n]; return ok })
}

// number returns a whole number, 0 for anything else.
func (s settings) number(name string) int {
	var n int
	if json.Unmarshal(s[name], &n) != nil {
		return 0
	}
	return n
}

// value returns v as JSON. v is of a type that JSON has.
func value(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// Change is one setting that is to change. Its JSON is what the undo file holds.
type Change struct {
	Name string          `json:"name"` // the client's own
	Old  json.RawMessage `json:"old"`  // null: it was not set, so the client's default held
	New  json.RawMessage `json:"new"`  // null: it is to be unset
}

// kinds are the meanings of settings whose values are bare numbers. A client's
// file adds its own.
var kinds = map[string][]string{}

// numbered adds the meanings of a setting's numbers, from 0 up.
func numbered(name string, meanings []string) []string {
	kinds[name] = meanings
	return meanings
}

// String returns old → new in one line. Passwords are not shown.
func (c Change) String() string { return c.Name + ": " + c.show(c.Old) + " → " + c.show(c.New) }

func (c Change) show(v json.RawMessage) string {
	if v == nil {
		return "(not set)"
	}
	if strings.Contains(strings.ToLower(c.Name), "password") && string(v) != `""` {
		return "(a password)"
	}
	if n, err := strconv.Atoi(string(v)); err == nil && n >= 0 && n < len(kinds[c.Name]) {
		return fmt.Sprintf("%d (%s)", n, kinds[c.Name][n])
	}
	var line bytes.Buffer
	if json.Compact(&line, v) != nil {
		return string(v)
	}
	return line.String()
}

// wish is one setting that a client should have.
type wish struct {
	name  string
	value any
}

// changes returns what has to change in s to fulfil the wishes.
func (s settings) changes(wishes []wish) []Change {
	var all []Change
	for _, w := range wishes {
		if v := value(w.value); !same(s[w.name], v) {
			all = append(all, Change{w.name, s[w.name], v})
		}
	}
	return all
}

// same reports whether two values are equal, however their JSON is written.
func same(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	return bytes.Equal(value(x), value(y))
}
