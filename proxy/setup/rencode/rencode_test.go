package rencode

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
)

type vector struct {
	wire []byte
	want string
}

func vectors(t testing.TB) (all []vector) {
	b, err := os.ReadFile("testdata/values.txt")
	if err != nil {
		t.Fatal(err)
	}
	var wire []byte
	for l := range strings.Lines(string(b)) {
		l = strings.TrimSpace(l)
		if w, ok := strings.CutPrefix(l, "want: "); ok {
			all = append(all, vector{wire, w})
			continue
		}
		if l == "" || l[0] == '#' {
			continue
		}
		if wire, err = hex.DecodeString(strings.ReplaceAll(l, " ", "")); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
	}
	return all
}

func TestGoldenValuesAreRead(t *testing.T) {
	for _, v := range vectors(t) {
		value, err := Parse(v.wire)
		got := "malformed"
		if err == nil {
			b, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			got = string(b)
		} else if !errors.Is(err, ErrMalformed) {
			t.Errorf("%x: %v is not ErrMalformed", v.wire, err)
		}
		if got != v.want {
			t.Errorf("%x: got %s, %v, want %s", v.wire, got, err, v.want)
		}
	}
}

// everything has a value of each type.
var everything = map[string]any{
	"nothing": nil, "yes": true, "no": false, "small": int64(5), "negative": int64(-5), "least": int64(math.MinInt64),
	"float": 1.5, "text": "a", "long": strings.Repeat("long ", 100), "empty": "",
	"list": []any{int64(1), "two", []any{}}, "dict": map[string]any{"in": map[string]any{}},
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	got, err := Parse(Append(nil, everything))
	if err != nil || !reflect.DeepEqual(got, everything) {
		t.Errorf("got %v, %v\nwant %v", got, err, everything)
	}
}

func TestEveryTruncatedValueIsRefused(t *testing.T) {
	wire := Append(nil, everything)
	for i := range wire {
		if _, err := Parse(wire[:i]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d of %d bytes: %v", i, len(wire), err)
		}
	}
}

func TestListsInListsHaveAnEnd(t *testing.T) {
	if _, err := Parse([]byte(strings.Repeat("\xc1", 1<<20))); !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.wire)
	}
	f.Add(Append(nil, everything))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Parse(Append(nil, v))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := json.Marshal(v); err == nil && !reflect.DeepEqual(v, again) {
			t.Errorf("%v became %v", v, again)
		}
	})
}
