package directory

import (
	"testing"
)

// benchRelays is how many relays the benchmarks' directory has.
const benchRelays = 2000

func benchView(b *testing.B) *View {
	var lines []said
	for n := range benchRelays {
		lines = append(lines, said{relay(b, n), 1 << 20, 200})
	}
	return view(b, 0, testNow, nil, lines...)
}

func BenchmarkVerifyFirstView(b *testing.B) {
	raw := benchView(b).Raw()
	for b.Loop() {
		v, err := ParseView(raw)
		if err == nil {
			err = v.Verify(trackerKey(0), testNow, nil)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(raw))/benchRelays, "B/relay")
}

func BenchmarkVerifyNextView(b *testing.B) {
	raw := benchView(b).Raw()
	c := NewCache()
	for b.Loop() {
		v, err := ParseView(raw)
		if err == nil {
			err = v.Verify(trackerKey(0), testNow, c)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	v := benchView(b)
	n := testNetwork(1)
	views := map[[32]byte]*View{trackerKey(0): v}
	for b.Loop() {
		if m := Merge(&n, views, testNow); len(m.Relays) != benchRelays {
			b.Fatal(len(m.Relays))
		}
	}
}
