package setup

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// sections returns the "# name" headed parts of a file of testdata, the lines
// between them unchanged.
func sections(t testing.TB, file string) map[string]string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	all, name := make(map[string]string), ""
	for l := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(l, "#### "); ok {
			name = strings.TrimSpace(n)
			continue
		}
		if name != "" {
			all[name] += l
		}
	}
	return all
}

func TestEditingAnIniLeavesTheRestAlone(t *testing.T) {
	for _, c := range []struct{ name, before, key, raw, after string }{
		{"a value is replaced", "[A]\nx=1\ny=2\n", "A/x", "3", "[A]\nx=3\ny=2\n"},
		{"the last one counts", "[A]\nx=1\nx=2\n", "A/x", "3", "[A]\nx=1\nx=3\n"},
		{"a key with a backslash", "[A]\nx\\y=1\n", "A/x/y", "3", "[A]\nx\\y=3\n"},
		{"another section's key of that name", "[B]\nx=1\n[A]\nx=2\n", "A/x", "3", "[B]\nx=1\n[A]\nx=3\n"},
		{"a key is added to its section", "[A]\ny=2\n\n[B]\nx=1\n", "A/x", "3", "[A]\ny=2\nx=3\n\n[B]\nx=1\n"},
		{"a section is added", "[B]\nx=1\n", "A/x", "3", "[B]\nx=1\n\n[A]\nx=3\n"},
		{"a section is added to nothing", "", "A/x", "3", "[A]\nx=3\n"},
		{"no newline at the end", "[A]\ny=2", "A/x", "3", "[A]\ny=2\nx=3\n"},
		{"Windows' ends of lines", "[A]\r\nx=1\r\ny=2\r\n", "A/x", "3", "[A]\r\nx=3\r\ny=2\r\n"},
		{"a key added with Windows' ends of lines", "[A]\r\ny=2\r\n", "A/x", "3", "[A]\r\ny=2\r\nx=3\r\n"},
		{"a comment", "[A]\n;x=1\n#x=1\n", "A/x", "3", "[A]\n;x=1\n#x=1\nx=3\n"},
	} {
		if got := string(ini(c.before).set(c.key, c.raw)); got != c.after {
			t.Errorf("%s: got %q, want %q", c.name, got, c.after)
		}
		if got, ok := ini(c.after).get(c.key); !ok || got != c.raw {
			t.Errorf("%s: read back %q, %v", c.name, got, ok)
		}
		if _, ok := ini(c.after).unset(c.key).get(c.key); ok {
			t.Errorf("%s: it is still there when unset", c.name)
		}
	}
}

func FuzzIni(f *testing.F) {
	for _, s := range sections(f, "qbittorrent.txt") {
		f.Add([]byte(s))
	}
	f.Add([]byte("[A]\r\nx=1\n[A"))
	keys := []string{"Network/Proxy/Type", "BitTorrent/Session/DHTEnabled", "Preferences/WebUI/Port", "A/x"}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, key := range keys {
			after := ini(b).set(key, "new")
			if got, ok := after.get(key); !ok || got != "new" {
				t.Errorf("%s: read back %q, %v", key, got, ok)
			}
			if gone, ok := after.unset(key).get(key); ok {
				t.Errorf("%s: still %q", key, gone)
			}
			for _, other := range keys {
				if other == key {
					continue
				}
				was, had := ini(b).get(other)
				if is, has := after.get(other); is != was || has != had {
					t.Errorf("%s was set, and %s went from %q, %v to %q, %v", key, other, was, had, is, has)
				}
			}
		}
		s, err := iniFormat{}.parse(b)
		if err != nil {
			t.Fatal(err)
		}
		qbProfile(qbAsAPI(s), s)
		qbChangesFile(s, want)
		qbURL(s)
	})
}

func TestValuesOfAnIniAreReadAsQtWritesThem(t *testing.T) {
	for raw, json := range map[string]string{
		"true": "true", "8080": "8080", "SOCKS5": `"SOCKS5"`, "": `""`, "08": `"08"`,
		`"a, b"`: `"a, b"`, `"a \"b\" \\"`: `"a \"b\" \\"`,
		`@Variant(\0\0\0\x85\x1f\x90)`: "8080",
		`@Variant(\0\0\0\x85\x4\x38)`:  "1080",
		`@Variant(\0\0\0\x85\0P)`:      "80",
		`@Variant(\0\0\0\x86\0P)`:      `"@Variant(\\0\\0\\0\\x86\\0P)"`,
		`@Variant(`:                    `"@Variant("`,
		`@Invalid()`:                   `"@Invalid()"`,
	} {
		if got := string(iniValue(raw)); got != json {
			t.Errorf("%s: got %s, want %s", raw, got, json)
		}
	}
}

func TestValuesAreWrittenAsQtReadsThem(t *testing.T) {
	for json, raw := range map[string]string{
		"true": "true", "1080": "1080", `"SOCKS5"`: "SOCKS5", `"a, b"`: `"a, b"`, `" a"`: `" a"`, `"a\"b\\"`: `"a\"b\\"`,
	} {
		got, err := iniText([]byte(json))
		if err != nil || got != raw {
			t.Errorf("%s: got %s, %v, want %s", json, got, err, raw)
		}
		if back := iniValue(got); !same(back, []byte(json)) {
			t.Errorf("%s: read back as %s", json, back)
		}
	}
	for _, bad := range []string{`"a\nb"`, `"é"`} {
		if got, err := iniText([]byte(bad)); err == nil {
			t.Errorf("%s was written as %s", bad, got)
		}
	}
}

func TestAFileReadWholeSaysWhatItsLinesSay(t *testing.T) {
	for name, text := range sections(t, "qbittorrent.txt") {
		s, err := iniFormat{}.parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if len(s) == 0 {
			t.Errorf("%s: nothing in it", name)
		}
		for key, v := range s {
			if line, ok := ini(text).get(key); !ok || !slices.Equal(iniValue(line), v) {
				t.Errorf("%s: %s is %s whole and %s, %v alone", name, key, v, line, ok)
			}
		}
	}
}
