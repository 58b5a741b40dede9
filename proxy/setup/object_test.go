package setup

import (
	"encoding/json"
	"testing"
)

func TestEditingAnObjectLeavesTheRestAlone(t *testing.T) {
	for _, c := range []struct{ name, before, key, raw, after string }{
		{"a value is replaced", `{"x": 1, "y": [1, {}]}`, "x", "true", `{"x": true, "y": [1, {}]}`},
		{"the last one counts", `{"x": 1, "x": 2}`, "x", "3", `{"x": 1, "x": 3}`},
		{"the one inside", "{\n    \"p\": {\n        \"x\": 1\n    },\n    \"x\": 2\n}\n", "p.x", "3", "{\n    \"p\": {\n        \"x\": 3\n    },\n    \"x\": 2\n}\n"},
		{"a key is added", "{\n    \"y\": 1\n}\n", "x", "3", "{\n    \"y\": 1,\n    \"x\": 3\n}\n"},
		{"a key is added inside", "{\n  \"p\": {\n    \"y\": 1\n  }\n}", "p.x", "3", "{\n  \"p\": {\n    \"y\": 1,\n    \"x\": 3\n  }\n}"},
		{"a key is added to nothing", "{}", "x", "3", `{"x": 3}`},
		{"behind a version", `{"file": 1, "x": 0}{"x": 1}`, "x", "3", `{"file": 1, "x": 0}{"x": 3}`},
		{"no spaces", `{"y":1}`, "x", "3", `{"y":1,"x": 3}`},
		{"a brace in a text", `{"y": "}\"{", "x": 1}`, "x", "3", `{"y": "}\"{", "x": 3}`},
	} {
		got, err := object(c.before).set(c.key, c.raw)
		if err != nil || string(got) != c.after {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.after)
		}
		if got, ok := object(c.after).get(c.key); !ok || got != c.raw {
			t.Errorf("%s: read back %q, %v", c.name, got, ok)
		}
	}
}

func TestWhatWasAddedToAnObjectGoesWithoutATrace(t *testing.T) {
	for _, before := range []string{"{}", `{"y": 1}`, "{\n    \"y\": 1\n}\n", `{"a": 1}{"b": {"c": 2}, "y": 1}`} {
		added, err := object(before).set("x", "3")
		if err != nil {
			t.Fatal(err)
		}
		got, err := added.unset("x")
		if err != nil || string(got) != before {
			t.Errorf("got %q, %v, want %q", got, err, before)
		}
	}
	for in, want := range map[string]string{`{"x": 1, "y": 2}`: `{"y": 2}`, `{"y": 2, "x": 1, "z": 3}`: `{"y": 2, "z": 3}`, `{"x": 1, "x": 2}`: `{}`} {
		if got, err := object(in).unset("x"); err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v, want %s", in, got, err, want)
		}
	}
}

func TestWhatIsNoObjectIsRefused(t *testing.T) {
	for _, b := range []string{"", "[]", "1", `{"x": 1`, `{"x": 1} x`, `"x"`, "{}[]"} {
		if got, err := object(b).set("x", "3"); err == nil {
			t.Errorf("%q became %q", b, got)
		}
		if _, err := object(b).all(); err == nil {
			t.Errorf("%q was read", b)
		}
	}
	if got, err := object(`{"p": 1}`).set("p.x", "3"); err == nil {
		t.Errorf("inside what is no object: %s", got)
	}
}

func FuzzObject(f *testing.F) {
	for _, s := range sections(f, "objects.txt") {
		f.Add([]byte(s))
	}
	keys := []string{"x", "proxy.type", "dht", "utp-enabled"}
	f.Fuzz(func(t *testing.T, b []byte) {
		o := object(b)
		if _, err := o.body(); err != nil {
			return
		}
		for _, key := range keys {
			after, err := o.set(key, `"new"`)
			if err != nil {
				continue // no object to be inside of
			}
			if got, ok := after.get(key); !ok || got != `"new"` {
				t.Errorf("%s: read back %q, %v", key, got, ok)
			}
			if gone, err := after.unset(key); err != nil {
				t.Errorf("%s: unset: %v", key, err)
			} else if _, ok := gone.get(key); ok {
				t.Errorf("%s is still there", key)
			}
			for _, other := range keys {
				was, had := o.get(other)
				if is, has := after.get(other); other != key && (is != was || has != had) {
					t.Errorf("%s was set, and %s went from %q, %v to %q, %v", key, other, was, had, is, has)
				}
			}
		}
		s, err := o.all()
		if err != nil {
			t.Fatal(err)
		}
		delugeProfile(s)
		transmissionProfile(seen{file: s})
		transmissionURL(s)
		for _, c := range append(delugeChanges(s, want), transmissionChanges(seen{file: s}, want)...) {
			if !json.Valid(c.New) {
				t.Errorf("%s: %s", c.Name, c.New)
			}
		}
	})
}
