package setup

import (
	"strings"
	"testing"
)

func TestEditingABencodedFileLeavesTheRestAlone(t *testing.T) {
	for _, c := range []struct{ name, before, key, text, after string }{
		{"a value is replaced", "d1:ai1e1:b1:xe", "a", "i2e", "d1:ai2e1:b1:xe"},
		{"a key is added in its place", "d1:ai1e1:ci1ee", "b", "1:x", "d1:ai1e1:b1:x1:ci1ee"},
		{"a key is added to nothing", "de", "a", "0:", "d1:a0:e"},
		{"lists and dictionaries stay", "d1:ald1:xi-3eee1:bi1ee", "b", "i2e", "d1:ald1:xi-3eee1:bi2ee"},
		{"bytes that are no text stay", "d1:a2:\xff\xfe1:bi1ee", "b", "i2e", "d1:a2:\xff\xfe1:bi2ee"},
	} {
		f := bencodeFormat{}
		got, err := f.set([]byte(c.before), c.key, c.text)
		if err != nil || string(got) != c.after {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.after)
		}
		if text, ok := f.get(got, c.key); !ok || text != c.text {
			t.Errorf("%s: read back %q, %v", c.name, text, ok)
		}
	}
	for _, bad := range []string{"", "i1e", "le", "d", "d1:a", "{}"} {
		if got, err := (bencodeFormat{}).set([]byte(bad), "a", "i1e"); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func FuzzBencode(f *testing.F) {
	for _, s := range sections(f, "biglybt.txt") {
		f.Add([]byte(strings.TrimSpace(s)))
	}
	f.Add([]byte("d1:ad1:bi1eee"))
	keys := []string{"Enable.Proxy", "Bind IP", "a"}
	f.Fuzz(func(t *testing.T, b []byte) {
		form := bencodeFormat{}
		s, err := form.parse(b)
		if err != nil {
			return
		}
		BiglyBT.(configurable).profile(seen{file: s})
		BiglyBT.(configurable).changes(seen{file: s}, want)
		for _, key := range keys {
			after, err := form.set(b, key, "3:new")
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := form.get(after, key); !ok || got != "3:new" {
				t.Errorf("%s: read back %q, %v", key, got, ok)
			}
			gone, err := form.unset(after, key)
			if _, ok := form.get(gone, key); ok || err != nil {
				t.Errorf("%s is still there: %v", key, err)
			}
			for _, other := range keys {
				was, had := form.get(b, other)
				if is, has := form.get(after, other); other != key && (is != was || has != had) {
					t.Errorf("%s was set, and %s went from %q, %v to %q, %v", key, other, was, had, is, has)
				}
			}
		}
	})
}
