package meter

import (
	"testing"
	"time"
)

func TestTheNameOfAProgramMayHoldAnything(t *testing.T) {
	got, err := parseStat([]byte("7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 150 25 3 4 20 0 1 0 5 0 0"))
	if want := 1750 * time.Millisecond; err != nil || got != want {
		t.Errorf("parseStat = %v, %v, want %v", got, err, want)
	}
}

func TestWhatIsNoStatIsRefused(t *testing.T) {
	for _, s := range []string{"", "7 (a", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 4194560 100 0 0 0 x 25 3"} {
		if got, err := parseStat([]byte(s)); err == nil {
			t.Errorf("parseStat(%q) = %v, want an error", s, got)
		}
	}
	for _, s := range []string{"", "VmRSS:", "VmRSS: 7", "VmRSS: x kB", "VmRSS: 7 MB"} {
		if got, err := parseStatus(s); err == nil {
			t.Errorf("parseStatus(%q) = %v, want an error", s, got)
		}
	}
}
